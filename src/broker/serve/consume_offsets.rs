//! How far groups have consumed. Clients say it every few seconds for each queue and do not wait for an answer:
//! what comes while one record is on its way goes along with the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::failure::Failure;
use super::log_broker::{LogBroker, Part};
use super::names::{check_group, is_made_on_demand};
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, Reply};
use crate::broker::state::{Change, OffsetChange};

/// Offsets in one record.
const CHANGES_MAX: usize = 4096;
/// Offsets that wait for their record.
const PENDING_MAX: usize = 65_536;
/// A queue in which so much has come since its first message is no young one: a new group does not begin at 0.
const YOUNG_MAX: u64 = 1_000_000;

/// Pause before a record that failed is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long offsets that consumers had before a reset are passed over: stock clients take ten seconds to change over.
const RESET_HOLDS: Duration = Duration::from_secs(30);

type Key = (String, String, u32);

/// Offsets on their way into the log.
#[derive(Debug)]
pub(super) struct ConsumeOffsets {
    pending: Mutex<BTreeMap<Key, u64>>,
    /// Offsets that were reset, and when: consumers that do not know yet still report where they were.
    resets: Mutex<BTreeMap<Key, (u64, Instant)>>,
    more: Notify,
    /// Counts the records that were written; false if the last one failed.
    written: watch::Sender<(u64, bool)>,
}

impl Default for ConsumeOffsets {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            resets: Mutex::default(),
            more: Notify::new(),
            written: watch::Sender::new((0, true)),
        }
    }
}

impl ConsumeOffsets {
    fn pending(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resets(&self) -> MutexGuard<'_, BTreeMap<Key, (u64, Instant)>> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a consumer reports where it was before a reset. Who reports the offset of the reset has changed over.
    fn is_outdated(&self, key: &Key, offset: u64) -> bool {
        let mut resets = self.resets();
        let Some((reset, since)) = resets.get(key) else { return false };
        if *reset != offset && since.elapsed() < RESET_HOLDS {
            return true;
        }
        resets.remove(key);
        false
    }
}

fn queue(command: &Command) -> Result<u32, Failure> {
    let queue = command.head.fields.int("queueId")?;
    let illegal = || format!("queueId[{queue}] is illegal");
    u32::try_from(queue).map_err(|_| Failure::refused(response::INVALID_PARAMETER, illegal()))
}

impl LogBroker {
    /// Takes note of an offset, to be written soon. False if it was reset since.
    pub(super) fn note_offset(&self, group: &str, topic: &str, queue: u32, offset: u64) -> bool {
        let Ok(shared) = self.shared() else { return true };
        let held = shared.state().offset(group, topic, queue);
        let key = (group.to_owned(), topic.to_owned(), queue);
        if self.consumed.is_outdated(&key, offset) {
            return false;
        }
        let mut pending = self.consumed.pending();
        let full = pending.len() >= PENDING_MAX && !pending.contains_key(&key);
        if full || (held == Some(offset) && !pending.contains_key(&key)) {
            return true;
        }
        pending.insert(key, offset);
        self.consumed.more.notify_one();
        true
    }

    /// Sets offsets of a group in a topic and waits until they are in the log. What its consumers report of before is passed
    /// over, until they have changed over.
    ///
    /// # Errors
    /// They were not written, or are not known to be.
    pub(super) async fn reset_offsets(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(u32, u64)],
    ) -> Result<(), Failure> {
        let key = |queue: u32| (group.to_owned(), topic.to_owned(), queue);
        let mut written = self.consumed.written.subscribe();
        {
            let mut resets = self.consumed.resets();
            resets.retain(|_, (_, since)| since.elapsed() < RESET_HOLDS);
            let now = Instant::now();
            resets.extend(offsets.iter().map(|(queue, offset)| (key(*queue), (*offset, now))));
        }
        // With what waits already, so that no older one is written behind it.
        self.consumed
            .pending()
            .extend(offsets.iter().map(|(queue, offset)| (key(*queue), *offset)));
        self.consumed.more.notify_one();
        for (queue, offset) in offsets {
            self.written(&mut written, group, topic, *queue, *offset).await?;
        }
        Ok(())
    }

    /// Waits until an offset that was noted is in the log.
    async fn written(
        &self,
        written: &mut watch::Receiver<(u64, bool)>,
        group: &str,
        topic: &str,
        queue: u32,
        offset: u64,
    ) -> Result<(), Failure> {
        while self.shared()?.state().offset(group, topic, queue) != Some(offset) {
            if written.changed().await.is_err() || !written.borrow().1 {
                return Err(Failure::Moved);
            }
        }
        Ok(())
    }

    /// Writes what was noted, for as long as the broker lives.
    pub(super) async fn write_offsets(self: Arc<Self>) {
        loop {
            self.consumed.more.notified().await;
            while let Some(changes) = self.take_some() {
                let done = self.change(&Change::Offsets(to_changes(&changes))).await.is_ok();
                let leads = *self.part.borrow() == Part::Leads;
                let left = self.settle(changes, done || !leads);
                self.consumed.written.send_modify(|(count, ok)| (*count, *ok) = (*count + 1, done));
                let short = self.opened().is_ok_and(|opened| opened.log.uses_reserve());
                if left && (short || !done) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Drops what was dealt with, save what was noted anew since; true if something is left.
    fn settle(&self, changes: Vec<(Key, u64)>, settled: bool) -> bool {
        let mut pending = self.consumed.pending();
        for (key, offset) in changes {
            if settled && pending.get(&key) == Some(&offset) {
                pending.remove(&key);
            }
        }
        !pending.is_empty()
    }

    fn take_some(&self) -> Option<Vec<(Key, u64)>> {
        let pending = self.consumed.pending();
        let some: Vec<_> =
            pending.iter().take(CHANGES_MAX).map(|(key, offset)| (key.clone(), *offset)).collect();
        (!some.is_empty()).then_some(some)
    }

    /// How far a group has consumed a queue, what is on its way included.
    pub(super) fn offset_of(
        &self,
        group: &str,
        topic: &str,
        queue: u32,
    ) -> Result<Option<u64>, Failure> {
        let key = (group.to_owned(), topic.to_owned(), queue);
        if let Some(offset) = self.consumed.pending().get(&key) {
            return Ok(Some(*offset));
        }
        Ok(self.shared()?.state().offset(group, topic, queue))
    }

    pub(super) fn query_consumer_offset(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let (group, topic) = (fields.text("consumerGroup")?, fields.text("topic")?);
        let queue = queue(command)?;
        // Who asks goes on from what it is told.
        self.consumed.resets().remove(&(group.to_owned(), topic.to_owned(), queue));
        if let Some(offset) = self.offset_of(group, topic, queue)? {
            return Ok(Reply::done().with("offset", offset));
        }
        let not_found = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
        let not_found = Err(Failure::refused(response::QUERY_NOT_FOUND, not_found));
        let zero = fields.get("setZeroIfNotFound").is_none_or(|zero| zero != "false");
        let state = self.shared()?.state();
        // As RocketMQ does it: on a young queue a new group begins at its first message.
        let young = state
            .queue(topic, queue)
            .is_none_or(|queue| queue.min() == 0 && queue.max() <= YOUNG_MAX);
        if young && zero { Ok(Reply::done().with("offset", 0)) } else { not_found }
    }

    pub(super) async fn update_consumer_offset(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let (group, topic) = (fields.text("consumerGroup")?, fields.text("topic")?);
        check_group(group)?;
        let (queue, offset) = (queue(command)?, fields.number("commitOffset")?);
        let Ok(offset) = u64::try_from(offset) else {
            let remark = format!("commitOffset[{offset}] is illegal");
            return Err(Failure::refused(response::INVALID_PARAMETER, remark));
        };
        if self.topic_config(topic).is_none() && !is_made_on_demand(topic) {
            let remark = format!("Topic {topic} not exist!");
            return Err(Failure::refused(response::TOPIC_NOT_EXIST, remark));
        }
        let mut written = self.consumed.written.subscribe();
        if !self.note_offset(group, topic, queue, offset) {
            return Ok(Reply::done().with_remark("Offset has been previously reset"));
        }
        if !command.is_oneway() {
            self.written(&mut written, group, topic, queue, offset).await?;
        }
        Ok(Reply::done())
    }
}

fn to_changes(pending: &[(Key, u64)]) -> Vec<OffsetChange> {
    let change = |(key, offset): &(Key, u64)| OffsetChange {
        group: key.0.clone(),
        topic: key.1.clone(),
        queue: key.2,
        offset: *offset,
    };
    pending.iter().map(change).collect()
}

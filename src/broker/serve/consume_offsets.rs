//! How far groups have consumed. Clients say it every few seconds for each queue and do not wait for an answer:
//! what comes while one record is on its way goes along with the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::failure::Failure;
use super::log_broker::{LogBroker, Part};
use super::names::check_group;
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

type Key = (String, String, u32);

/// Offsets on their way into the log.
#[derive(Debug)]
pub(super) struct ConsumeOffsets {
    pending: Mutex<BTreeMap<Key, u64>>,
    more: Notify,
    /// Counts the times that everything was written; false if it failed.
    written: watch::Sender<(u64, bool)>,
}

impl Default for ConsumeOffsets {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            more: Notify::new(),
            written: watch::Sender::new((0, true)),
        }
    }
}

impl ConsumeOffsets {
    fn pending(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn queue(command: &Command) -> Result<u32, Failure> {
    let queue = command.head.fields.int("queueId")?;
    let illegal = || format!("queueId[{queue}] is illegal");
    u32::try_from(queue).map_err(|_| Failure::refused(response::INVALID_PARAMETER, illegal()))
}

impl LogBroker {
    /// Takes note of an offset, to be written soon.
    pub(super) fn note_offset(&self, group: &str, topic: &str, queue: u32, offset: u64) {
        let Ok(shared) = self.shared() else { return };
        let held = shared.state().offset(group, topic, queue);
        let key = (group.to_owned(), topic.to_owned(), queue);
        let mut pending = self.consumed.pending();
        let full = pending.len() >= PENDING_MAX && !pending.contains_key(&key);
        if full || (held == Some(offset) && !pending.contains_key(&key)) {
            return;
        }
        pending.insert(key, offset);
        self.consumed.more.notify_one();
    }

    /// Writes what was noted, for as long as the broker lives.
    pub(super) async fn write_offsets(self: Arc<Self>) {
        loop {
            self.consumed.more.notified().await;
            while let Some(changes) = self.take_some() {
                let done = self.change(&Change::Offsets(to_changes(&changes))).await.is_ok();
                let leads = *self.part.borrow() == Part::Leads;
                let left = self.settle(changes, done || !leads);
                if !done || !left {
                    self.consumed
                        .written
                        .send_modify(|(count, ok)| (*count, *ok) = (*count + 1, done));
                }
                if !done && left {
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
        let mut written = self.consumed.written.subscribe();
        self.note_offset(group, topic, queue, offset);
        if command.is_oneway() {
            return Ok(Reply::done());
        }
        while self.shared()?.state().offset(group, topic, queue) != Some(offset) {
            if written.changed().await.is_err() || !written.borrow().1 {
                return Err(Failure::Moved);
            }
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

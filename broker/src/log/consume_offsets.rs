//! How far groups have consumed. Clients say it every few seconds for each queue and do not wait for an answer:
//! offsets that come while one record is being written go into the next. No client sees an offset before it is applied.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics;
use super::pending_offsets::{Full, Key, PendingOffsets, Written};
use super::replica::{Part, Replica};
use super::topics::Topics;
use crate::limits::{OFFSETS_RECORD_BYTES_MAX, QUEUES_MAX, RESETS_MAX};
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::request::{Failure, check_group, is_there_for_group};
use crate::state::{Answer, Change, ReportedOffset, State};

/// Pause before a record that failed is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long offsets that consumers had before a reset are passed over: stock clients take ten seconds to change over.
const RESET_HOLDS: Duration = Duration::from_secs(30);

/// How long a client that asks for an offset waits for one that is being written: the last owner of a queue may have
/// just reported it.
const QUERY_WAIT: Duration = Duration::from_secs(1);

/// A reset of a queue's offset.
#[derive(Debug, Clone, Copy)]
struct Reset {
    offset: u64,
    /// What had made the topic.
    since: u64,
    at: Instant,
}

/// Offsets on their way into the log.
pub(crate) struct ConsumeOffsets {
    replica: Arc<Replica>,
    pending: Mutex<PendingOffsets>,
    /// Offsets that were reset: consumers that do not know yet still report where they were.
    resets: Mutex<BTreeMap<Key, Reset>>,
    more: Notify,
}

impl ConsumeOffsets {
    pub(super) fn new(replica: &Arc<Replica>) -> Self {
        Self {
            replica: Arc::clone(replica),
            pending: Mutex::default(),
            resets: Mutex::default(),
            more: Notify::new(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, PendingOffsets> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resets(&self) -> MutexGuard<'_, BTreeMap<Key, Reset>> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is on its way of other topics than there are now; `since` says what made one. Resets of such topics mean
    /// nothing any more.
    pub(crate) fn forget_other_topics(&self, since: impl Fn(&str) -> u64) {
        let topics = self.pending().topics();
        let since = topics.into_iter().map(|topic| (since(&topic), topic));
        let since = since.map(|(since, topic)| (topic, since)).collect();
        self.pending().forget_other_topics(&since);
    }

    /// True if a consumer reports where it was before a reset. Who reports the offset of the reset has changed over.
    fn is_outdated(&self, key: &Key, (offset, since): (u64, u64)) -> bool {
        let mut resets = self.resets();
        let Some(reset) = resets.get(key) else { return false };
        let holds = reset.since == since && reset.at.elapsed() < RESET_HOLDS;
        if holds && reset.offset != offset {
            return true;
        }
        resets.remove(key);
        false
    }

    /// Forgets what was reported and reset: another node leads.
    pub(crate) fn forget(&self) {
        self.resets().clear();
        self.pending().clear();
    }

    /// Notes resets, so that what was reported before them is passed over.
    fn note_resets(
        &self,
        since: u64,
        offsets: impl ExactSizeIterator<Item = (Key, u64)>,
    ) -> Result<(), Full> {
        let mut resets = self.resets();
        resets.retain(|_, reset| reset.at.elapsed() < RESET_HOLDS);
        if resets.len() + offsets.len() > RESETS_MAX {
            return Err(Full);
        }
        let at = Instant::now();
        if Mutant::ResetsUnguarded.is_active() {
            return Ok(());
        }
        resets.extend(offsets.map(|(key, offset)| (key, Reset { offset, since, at })));
        Ok(())
    }

    /// Takes note of an offset, to be written soon. With `waits`, says when it is.
    ///
    /// # Errors
    /// The group or the queue cannot be noted, or too many offsets wait.
    pub(crate) fn report(
        &self,
        topics: &Topics,
        key: Key,
        offset: u64,
        waits: bool,
    ) -> Result<Reported, Failure> {
        let (group, topic, queue) = (key.0.as_str(), key.1.as_str(), key.2);
        check_group(group)?;
        if queue >= QUEUES_MAX {
            let remark = format!("queueId[{queue}] is illegal");
            return Err(Failure::refused(response::INVALID_PARAMETER, remark));
        }
        if topics.topic_config(topic).is_none() && !is_there_for_group(topic, group) {
            let remark = format!("Topic {topic} not exist!");
            return Err(Failure::refused(response::TOPIC_NOT_EXIST, remark));
        }
        let (held, since) = {
            let state = self.replica.shared()?.state();
            (state.offset(group, topic, queue), state.topic_since(topic).unwrap_or(0))
        };
        if self.is_outdated(&key, (offset, since)) {
            return Ok(Reported::Outdated);
        }
        let mut pending = self.pending();
        pending.note(key.clone(), (offset, since), held)?;
        self.more.notify_one();
        Ok(Reported::Noted(if waits { pending.wait(&key) } else { None }))
    }

    /// Takes note of an offset that a pull carries. One that cannot be noted does not matter to the pull.
    pub(crate) fn note_pulled(&self, topics: &Topics, key: Key, offset: u64) {
        if let Err(failure) = self.report(topics, key, offset, false) {
            tracing::debug!(log = self.replica.name, ?failure, "an offset of a pull is not noted");
            metrics::offsets_refused(&self.replica.name, 1);
        }
    }

    /// Sets offsets of a group in a topic and waits until they are applied. What its consumers report of before is passed
    /// over, until they have changed over.
    ///
    /// # Errors
    /// They were not written, or are not known to be.
    pub(crate) async fn reset(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(u32, u64)],
    ) -> Result<(), Failure> {
        let key = |queue: u32| (group.to_owned(), topic.to_owned(), queue);
        let since = self.replica.shared()?.state().topic_since(topic).unwrap_or(0);
        let resets = offsets.iter().map(|(queue, offset)| (key(*queue), *offset));
        self.note_resets(since, resets)?;
        let done = self.write_resets(group, (topic, since), offsets).await;
        if done.is_err() {
            // What was not reset must not keep what consumers report from being noted.
            let mut resets = self.resets();
            for (queue, _) in offsets {
                resets.remove(&key(*queue));
            }
        }
        done
    }

    /// Writes offsets over those that wait, and waits until they are applied.
    async fn write_resets(
        &self,
        group: &str,
        (topic, since): (&str, u64),
        offsets: &[(u32, u64)],
    ) -> Result<(), Failure> {
        let key = |queue: u32| (group.to_owned(), topic.to_owned(), queue);
        let mut all = Vec::new();
        {
            let shared = self.replica.shared()?;
            let mut pending = self.pending();
            for (queue, offset) in offsets {
                let held = shared.state().offset(group, topic, *queue);
                // It replaces what waits, so that no older one is written behind it.
                pending.note(key(*queue), (*offset, since), held)?;
                all.extend(pending.wait(&key(*queue)));
            }
        }
        self.more.notify_one();
        for written in all {
            wait_for(Some(written)).await?;
        }
        Ok(())
    }

    /// Writes what was noted, for as long as the broker lives.
    pub(crate) async fn write(&self) {
        let mut bytes_max = OFFSETS_RECORD_BYTES_MAX;
        loop {
            self.more.notified().await;
            loop {
                let changes = self.pending().take(bytes_max);
                if changes.is_empty() {
                    break;
                }
                let written = self.write_record(&changes).await;
                // A log that takes only small records gets small ones.
                if written.as_ref().is_err_and(is_too_large) {
                    bytes_max = (bytes_max / 2).max(1);
                }
                // While the disk is short of space, fewer and larger records.
                let short = self.replica.opened().is_ok_and(|opened| opened.log.uses_reserve());
                if (short || written.is_err()) && !self.pending().is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Writes a record of offsets, and tells those who wait for one of them.
    async fn write_record(&self, changes: &[ReportedOffset]) -> Result<(), Failure> {
        let written = self.replica.change(&Change::ReportedOffsets(changes.to_vec())).await;
        let mut pending = self.pending();
        match written {
            Ok(answer) => {
                let Answer::OffsetsRefused(refused) = answer else {
                    pending.applied(changes, Vec::new());
                    return Ok(());
                };
                let (count, first) = (refused.len(), refused.first());
                tracing::warn!(log = self.replica.name, count, ?first, "offsets were refused");
                metrics::offsets_refused(&self.replica.name, count);
                pending.applied(changes, refused);
                Ok(())
            }
            Err(failure) => {
                let hopeless = is_too_large(&failure) && changes.len() == 1;
                if hopeless {
                    tracing::warn!(
                        log = self.replica.name,
                        ?failure,
                        "an offset cannot be written"
                    );
                    metrics::offsets_refused(&self.replica.name, 1);
                }
                let leads = *self.replica.part.borrow() == Part::Leads;
                pending.failed(&failure, leads && !hopeless);
                Err(failure)
            }
        }
    }

    /// How far a group has consumed a queue, and what `otherwise` makes of the state if that is not known. Waits for an
    /// offset that is being written, and never returns one before it is applied.
    ///
    /// # Errors
    /// Another node leads; or those of `otherwise`.
    pub(crate) async fn of(
        &self,
        key: &Key,
        otherwise: impl FnOnce(&State) -> Result<u64, Failure>,
    ) -> Result<u64, Failure> {
        // Who asks goes on from what it is told.
        self.resets().remove(key);
        let on_its_way = self.pending().wait(key);
        if let Some(written) = on_its_way.filter(|_| !Mutant::OffsetQueryDoesNotWait.is_active()) {
            // If it is not written, what was there before is the answer.
            let _ = tokio::time::timeout(QUERY_WAIT, written).await;
            if *self.replica.part.borrow() != Part::Leads {
                return Err(Failure::Moved);
            }
        }
        let state = self.replica.shared()?.state();
        if !self.replica.has_led_state() {
            // One that is not whole: a group that it does not know would begin at the first message, or the last.
            return Err(Failure::Moved);
        }
        match state.offset(&key.0, &key.1, key.2) {
            Some(offset) => Ok(offset),
            None => otherwise(&state),
        }
    }
}

impl From<Full> for Failure {
    fn from(_: Full) -> Self {
        Self::refused(response::SERVICE_NOT_AVAILABLE, "too many offsets wait to be written")
    }
}

/// What became of an offset that was reported.
pub(crate) enum Reported {
    /// It is on its way, or was there already.
    Noted(Option<Written>),
    /// It was reset since.
    Outdated,
}

/// Waits until an offset is applied, if it is on its way.
pub(crate) async fn wait_for(written: Option<Written>) -> Result<(), Failure> {
    match written {
        Some(written) => written.await.unwrap_or(Err(Failure::Moved)),
        None => Ok(()),
    }
}

/// True if the log takes no record of that size.
fn is_too_large(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused { code: response::MESSAGE_ILLEGAL, .. })
}

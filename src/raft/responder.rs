//! Carries the outcome of an append from Raft to whoever waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use tokio::sync::oneshot;

use super::metrics::{GroupMetrics, Started};
use super::types::{RaftLogId, Types, entry_id};
use crate::error::{AppendError, StorageError};
use crate::log::Log;
use crate::mutant::Mutant;
use crate::record::Appended;

/// Result of an append.
pub(crate) type AppendResult = Result<Appended, AppendError>;

/// Takes results of many appends, told apart by tokens. Saves a channel and a wake-up per append.
pub(crate) trait AckSink: Send + Sync + 'static {
    /// Called once per append, from any thread, in commit order. Must not block.
    fn acked(&self, token: u64, result: AppendResult);
}

/// Who waits.
pub(crate) enum AckTarget {
    /// For the commit.
    Commit(oneshot::Sender<AppendResult>),
    /// For the commit.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only servers use tokens"))]
    Sink(Arc<dyn AckSink>, u64),
    /// For the state machine's answer.
    Applied(oneshot::Sender<Result<(Appended, Bytes), AppendError>>),
}

/// What a record counts for beside its payload while it is appended, alone or in a batch. It is what empty ones cost: the
/// proposal, who waits for it, and the entry, in each queue that holds them until it is applied. It also bounds the work
/// that is ahead of an append, since an empty record is as much work as a short one.
pub(crate) const APPEND_BYTES_MIN: u64 = 512;

/// What a batch of so many records counts for, with these payloads.
pub(crate) fn batch_cost(records: u64, payload_bytes: u64) -> u64 {
    let weightless = Mutant::BatchRecordsWeightless.is_active();
    let records = if weightless { 0 } else { records.saturating_mul(APPEND_BYTES_MIN) };
    records.saturating_add(payload_bytes)
}

/// Bytes of one log that wait until they are applied.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    bytes: AtomicU64,
    drained: tokio::sync::Notify,
}

impl Inflight {
    /// Whether `bytes` would be admitted now.
    #[cfg(feature = "server")]
    pub(crate) fn has_room(&self, bytes: u64, limit: u64) -> Result<(), AppendError> {
        fits(self.bytes(), bytes, limit)
    }

    /// Admits `bytes` unless that makes more than their share of `limit`.
    pub(crate) fn admit(
        self: &Arc<Self>,
        bytes: u64,
        limit: u64,
    ) -> Result<Admission, AppendError> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let admission = Admission { inflight: self.clone(), bytes };
        fits(before, bytes, limit).map(|()| admission)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until nothing waits.
    pub(crate) async fn drained(&self) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            // Registered before the look, or a change in between would be missed.
            drained.as_mut().enable();
            if self.bytes() == 0 {
                return;
            }
            drained.await;
        }
    }
}

/// Whether an append that counts for `bytes` may join the `inflight` ones. One that nothing is ahead of always may.
fn fits(inflight: u64, bytes: u64, limit: u64) -> Result<(), AppendError> {
    match inflight == 0 || inflight.saturating_add(bytes) <= share(bytes, limit) {
        true => Ok(()),
        false => Err(AppendError::Overloaded { inflight, limit }),
    }
}

/// How much of the limit an append may fill. Large ones leave an eighth to small ones: a few clients with batches would
/// otherwise have those refused whose appends are next to nothing.
fn share(bytes: u64, limit: u64) -> u64 {
    if bytes <= limit / 32 || Mutant::LargeAppendsFillAll.is_active() {
        return limit;
    }
    limit - limit / 8
}

/// A share of the in-flight bytes, given back on drop.
#[derive(Debug)]
pub(crate) struct Admission {
    inflight: Arc<Inflight>,
    bytes: u64,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.inflight.bytes.fetch_sub(self.bytes, Ordering::Relaxed) == self.bytes {
            self.inflight.drained.notify_waiters();
        }
    }
}

/// The duty to tell the outcome of one append. Told exactly once: dropping it tells `Interrupted`,
/// or the storage failure that stopped the log.
pub(crate) struct Ack {
    target: Option<AckTarget>,
    log: Log,
    metrics: Arc<GroupMetrics>,
    started: Started,
}

impl Ack {
    pub(crate) fn new(target: AckTarget, log: Log, metrics: Arc<GroupMetrics>) -> Self {
        Self { target: Some(target), log, metrics, started: Started::now() }
    }

    fn waits_for_apply(&self) -> bool {
        matches!(self.target, Some(AckTarget::Applied(_)))
    }

    fn tell(mut self, result: Result<(Appended, Bytes), AppendError>) {
        if let Some(target) = self.target.take() {
            match &result {
                Ok(_) => self.metrics.committed(self.started),
                Err(error) => self.metrics.failed(error),
            }
            tell(target, result);
        }
    }
}

fn tell(target: AckTarget, result: Result<(Appended, Bytes), AppendError>) {
    // A receiver that is gone has given up on the outcome.
    match target {
        AckTarget::Commit(sender) => drop(sender.send(result.map(|(appended, _)| appended))),
        AckTarget::Sink(sink, token) => sink.acked(token, result.map(|(appended, _)| appended)),
        AckTarget::Applied(sender) => drop(sender.send(result)),
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            let error = interrupted(self.log.failure());
            self.metrics.failed(&error);
            tell(target, Err(error));
        }
    }
}

pub(crate) fn interrupted(failure: Option<Arc<StorageError>>) -> AppendError {
    match failure {
        Some(failure) => AppendError::Storage(failure),
        None => AppendError::Interrupted { detail: "the log was shut down".to_owned() },
    }
}

/// What openraft calls: `on_commit` once the entry is committed, `on_complete` once it is applied
/// or has failed.
pub(crate) struct AppendResponder<T> {
    ack: Option<Ack>,
    complete: fn(T, Ack),
    /// Kept until the entry is applied: openraft holds this until then, whoever was told before.
    _admission: Admission,
}

impl AppendResponder<ClientWriteResult<Types>> {
    pub(crate) fn new(ack: Ack, admission: Admission) -> Self {
        Self { ack: Some(ack), complete, _admission: admission }
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for AppendResponder<T> {
    fn on_commit(&mut self, log_id: RaftLogId) {
        if let Some(ack) = self.ack.take_if(|ack| !ack.waits_for_apply()) {
            let id = entry_id(&log_id);
            ack.tell(Ok((Appended::new(id.index, id.term, 1), Bytes::new())));
        }
    }

    fn on_complete(mut self, result: T) {
        if let Some(ack) = self.ack.take() {
            (self.complete)(result, ack);
        }
    }
}

fn complete(result: ClientWriteResult<Types>, ack: Ack) {
    ack.tell(match result {
        Ok(written) => {
            let id = entry_id(&written.log_id);
            Ok((Appended::new(id.index, id.term, 1), written.data.0))
        }
        Err(error) => Err(append_error(error)),
    });
}

/// openraft tells apart what was refused and what was taken in and then lost sight of.
pub(crate) fn append_error(error: ClientWriteError<Types>) -> AppendError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => refused(&forward),
        ClientWriteError::LogEntryDiscarded(forward) => {
            AppendError::LeadershipLost { leader: leader_of(&forward) }
        }
        other => AppendError::Interrupted { detail: other.to_string() },
    }
}

pub(crate) fn refused(forward: &ForwardToLeader<Types>) -> AppendError {
    match forward.reason {
        ForwardReason::LeaseExpired => AppendError::NoQuorum,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            AppendError::NotLeader { leader: leader_of(forward) }
        }
    }
}

pub(crate) fn leader_of(forward: &ForwardToLeader<Types>) -> Option<crate::member::Member> {
    let id = forward.leader_id?;
    forward.leader_node.as_ref().map(|node| node.member(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 32 << 20;

    #[test]
    fn batches_that_fill_their_share_leave_room_for_small_appends() {
        let inflight = Arc::new(Inflight::default());
        let batch = batch_cost(4096, 0);
        let mut held = Vec::new();
        while let Ok(admission) = inflight.admit(batch, LIMIT) {
            held.push(admission);
        }
        assert_eq!(held.len(), 14, "seven eighths");
        for _ in 0..1000 {
            held.push(inflight.admit(APPEND_BYTES_MIN + 200, LIMIT).expect("it is small"));
        }
        held.clear();
        let alone = inflight.admit(2 * LIMIT, LIMIT);
        assert!(alone.is_ok(), "what nothing is ahead of is never too much");
    }
}

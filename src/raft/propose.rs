//! Proposing records to a group.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::FutureExt as _;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::group::Group;
use super::responder::{
    APPEND_BYTES_MIN, Ack, AckTarget, Admission, AppendResponder, AppendResult, append_error,
    batch_cost, interrupted,
};
use super::types::{Proposal, entry_id};
use crate::error::AppendError;
use crate::format::entry::{Batch, EntryId};
use crate::member::NodeId;
use crate::mutant::Mutant;
use crate::progress::Progress;
use crate::record::Appended;

/// One append, checked and ready to be proposed.
pub(crate) struct NewRecord {
    pub(crate) payload: Bytes,
    pub(crate) payload_crc: u32,
    pub(crate) sync: bool,
}

impl Group {
    /// Admits an append that counts for `bytes`, unless too much waits for its commit, or for this node's disk.
    fn admit(&self, bytes: u64) -> Result<Admission, AppendError> {
        if Mutant::AdmissionUnbounded.is_active() {
            return self.inflight.admit(bytes, u64::MAX);
        }
        self.disk_keeps_up()?;
        self.inflight.admit(bytes, self.inflight_max)
    }

    /// Followers can commit without this node's disk, so what waits for a commit does not bound what waits for it.
    fn disk_keeps_up(&self) -> Result<(), AppendError> {
        let (held, limit) = (self.log.tail_bytes(), self.tail_max);
        if held > limit {
            return Err(AppendError::Overloaded { inflight: held, limit });
        }
        Ok(())
    }

    /// Whether a batch would be admitted now, so that one that would not need not be decoded.
    #[cfg(feature = "server")]
    pub(crate) fn has_room(&self, records: u64, payload_bytes: u64) -> Result<(), AppendError> {
        self.disk_keeps_up()?;
        self.inflight.has_room(batch_cost(records, payload_bytes), self.inflight_max)
    }

    /// Proposes one record. The target is told the outcome exactly once, unless this fails.
    pub(crate) fn propose(&self, record: NewRecord, target: AckTarget) -> Result<(), AppendError> {
        self.propose_tracked(record, target, None)
    }

    /// `propose`, and tells `progress` how it goes on.
    pub(crate) fn propose_tracked(
        &self,
        record: NewRecord,
        target: AckTarget,
        progress: Option<Progress>,
    ) -> Result<(), AppendError> {
        self.takes_appends()?;
        let admission = self.admit(record.payload.len() as u64 + APPEND_BYTES_MIN)?;
        let ack = Ack::new(target, self.log.clone(), self.metrics.clone());
        let responder = AppendResponder::new(ack, admission);
        let proposal = Proposal {
            payload: record.payload,
            payload_crc: record.payload_crc,
            sync: record.sync,
            batch: Batch::SINGLE,
            progress,
        };
        // One poll hands it over: the core's queue has room for every append that admission lets in
        // (`raft_config`). If the core is gone the responder is dropped, which tells the target why.
        let proposing = std::pin::pin!(self.raft.client_write_ff(proposal, Some(responder)));
        let _ = tokio::task::unconstrained(proposing).now_or_never();
        Ok(())
    }

    /// Proposes a batch, at consecutive indexes, visible whole or not at all (I11).
    ///
    /// # Cancel safety
    /// Dropped, the outcome is unknown.
    pub(crate) async fn propose_batch(&self, records: Vec<NewRecord>) -> AppendResult {
        self.takes_appends()?;
        if records.is_empty() {
            let next = self.log.watermarks().committed;
            let term = self.raft.server_metrics().borrow_watched().vote.leader_id.term;
            return Ok(Appended::new(next, term, 0));
        }
        let bytes = records.iter().map(|record| record.payload.len() as u64).sum();
        let admission = self.admit(batch_cost(records.len() as u64, bytes))?;
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let proposals = records.into_iter().zip(0..).map(|(record, position)| Proposal {
            payload: record.payload,
            payload_crc: record.payload_crc,
            sync: record.sync,
            batch: Batch { position, count },
            progress: None,
        });
        let log = self.log.clone();
        let writing = self.raft.client_write_many(proposals).await;
        let mut written = writing.map_err(|_| interrupted(log.failure()))?;
        // In a separate task: the batch counts as in flight also when nobody waits for it any more.
        let outcome = tokio::spawn(async move {
            let _admission = admission;
            let interrupted = || interrupted(log.failure());
            let (mut first, mut last): (Option<EntryId>, Option<EntryId>) = (None, None);
            while let Some(result) = futures_util::StreamExt::next(&mut written).await {
                let response = result.map_err(|_| interrupted())?.map_err(append_error)?;
                last = Some(entry_id(&response.log_id));
                first = first.or(last);
            }
            match (first, last) {
                (Some(first), Some(last)) if last.index - first.index + 1 == u64::from(count) => {
                    Ok(Appended::new(first.index, first.term, count))
                }
                _ => Err(interrupted()),
            }
        });
        outcome.await.unwrap_or_else(|_| Err(interrupted(self.log.failure())))
    }

    fn takes_appends(&self) -> Result<(), AppendError> {
        if self.rewound_to().is_some() {
            // A moment later it is a follower of the leader that it was contradicted by.
            return Err(AppendError::NotLeader { leader: None });
        }
        if self.is_closed() || self.crash.reason().is_some() {
            return Err(AppendError::Closed);
        }
        match self.successor.load(Ordering::Acquire) {
            0 => Ok(()),
            successor => {
                let leader = self.replicas().into_iter().find(|member| member.id.node == successor);
                let leader = leader.map(|replica| replica.member);
                Err(AppendError::NotLeader { leader })
            }
        }
    }

    /// Sends appends to `successor` until the guard is dropped.
    pub(super) fn send_appends_to(&self, successor: NodeId) -> HandingOver<'_> {
        self.successor.store(successor, Ordering::Release);
        HandingOver(self)
    }
}

/// While it lives, appends are refused with a hint at the successor.
pub(super) struct HandingOver<'a>(&'a Group);

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.0.successor.store(0, Ordering::Release);
    }
}

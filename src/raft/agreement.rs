//! Compares a leader's log with what this node takes for committed, before openraft takes anything from that leader.
//!
//! openraft holds that a leader has whatever is committed here, and does not look: as Raft says, as long as no log loses
//! what it has acknowledged. After too many have, a leader can be elected that lacks some of it, and a log that went on
//! from there would silently be another one than the leader's.
//!
//! One look is enough for each leader. Logs that have one entry in common are the same up to it, so that a leader that holds
//! the last committed entry holds all of them, and what is committed under that leader is its own.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt as _;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::sync::{Mutex, MutexGuard};

use super::conflict::Conflict;
use super::group::Group;
use super::types::{RaftVote, Types, entry_id, stored_vote};
use crate::counted::Counted;
use crate::error::{ReadError, StorageError, with_sources};
use crate::format::entry::EntryId;
use crate::log::Log;
use crate::mutant::Mutant;
use crate::record::{Flush, LogId};

/// What is known of the leaders' logs.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// Term of a leader that holds all that was committed here when it began to lead; leaders' terms begin at 1.
    agreed: AtomicU64,
    /// Requests that wait for their comparison. Those that come later must not overtake them.
    waiting: AtomicUsize,
    begun: Mutex<Begun>,
    /// Records that a boundary has replaced, which the leaders' history may not have had: from the first on, up to here.
    replaced: std::sync::Mutex<Option<Range<u64>>>,
}

/// What was committed here when openraft began to follow the leader of a term. Only that leader's requests have moved it
/// since.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Begun {
    term: u64,
    committed: Option<EntryId>,
}

/// The ids of entries that a leader tells of: consecutive ones, and the last.
struct Told {
    first: u64,
    /// Terms from `first` on.
    terms: Vec<u64>,
}

/// What came of a comparison.
#[derive(Debug, PartialEq, Eq)]
enum Compared {
    /// The leader holds all that is committed.
    Agrees,
    /// It has not told enough yet.
    Unknown,
    /// It holds `leaders` where the log has `held`.
    Contradicts { held: EntryId, leaders: EntryId },
}

/// Why a request of a leader was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    #[error("{0}")]
    Raft(#[from] RaftError<Types>),
    #[error("{0}")]
    Stopped(#[from] Fatal<Types>),
    #[error("{}", with_sources(.0))]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Nonsense(String),
    /// The leader's history contradicts what is committed here.
    #[error("another history is committed here: {0}")]
    Conflict(Conflict),
}

impl Told {
    fn by(request: &AppendEntriesRequest<Types>) -> Self {
        let prev = request.prev_log_id.as_ref().map(entry_id);
        let entries = request.entries.iter().map(|entry| entry_id(&entry.log_id));
        let ids: Vec<EntryId> = prev.into_iter().chain(entries).collect();
        let first = ids.first().map_or(0, |id| id.index);
        Self { first, terms: ids.into_iter().map(|id| id.term).collect() }
    }

    fn only(id: EntryId) -> Self {
        Self { first: id.index, terms: vec![id.term] }
    }

    fn at(&self, index: u64) -> Option<EntryId> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.terms.get(at).map(|term| EntryId { term: *term, index })
    }

    fn last(&self) -> Option<EntryId> {
        self.at((self.first + self.terms.len() as u64).checked_sub(1)?)
    }

    /// Compares what was told with what the log holds up to `committed`. May block on the disk, for entries that are not in
    /// memory any more.
    fn compare(&self, log: &Log, committed: EntryId) -> Result<Compared, StorageError> {
        let Some(last) = self.last() else { return Ok(Compared::Unknown) };
        // All of what was told may lie above what is committed. Where that fits, the rest does, too.
        let index = committed.index.clamp(self.first, last.index.max(self.first));
        let (Some(leaders), Some(held)) = (self.at(index), log.id_at(index)?) else {
            return Ok(Compared::Unknown);
        };
        if held == leaders {
            let all = index >= committed.index;
            return Ok(if all { Compared::Agrees } else { Compared::Unknown });
        }
        if index > committed.index {
            return Ok(Compared::Unknown);
        }
        // What is stable tells damage from a loss of unflushed records.
        let stable = log.stable().checked_sub(1).filter(|stable| *stable < index);
        if let Some(leaders) = stable.and_then(|stable| self.at(stable))
            && let Some(held) = log.id_at(leaders.index)?
            && held != leaders
        {
            return Ok(Compared::Contradicts { held, leaders });
        }
        Ok(Compared::Contradicts { held, leaders })
    }
}

impl Group {
    /// Hands an append to openraft, unless its leader contradicts what is committed here. Requests reach openraft in the
    /// order in which they were polled first.
    pub(super) async fn take_append(
        &self,
        request: AppendEntriesRequest<Types>,
    ) -> Result<AppendEntriesResponse<Types>, NotTaken> {
        let term = stored_vote(&request.vote).term;
        let agreement = &self.agreement;
        let waits = agreement.waiting.load(Ordering::Acquire) > 0;
        if agreement.agreed.load(Ordering::Acquire) == term && !waits
            || Mutant::NothingCompared.is_active()
        {
            return Ok(self.raft.append_entries(request).await?);
        }
        let waits = Counted::new(&agreement.waiting);
        let begun = match self.begin_to_follow(&request.vote).await? {
            Ok(begun) => begun,
            Err(refused) => return Ok(refused),
        };
        self.check_history(*begun, term, || Told::by(&request))?;
        let mut answering = Box::pin(self.raft.append_entries(request));
        // Hands it over; then it is the next one's turn.
        let answer = (&mut answering).now_or_never();
        drop((begun, waits));
        match answer {
            Some(answer) => Ok(answer?),
            None => Ok(answering.await?),
        }
    }

    /// Fails if the leader of `vote`, which sends a boundary at `last`, contradicts what is committed here.
    pub(super) async fn check_boundary(
        &self,
        vote: &RaftVote,
        last: EntryId,
    ) -> Result<(), NotTaken> {
        if last.term > stored_vote(vote).term {
            let reason = format!("a boundary of a later term than its leader's: {last:?}");
            return Err(NotTaken::Nonsense(reason));
        }
        if let Ok(begun) = self.begin_to_follow(vote).await? {
            self.check_history(*begun, stored_vote(vote).term, || Told::only(last))?;
            self.note_replaced(*begun, last);
        }
        Ok(())
    }

    /// A boundary at `last` takes the place of what is shown here. Of what lies below it the leader cannot tell any more
    /// whether it has the same: it has in any case what a majority had flushed, and what is of the boundary's term.
    fn note_replaced(&self, begun: Begun, last: EntryId) {
        let Some(committed) = begun.committed else { return };
        let agrees = self.agreement.agreed.load(Ordering::Acquire) == begun.term;
        let stable = self.log.stable();
        let proven = agrees || committed.term == last.term || committed.index < stable;
        // Nobody shows what was not flushed where all flush first.
        if proven || committed.index >= last.index || self.log.flush() == Flush::Sync {
            return;
        }
        self.doubt(stable..committed.index + 1);
    }

    /// Notes that records may have been others than the cluster agrees on, and are gone here.
    pub(crate) fn doubt(&self, records: Range<u64>) {
        tracing::warn!(
            log = %self.name,
            ?records,
            "a checkpoint takes the place of records that the cluster may have lost"
        );
        let mut replaced = self.agreement.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let before = replaced.take().unwrap_or(records.clone());
        *replaced = Some(before.start.min(records.start)..before.end.max(records.end));
    }

    /// What became of those who have read all below `next`, which is not here any more.
    pub(crate) fn trimmed(&self, next: u64, begin: u64) -> ReadError {
        let replaced = self.agreement.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        match &*replaced {
            Some(records)
                if records.start < next
                    && next <= records.end
                    && !Mutant::ReplacedTakenForTrimmed.is_active() =>
            {
                ReadError::Rewound { to: records.start }
            }
            _ => ReadError::Trimmed { requested: next, begin },
        }
    }

    /// Has openraft follow the leader of `vote` before it gets anything else from it: what earlier leaders' requests, and the
    /// answers to this node as one, do to the committed position is done then. The inner error is openraft's answer
    /// to a leader that is too late.
    async fn begin_to_follow(
        &self,
        vote: &RaftVote,
    ) -> Result<Result<MutexGuard<'_, Begun>, AppendEntriesResponse<Types>>, NotTaken> {
        let term = stored_vote(vote).term;
        let mut begun = self.agreement.begun.lock().await;
        if begun.term >= term {
            return Ok(Ok(begun));
        }
        if Mutant::LaterLeaderNotAwaited.is_active() {
            *begun = Begun { term, committed: self.log.committed() };
            return Ok(Ok(begun));
        }
        let first = AppendEntriesRequest {
            vote: *vote,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        match self.raft.append_entries(first).await? {
            AppendEntriesResponse::Success => {}
            refused => return Ok(Err(refused)),
        }
        // The log's own position comes behind openraft's while a flush is under way.
        let committed = self.raft.with_raft_state(|state| state.local_committed().cloned()).await?;
        *begun = Begun { term, committed: committed.as_ref().map(entry_id) };
        Ok(Ok(begun))
    }

    /// Compares what the leader of `term` tells of with what was committed when it began to lead.
    fn check_history(
        &self,
        begun: Begun,
        term: u64,
        told: impl FnOnce() -> Told,
    ) -> Result<(), NotTaken> {
        let agreed = &self.agreement.agreed;
        if begun.term != term || agreed.load(Ordering::Acquire) == term {
            // openraft refuses the request of an earlier leader.
            return Ok(());
        }
        let compared = match begun.committed {
            Some(committed) => told().compare(&self.log, committed)?,
            None => Compared::Agrees,
        };
        match (compared, begun.committed) {
            (Compared::Contradicts { held, leaders }, Some(committed)) => {
                let stable = self.log.stable();
                Err(NotTaken::Conflict(Conflict { held, leaders, committed, stable }))
            }
            (Compared::Agrees, _) => {
                agreed.store(term, Ordering::Release);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// True if nothing but stopping the log is left: what a majority had flushed is contradicted. The system log has nothing
    /// else.
    pub(super) fn is_damaged_by(&self, conflict: &Conflict) -> bool {
        conflict.is_damage() || self.id == LogId::SYSTEM
    }

    /// Stops the log for good, and notes beside it why, durably.
    pub(super) async fn stop_contradicted(self: Arc<Self>, conflict: Conflict) {
        let error = StorageError::corrupt(self.log.dir(), 0, conflict.to_string());
        self.crash.stopped_for_good(with_sources(&error));
        // None: the node is stopping. The next leader contradicts it again.
        let _ = self.saver.run(move |log| log.note_damage(&error)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(first: u64, terms: &[u64]) -> Told {
        Told { first, terms: terms.to_vec() }
    }

    #[test]
    fn what_a_leader_tells_of_is_known_by_its_index() {
        let told = told(4, &[1, 1, 2]);
        assert_eq!(told.at(3), None);
        assert_eq!(told.at(6), Some(EntryId { term: 2, index: 6 }));
        assert_eq!(told.at(7), None);
        assert_eq!(told.last(), Some(EntryId { term: 2, index: 6 }));
        assert_eq!(self::told(0, &[]).last(), None, "a heartbeat tells of nothing");
    }
}

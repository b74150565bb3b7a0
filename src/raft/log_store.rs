//! openraft's log storage over [`Log`].
//!
//! The rules that openraft relies on and does not enforce are kept by `Log`: `save_vote` is a flush
//! barrier, completions come in order, truncation is durable before it returns, and `committed` is
//! clamped to the tail at open. On openraft's core task: no flush, and no write but of small asynchronous appends.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::Stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};

use super::metrics::{GroupMetrics, Started};
use super::types::{
    LogEntry, RaftLogId, RaftVote, Types, entry_from_raft, entry_id, entry_to_raft, raft_log_id,
    raft_vote, stored_vote,
};
use crate::error::with_sources;
use crate::format::entry::Entry;
use crate::log::Log;
use crate::mutant::Mutant;
use crate::progress::Progress;

/// Bytes of payload read at a time to feed a state machine.
const APPLY_READ_BYTES: usize = 1 << 20;

/// openraft's view of a log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Log,
    /// Byte cap of one replication request.
    request_bytes_max: usize,
    /// False if nothing looks at applied payloads, so reading them is saved.
    apply_payloads: bool,
    metrics: Arc<GroupMetrics>,
}

impl LogStore {
    pub(crate) fn new(
        log: Log,
        request_bytes_max: usize,
        apply_payloads: bool,
        metrics: Arc<GroupMetrics>,
    ) -> Self {
        Self { log, request_bytes_max, apply_payloads, metrics }
    }

    /// True if the log holds the entry, or would if it had not failed.
    fn should_hold(&self, index: u64) -> bool {
        self.log.last_id().is_some_and(|last| index <= last.index) || self.log.failure().is_some()
    }

    fn read(&self, from: u64, to: u64, bytes: usize, payloads: bool) -> io::Result<Vec<LogEntry>> {
        self.stored(from, to, bytes, payloads)?.into_iter().map(for_raft).collect()
    }

    /// As the log has them.
    fn stored(&self, from: u64, to: u64, bytes: usize, payloads: bool) -> io::Result<Vec<Entry>> {
        let entries = match self.log.read(from, to, bytes, payloads) {
            Err(_) if Mutant::ReadErrorGivesNothing.is_active() => return Ok(Vec::new()),
            // It ends this group: see `log::damage` for what a restart would come to.
            result => result.inspect_err(|error| self.log.note_damage(error)).map_err(to_io)?,
        };
        // I9: openraft gets what it asked for, in order and without a hole. A log may begin behind `from`.
        let first = entries.first().map_or(from, |entry| entry.id.index);
        assert!(
            first >= from
                && entries.iter().zip(first..).all(|(entry, index)| entry.id.index == index),
            "I9: read from {from} gave other indexes"
        );
        Ok(entries)
    }
}

fn for_raft(entry: Entry) -> io::Result<LogEntry> {
    entry_to_raft(entry).map_err(to_io)
}

/// Tells whoever watches an append where it is put.
fn take_progress(entry: &mut LogEntry) -> Option<Progress> {
    let id = entry_id(&entry.log_id());
    let EntryPayload::Normal(proposal) = &mut entry.payload else { return None };
    let progress = proposal.progress.take()?;
    progress.set_appended(id.index, id.term);
    Some(progress)
}

fn to_io(error: impl std::error::Error) -> io::Error {
    io::Error::other(with_sources(&error))
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for LogStore {
    /// Start-up reads, in small chunks: never below the boundary, and whole.
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        let (from, to) = bounds(&range);
        let from = from.max(self.log.purged().map_or(0, |id| id.index + 1));
        let mut entries = Vec::new();
        let mut next = from;
        while next < to {
            let chunk = self.read(next, to, APPLY_READ_BYTES, true)?;
            let Some(last) = chunk.last() else { break };
            next = last.log_id.index + 1;
            entries.extend(chunk);
        }
        Ok(entries)
    }

    /// Replication reads: capped in bytes, since openraft counts entries only.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let uncapped = Mutant::RequestUncapped.is_active();
        self.read(start, end, if uncapped { usize::MAX } else { self.request_bytes_max }, true)
    }

    /// Apply reads: payloads only if something looks at them.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let store = self.clone();
        let next_chunk = move |next: u64| {
            if next >= to {
                return None;
            }
            let read = store.stored(next, to, APPLY_READ_BYTES, store.apply_payloads);
            let (entries, error) = match read {
                Ok(entries)
                    if entries.is_empty()
                        && store.should_hold(next)
                        && !Mutant::ReadErrorGivesNothing.is_active() =>
                {
                    let missing = format!("entry {next} of the log cannot be read");
                    (entries, Some(io::Error::other(missing)))
                }
                Ok(entries) => (entries, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let after = entries.last().map_or(to, |entry| entry.id.index + 1);
            Some((entries, error, after))
        };
        let chunks =
            std::iter::successors(next_chunk(from), move |(_, _, after)| next_chunk(*after));
        // Made for openraft one by one: it looks at each once.
        let items = chunks.flat_map(|(entries, error, _)| {
            entries.into_iter().map(for_raft).chain(error.map(Err))
        });
        futures_util::stream::iter(items)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.log.vote().map(raft_vote))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(raft_log_id),
            last_log_id: self.log.last_id().map(raft_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.log.save_vote(stored_vote(vote)).await.map_err(to_io)
    }

    /// In memory; rides on the next flush. It also publishes the committed watermark, before openraft
    /// tells the callers, so that who was told can read.
    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(id) = committed {
            if Mutant::CommittedShownLate.is_active() {
                let (log, id) = (self.log.clone(), entry_id(&id));
                tokio::spawn(async move {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    // What cannot be shown now is shown with the next one.
                    let _ = log.set_committed(id);
                });
                return Ok(());
            }
            self.log.set_committed(entry_id(&id)).map_err(to_io)?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.log.committed().map(raft_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut watched = Vec::new();
        let entries = entries.into_iter().map(|mut entry| {
            watched.extend(take_progress(&mut entry));
            entry_from_raft(entry)
        });
        let entries = entries.collect();
        let (metrics, started) = (self.metrics.clone(), Started::now());
        let done = move |done: Result<(), _>| {
            metrics.appended(started);
            if done.is_ok() {
                watched.iter().for_each(Progress::set_flushed);
            }
            callback.io_completed(done.map_err(to_io));
        };
        self.log.append(entries, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        self.log.truncate_after(last.as_ref().map(entry_id)).await.map_err(to_io)
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        self.log.purge(entry_id(&upto)).await.map_err(to_io)
    }
}

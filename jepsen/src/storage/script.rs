//! Steps of a scenario, and what they are made of.

use std::ops::Range;
use std::time::Duration;

use quorumlog::simulation::{
    StoredChange, StoredEntry, StoredId, StoredKind, StoredLogOptions, StoredVote,
};
use quorumlog::{Flush, LogId};

/// One step. Logs are named by their numbers.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Makes a log and lists it.
    Make(u64),
    /// Submits a change and waits for it.
    Apply(u64, StoredChange),
    /// Submits a change; the writer does not run yet.
    Submit(u64, StoredChange),
    /// Lets the writers of all logs run.
    Settle,
    /// Tells a log what is committed.
    Commit(u64, StoredId),
    /// Saves a checkpoint with so many bytes.
    Checkpoint(u64, StoredId, usize),
    /// The same, as a leader sends it: so many bytes at a time.
    Received(u64, StoredId, usize, usize),
    /// Lets time pass, for markers and background flushes.
    Idle(Duration),
    /// Closes all and opens it again.
    Restart,
    /// Forgets a log and removes it.
    Destroy(u64),
    /// Notes the cluster.
    Cluster(u128),
}

/// A scenario.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) flush: Flush,
    pub(crate) segment_size: u64,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// How its logs behave.
    pub(crate) fn options(&self, log: u64) -> StoredLogOptions {
        StoredLogOptions {
            log: LogId(log),
            flush: self.flush,
            flush_interval: Duration::from_millis(50),
            segment_size: self.segment_size,
            tail_cache_max: 2000,
        }
    }
}

pub(crate) fn id(term: u64, index: u64) -> StoredId {
    StoredId { term, index }
}

/// A record whose payload tells its id.
pub(crate) fn record(term: u64, index: u64, len: usize) -> StoredEntry {
    let payload: Vec<u8> = format!("{term}.{index};").bytes().cycle().take(len).collect();
    StoredEntry::record(id(term, index), payload)
}

pub(crate) fn records(term: u64, indexes: Range<u64>, len: usize) -> Vec<StoredEntry> {
    indexes.map(|index| record(term, index, len)).collect()
}

/// Records that were appended in one call.
pub(crate) fn batch(term: u64, indexes: Range<u64>, len: usize) -> Vec<StoredEntry> {
    let count = u32::try_from(indexes.end - indexes.start).unwrap_or(u32::MAX);
    let place = |(position, entry): (u32, StoredEntry)| StoredEntry {
        batch_position: position,
        batch_count: count,
        ..entry
    };
    (0..).zip(records(term, indexes, len)).map(place).collect()
}

pub(crate) fn members(term: u64, index: u64) -> StoredEntry {
    let payload = format!("members as of {index}");
    StoredEntry::new(id(term, index), StoredKind::Membership, payload)
}

pub(crate) fn blank(term: u64, index: u64) -> StoredEntry {
    StoredEntry::new(id(term, index), StoredKind::Blank, "")
}

pub(crate) fn append(entries: Vec<StoredEntry>) -> StoredChange {
    StoredChange::Append(entries)
}

pub(crate) fn vote(term: u64, committed: bool) -> StoredChange {
    StoredChange::SaveVote(StoredVote { term, voted_for: 1, committed })
}

pub(crate) fn cut(term: u64, index: u64) -> StoredChange {
    StoredChange::TruncateAfter(Some(id(term, index)))
}

pub(crate) fn purge(term: u64, index: u64) -> StoredChange {
    StoredChange::Purge(id(term, index))
}

pub(crate) fn install(term: u64, index: u64) -> StoredChange {
    let StoredEntry { id: members_id, payload, .. } = members(term, index.saturating_sub(1));
    let members = quorumlog::simulation::StoredMembers { id: members_id, payload };
    StoredChange::Install(id(term, index), Some(members))
}

/// Long enough for a marker and a background flush.
pub(crate) const LONG: Duration = Duration::from_millis(60);

pub(crate) fn idle() -> Step {
    Step::Idle(LONG)
}

/// The state that a checkpoint holds.
pub(crate) fn state(id: StoredId, len: usize) -> Vec<u8> {
    format!("the state as of {}.{};", id.term, id.index).bytes().cycle().take(len).collect()
}

//! One log on a disk, without Raft and without a node: for tests of what is stored.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::error::StorageError;
use crate::format::entry::{Batch, Entry, EntryId, EntryKind};
use crate::log::{Done, DrivenLog, LogOptions, StoredMembership, Vote};
use crate::member::{NodeId, ReplicaId};
use crate::record::{Flush, Index, LogId, Term};
use crate::seam::{Clock, Disk};
use crate::watermarks::Watermarks;

/// Term and index of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StoredId {
    /// Term of the leader that appended it.
    pub term: Term,
    /// Its index.
    pub index: Index,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredKind {
    /// A record.
    Record,
    /// A new leader's first entry.
    Blank,
    /// A membership.
    Membership,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its term and index.
    pub id: StoredId,
    /// What it is.
    pub kind: StoredKind,
    /// Flush before acknowledging, even with [`Flush::Async`].
    pub sync: bool,
    /// Position in its batch, from 0.
    pub batch_position: u32,
    /// Records in its batch.
    pub batch_count: u32,
    /// Its bytes.
    pub payload: Bytes,
}

impl StoredEntry {
    /// A record that was appended alone.
    pub fn record(id: StoredId, payload: impl Into<Bytes>) -> Self {
        Self::new(id, StoredKind::Record, payload)
    }

    /// An entry of any kind that was appended alone.
    pub fn new(id: StoredId, kind: StoredKind, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self { id, kind, sync: false, batch_position: 0, batch_count: 1, payload }
    }
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredVote {
    /// Term of the election.
    pub term: Term,
    /// For whom.
    pub voted_for: NodeId,
    /// A majority voted the same.
    pub committed: bool,
}

/// The membership as of an index, as bytes that the storage does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMembers {
    /// Id of the entry that holds it.
    pub id: StoredId,
    /// Its bytes.
    pub payload: Bytes,
}

/// How one log behaves.
#[derive(Debug, Clone)]
pub struct StoredLogOptions {
    /// Its number.
    pub log: LogId,
    /// When an append is acknowledged.
    pub flush: Flush,
    /// How long what was written waits for a flush with [`Flush::Async`].
    pub flush_interval: Duration,
    /// When a segment is full.
    pub segment_size: u64,
    /// Bytes of entries that are kept in memory once they are stored.
    pub tail_cache_max: u64,
}

/// What the writer is asked to do. Preconditions are those of Raft, and are asserted: entries follow
/// each other, votes rise, what is committed is not truncated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredChange {
    /// Put consecutive entries at the tail.
    Append(Vec<StoredEntry>),
    /// Save a vote. Everything before it is durable then, too.
    SaveVote(StoredVote),
    /// Drop every entry behind this one.
    TruncateAfter(Option<StoredId>),
    /// Move the boundary.
    Purge(StoredId),
    /// Take a boundary, and the membership as of it, from a leader.
    Install(StoredId, Option<StoredMembers>),
    /// Make all durable, and let go of the files.
    Close,
    /// Close, and remove the directory.
    Destroy,
}

/// A change that was submitted.
pub struct Submitted {
    waiting: Option<Pin<Box<dyn Future<Output = Done> + Send>>>,
}

impl std::fmt::Debug for Submitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = self.waiting.is_none();
        f.debug_struct("Submitted").field("done", &done).finish()
    }
}

impl Submitted {
    /// The result, once, when there is one. There is none before [`StoredLog::settle`], nor while the disk
    /// is full.
    pub fn result(&mut self) -> Option<Done> {
        let waiting = self.waiting.as_mut()?;
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => {
                self.waiting = None;
                Some(result)
            }
            Poll::Pending => None,
        }
    }
}

/// One log on a disk. Nothing happens by itself: [`settle`](Self::settle) runs its writer, and
/// [`pass`](Self::pass) its clock.
pub struct StoredLog {
    driven: DrivenLog,
}

impl std::fmt::Debug for StoredLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredLog").field("last", &self.last_id()).finish_non_exhaustive()
    }
}

impl StoredLog {
    /// Opens the log in `dir`, or makes it; recovers as a node does at its start.
    ///
    /// # Errors
    /// What is damaged, or what the disk says.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: &StoredLogOptions,
    ) -> Result<Self, StorageError> {
        let options = LogOptions {
            log_id: options.log,
            flush: options.flush,
            flush_interval: options.flush_interval,
            segment_size: options.segment_size,
            tail_cache_max: options.tail_cache_max,
            at_stable: false,
            disk_reserve: 0,
            clock,
            observer: None,
        };
        Ok(Self { driven: DrivenLog::open(disk, dir, options)? })
    }

    /// Submits a change: memory has it at once, the disk when the writer has run.
    pub fn submit(&mut self, change: StoredChange) -> Submitted {
        let log = self.driven.log.clone();
        let mut waiting: Pin<Box<dyn Future<Output = Done> + Send>> = match change {
            StoredChange::Append(entries) => {
                let done = self.driven.submit(entries.into_iter().map(Entry::from).collect());
                Box::pin(async move {
                    done.await.unwrap_or_else(|_| {
                        let lost = std::io::Error::other("the completion was dropped");
                        Err(Arc::new(StorageError::io("append to", "the log", lost)))
                    })
                })
            }
            StoredChange::SaveVote(vote) => Box::pin(async move {
                let StoredVote { term, voted_for, committed } = vote;
                let voted_for = ReplicaId { node: voted_for, incarnation: 0 };
                log.save_vote(Vote { term, voted_for, committed }).await
            }),
            StoredChange::TruncateAfter(last) => {
                Box::pin(async move { log.truncate_after(last.map(EntryId::from)).await })
            }
            StoredChange::Purge(upto) => Box::pin(async move { log.purge(upto.into()).await }),
            StoredChange::Install(upto, members) => Box::pin(async move {
                let members = members.map(|members| StoredMembership {
                    id: members.id.into(),
                    payload: members.payload,
                });
                log.install(upto.into(), members).await
            }),
            StoredChange::Close => Box::pin(async move { log.close().await }),
            StoredChange::Destroy => Box::pin(async move { log.destroy().await }),
        };
        // A future submits when it is first polled.
        let first = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match first {
            Poll::Ready(result) => {
                Submitted { waiting: Some(Box::pin(std::future::ready(result))) }
            }
            Poll::Pending => Submitted { waiting: Some(waiting) },
        }
    }

    /// Submits a change and runs the writer. None if it waits for space.
    pub fn apply(&mut self, change: StoredChange) -> Option<Done> {
        let mut submitted = self.submit(change);
        self.settle();
        submitted.result()
    }

    /// Runs the writer: all that was submitted is done, or waits for space.
    pub fn settle(&mut self) {
        self.driven.settle();
    }

    /// Lets time pass, and runs the writer then.
    pub fn pass(&mut self, time: Duration) {
        self.driven.pass(time);
    }

    /// Moves `committed` up to this entry, in memory. What readers cannot be shown now they see with the next one.
    pub fn set_committed(&mut self, id: StoredId) {
        // The position moves in any case.
        let _ = self.driven.log.set_committed(id.into());
    }

    /// Last committed entry known.
    pub fn committed(&self) -> Option<StoredId> {
        self.driven.log.committed().map(StoredId::from)
    }

    /// The vote.
    pub fn vote(&self) -> Option<StoredVote> {
        let vote = self.driven.log.vote()?;
        let voted_for = vote.voted_for.node;
        Some(StoredVote { term: vote.term, voted_for, committed: vote.committed })
    }

    /// The last entry that is logically gone.
    pub fn boundary(&self) -> Option<StoredId> {
        self.driven.log.purged().map(StoredId::from)
    }

    /// The last entry, or the boundary.
    pub fn last_id(&self) -> Option<StoredId> {
        self.driven.log.last_id().map(StoredId::from)
    }

    /// The last membership at or below an index.
    pub fn members_at(&self, index: Index) -> Option<StoredMembers> {
        let stored = self.driven.log.membership_at(index)?;
        Some(StoredMembers { id: stored.id.into(), payload: stored.payload })
    }

    /// Where the log begins and ends, and how far readers may go.
    pub fn watermarks(&self) -> Watermarks {
        self.driven.log.watermarks()
    }

    /// Entries `from..to`, as many as fit `max_bytes`, at least one if there is one. It begins later if
    /// `from` is not held any more.
    ///
    /// # Errors
    /// What is damaged, or what the disk says.
    pub fn read(
        &self,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StorageError> {
        let entries = self.driven.log.read(from, to, max_bytes, true)?;
        Ok(entries.into_iter().map(StoredEntry::from).collect())
    }

    /// Writes the checkpoint of a state machine as of `id`; durable on return.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save_checkpoint(&mut self, id: StoredId, state: &[u8]) -> Result<(), StorageError> {
        self.driven.log.save_state(id.into(), state)
    }

    /// Takes a checkpoint in that another node sends, `piece` bytes at a time; durable on return.
    ///
    /// # Errors
    /// What the disk says.
    pub fn receive_checkpoint(
        &mut self,
        id: StoredId,
        state: &[u8],
        piece: usize,
    ) -> Result<(), StorageError> {
        let log = &self.driven.log;
        log.keep_checkpoint(&log.received(id.into(), state, piece)?)
    }

    /// The checkpoints held, oldest first.
    pub fn checkpoints(&self) -> Vec<StoredId> {
        self.driven.log.checkpoints().into_iter().map(StoredId::from).collect()
    }

    /// The state as of `id`, verified.
    ///
    /// # Errors
    /// What is damaged, or what the disk says.
    pub fn load_checkpoint(&self, id: StoredId) -> Result<Bytes, StorageError> {
        self.driven.log.load_state(id.into())
    }

    /// The failure that poisoned the log.
    pub fn failure(&self) -> Option<Arc<StorageError>> {
        self.driven.log.failure()
    }

    /// True while the log waits for space.
    pub fn is_stalled(&self) -> bool {
        self.driven.log.stalled_for_space()
    }
}

impl From<EntryId> for StoredId {
    fn from(EntryId { term, index }: EntryId) -> Self {
        Self { term, index }
    }
}

impl From<StoredId> for EntryId {
    fn from(StoredId { term, index }: StoredId) -> Self {
        Self { term, index }
    }
}

impl From<Entry> for StoredEntry {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id.into(),
            kind: match entry.kind {
                EntryKind::Record => StoredKind::Record,
                EntryKind::Blank => StoredKind::Blank,
                EntryKind::Membership => StoredKind::Membership,
            },
            sync: entry.sync,
            batch_position: entry.batch.position,
            batch_count: entry.batch.count,
            payload: entry.payload,
        }
    }
}

impl From<StoredEntry> for Entry {
    fn from(entry: StoredEntry) -> Self {
        let kind = match entry.kind {
            StoredKind::Record => EntryKind::Record,
            StoredKind::Blank => EntryKind::Blank,
            StoredKind::Membership => EntryKind::Membership,
        };
        let batch = Batch { position: entry.batch_position, count: entry.batch_count };
        Self::new(entry.id.into(), kind, entry.sync, batch, entry.payload)
    }
}

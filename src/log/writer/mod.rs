//! The writer of one log: a synchronous state machine over the disk.
//!
//! It takes whatever is queued, turns appends into groups, flushes, and calls completions in the
//! order of submission (I6). It owns no thread: a pool or a simulation calls [`LogWriter::run`].
//!
//! After a failed write or flush it writes nothing more (I10). Where the disk has no space left for
//! the next step, nothing has failed yet: the queue waits, and the step is tried again.

mod append;
mod control;
mod layout;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::StorageError;
use crate::format::entry::{Entry, EntryId};
use crate::format::group::GROUP_HEADER;
use crate::mutant::Mutant;
use crate::seam::Disk;
use crate::seam::disk::atomic_file::ReplaceError;
use crate::segment::active::{GroupBuffer, SegmentWriter};
use crate::segment::sealed::SealedSegment;

use crate::log::files::vote_file::VoteFile;
use crate::log::memory::job::{Completion, Control, Job};
use crate::log::memory::memberships::Memberships;
use crate::log::memory::shared::Shared;

/// A log that wrote nothing for so long gets a marker.
const IDLE: Duration = Duration::from_millis(20);
/// How long a full disk is left alone.
const STALL_RETRY: Duration = Duration::from_millis(200);

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// No space, and nothing was changed: the same may be tried again.
    Stall(StorageError),
    /// What the disk holds is not known.
    Fatal(StorageError),
}

impl Fault {
    /// An error before anything was changed.
    fn before(error: StorageError) -> Self {
        match error {
            StorageError::Full { .. } if !Mutant::FullDiskPoisons.is_active() => Self::Stall(error),
            other => Self::Fatal(other),
        }
    }
}

impl From<ReplaceError> for Fault {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Before(error) => Self::before(error),
            ReplaceError::Unknown(error) => Self::Fatal(error),
        }
    }
}

/// What a call of [`LogWriter::run`] leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ran {
    /// When to call again even if nothing is submitted.
    pub(super) next: Option<Instant>,
    /// The log was closed; the writer is to be dropped.
    pub(super) closed: bool,
}

/// What an opened log hands to its writer.
pub(super) struct Parts {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) next_segment_id: u64,
    pub(super) boundary: Option<EntryId>,
    pub(super) memberships: Memberships,
    pub(super) sealed: Vec<Arc<SealedSegment>>,
    pub(super) active: SegmentWriter,
    pub(super) vote: VoteFile,
    /// The committed entry found on disk.
    pub(super) committed: Option<EntryId>,
}

/// The writer of one log.
pub(super) struct LogWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    next_segment_id: u64,
    boundary: Option<EntryId>,
    memberships: Memberships,
    sealed: Vec<Arc<SealedSegment>>,
    active: SegmentWriter,
    vote: VoteFile,

    jobs: VecDeque<Job>,
    /// Appends taken from `jobs`, being written.
    run: AppendRun,
    /// Epoch of the last job that dropped entries.
    epoch: u64,
    buffer: GroupBuffer,
    evicted: Vec<Entry>,
    /// Entries and bytes written since the last flush.
    unflushed: (u64, u64),
    /// Bytes written since the disk was last told to begin with them.
    unhinted: usize,
    /// When the oldest unflushed entry was written.
    dirty_since: Option<Instant>,
    /// The committed entry that the newest group names.
    committed_written: Option<EntryId>,
    /// When a marker is due, if nothing is written before.
    marker_at: Option<Instant>,
    /// Dropped segments are to give their space back at once.
    needs_space: bool,
    failure: Option<Arc<StorageError>>,
}

/// Consecutive appends.
#[derive(Default)]
struct AppendRun {
    entries: Vec<Entry>,
    /// How many of them are stored.
    stored: usize,
    /// Completions, and how many entries must be stored before each is called.
    done: VecDeque<(usize, Completion)>,
}

impl LogWriter {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            disk: parts.disk,
            dir: parts.dir,
            next_segment_id: parts.next_segment_id,
            boundary: parts.boundary,
            memberships: parts.memberships,
            sealed: parts.sealed,
            active: parts.active,
            vote: parts.vote,
            jobs: VecDeque::new(),
            run: AppendRun::default(),
            epoch: 0,
            buffer: GroupBuffer::default(),
            evicted: Vec::new(),
            unflushed: (0, 0),
            unhinted: 0,
            dirty_since: None,
            committed_written: parts.committed,
            marker_at: None,
            needs_space: false,
            failure: None,
        }
    }

    /// Does what is in `inbox` and left from before, and what is due at `now`.
    pub(super) fn run(&mut self, shared: &Shared, inbox: &mut Vec<Job>, now: Instant) -> Ran {
        self.jobs.extend(inbox.drain(..));
        self.take_up_failure(shared);
        let mut closed = false;
        let outcome = match self.failure {
            Some(_) => Ok(()),
            None => self.attempt(shared, now, &mut closed),
        };
        let stalled = match outcome {
            Ok(()) => false,
            Err(Fault::Stall(error)) => {
                if shared.set_stalled(true) {
                    tracing::warn!(%error, "the log waits for space");
                }
                true
            }
            Err(Fault::Fatal(error)) => {
                self.poison(shared, error);
                false
            }
        };
        if !stalled && shared.set_stalled(false) {
            tracing::info!(dir = %self.dir.display(), "the log goes on");
        }
        if self.failure.is_some() {
            closed |= self.fail_rest(shared);
        }
        Ran { next: if closed { None } else { self.deadline(stalled, now, shared) }, closed }
    }

    fn attempt(&mut self, shared: &Shared, now: Instant, closed: &mut bool) -> Result<(), Fault> {
        loop {
            match self.work(shared, now, closed) {
                Ok(()) => return self.due(shared, now),
                // Dropping segments may free the space that is missing.
                Err(Fault::Stall(error)) if !self.purge_ahead(shared)? => {
                    return Err(Fault::Stall(error));
                }
                Err(Fault::Stall(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Flushes what is written and gives up what cannot be: the writer's thread ends.
    pub(super) fn finish(&mut self, shared: &Shared) {
        self.take_up_failure(shared);
        if self.failure.is_none()
            && self.active.is_dirty()
            && let Err(error) = self.flush(shared)
        {
            self.poison(shared, error);
        }
        self.failure.get_or_insert_with(|| Arc::new(shared.closed_error()));
        self.fail_rest(shared);
    }

    fn work(&mut self, shared: &Shared, now: Instant, closed: &mut bool) -> Result<(), Fault> {
        loop {
            while let Some(Job::Append { .. }) = self.jobs.front() {
                if let Some(Job::Append { mut entries, done }) = self.jobs.pop_front() {
                    self.run.entries.append(&mut entries);
                    self.run.done.push_back((self.run.entries.len(), done));
                }
            }
            self.write_appends(shared, now)?;
            let Some(Job::Control { control, done }) = self.jobs.pop_front() else { return Ok(()) };
            match self.control(shared, &control) {
                Ok(ended) => {
                    *closed = ended;
                    done(Ok(()));
                }
                Err(fault) => {
                    self.jobs.push_front(Job::Control { control, done });
                    return Err(fault);
                }
            }
            if *closed {
                self.failure = Some(Arc::new(shared.closed_error()));
                return Ok(());
            }
        }
    }

    /// The background flush and the idle marker.
    fn due(&mut self, shared: &Shared, now: Instant) -> Result<(), Fault> {
        if self.failure.is_some() {
            return Ok(());
        }
        let interval = shared.options().flush_interval;
        if self.dirty_since.is_some_and(|since| now >= since + interval) {
            self.flush(shared).map_err(Fault::Fatal)?;
            self.marker_at = Some(now + IDLE);
        }
        if self.marker_at.is_some_and(|at| now >= at) && self.dirty_since.is_none() {
            self.marker_at = None;
            self.mark(shared)?;
        }
        Ok(())
    }

    fn deadline(&self, stalled: bool, now: Instant, shared: &Shared) -> Option<Instant> {
        if self.failure.is_some() {
            return None;
        }
        let interval = shared.options().flush_interval;
        let retry = stalled.then(|| now + STALL_RETRY);
        let flush = self.dirty_since.map(|since| since + interval);
        let marker = self.marker_at.filter(|_| flush.is_none());
        // A stalled log waits out its time even if a marker is due.
        retry.or_else(|| flush.into_iter().chain(marker).min())
    }

    /// Arms the idle marker of a log that was just opened.
    pub(super) fn mark_when_idle(&mut self, now: Instant) {
        self.marker_at = (!self.active.is_marked()).then(|| now + IDLE);
    }

    /// Writes a witness of the last flush, unless the last group is one.
    fn mark(&mut self, shared: &Shared) -> Result<(), Fault> {
        if self.active.is_marked() { Ok(()) } else { self.write_marker(shared) }
    }

    fn write_marker(&mut self, shared: &Shared) -> Result<(), Fault> {
        // Without space the group goes without a witness until the next one.
        if self.reserve(shared, GROUP_HEADER as u64).is_ok() {
            let committed = self.committed(shared);
            self.active.write_marker(end_of(committed)).map_err(Fault::Fatal)?;
            self.committed_written = committed;
        }
        Ok(())
    }

    /// The last committed entry. It may lie ahead of those that are stored.
    fn committed(&self, shared: &Shared) -> Option<EntryId> {
        shared.committed_as_of(self.epoch).unwrap_or(self.committed_written)
    }

    /// The last of the stored entries that is committed.
    fn committed_stored(&self, shared: &Shared) -> Option<EntryId> {
        let sealed = self.sealed.last().map(|sealed| sealed.meta().last);
        let last = self.active.last().or(sealed).max(self.boundary)?;
        let committed = self.committed(shared)?;
        Some(if committed.index > last.index { last } else { committed })
    }

    /// One past the last of the stored entries that a majority has flushed, as far as this node knows.
    fn stable_stored(&self, shared: &Shared) -> u64 {
        shared.state().stable().min(self.end())
    }

    /// Makes all groups durable.
    fn flush(&mut self, shared: &Shared) -> Result<(), StorageError> {
        let begun = Instant::now();
        self.active.flush()?;
        shared.set_flushed(self.epoch, self.end());
        let (entries, bytes) = std::mem::take(&mut self.unflushed);
        self.dirty_since = None;
        shared.flushed(begun.elapsed(), entries, bytes);
        Ok(())
    }

    /// I10: remembers the failure. The jobs at hand get it as it is, later ones as `Poisoned`.
    pub(super) fn poison(&mut self, shared: &Shared, error: StorageError) {
        tracing::error!(error = %crate::error::with_sources(&error), "the log is poisoned");
        let error = Arc::new(error);
        // Before anybody is told: what was acknowledged and not flushed may be gone, and nothing else will show it.
        shared.note_failed();
        shared.set_failure(&error);
        if !Mutant::WrittenAfterFailure.is_active() {
            self.failure = Some(Arc::new(error.poisoned_by()));
        }
        self.run.fail(&error);
        if let Some(job) = self.jobs.pop_front() {
            job.fail(&error);
        }
    }

    /// I10: a reader may have found that pages are gone, and a flush of what is left would vouch for them.
    fn take_up_failure(&mut self, shared: &Shared) {
        if self.failure.is_none()
            && let Some(error) = shared.failure()
            && !Mutant::WrittenAfterFailure.is_active()
        {
            self.failure = Some(Arc::new(error.poisoned_by()));
        }
    }

    /// Gives up everything that waits. True if the log is to be closed.
    fn fail_rest(&mut self, shared: &Shared) -> bool {
        let Some(error) = self.failure.clone() else { return false };
        self.run.fail(&error);
        let mut closed = false;
        while let Some(job) = self.jobs.pop_front() {
            closed |= job.ends_log();
            match job {
                Job::Control { control: Control::Destroy, done } => {
                    done(self.remove(shared).map_err(Arc::new));
                }
                job => job.fail(&error),
            }
        }
        closed
    }
}

/// One past the index, as groups have it.
fn end_of(committed: Option<EntryId>) -> u64 {
    committed.map_or(0, |committed| committed.index + 1)
}

impl AppendRun {
    fn fail(&mut self, error: &Arc<StorageError>) {
        self.entries.clear();
        self.stored = 0;
        for (_, done) in self.done.drain(..) {
            done(Err(Arc::clone(error)));
        }
    }
}

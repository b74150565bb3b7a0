//! What the writer of a log and everyone else share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::StorageError;
use crate::format::entry::{Batch, Entry, EntryId};
use crate::record::Flush;
use crate::seam::Disk;
use crate::seam::disk::atomic_file::TMP_SUFFIX;
use crate::watermarks::Watermarks;

use super::counters::{LogCounters, LogCounts};
use super::stable_commits::{Commits, StableCommits};
use super::state::{SegmentSet, State};
use crate::log::files::checkpoint_file::{CheckpointFile, Draft};
use crate::log::files::checkpoints::{self, Checkpoints};
use crate::log::options::LogOptions;

/// See the module.
pub(in crate::log) struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    state: Mutex<State>,
    checkpoints: Mutex<Checkpoints>,
    /// Held while a checkpoint is written.
    checkpoint_io: Mutex<()>,
    /// Checkpoints that were begun: each has its own temporary name.
    drafts: AtomicU64,
    watermarks: watch::Sender<Watermarks>,
    /// Bytes in the tail.
    tail_bytes: AtomicU64,
    stalled: AtomicBool,
    has_failed: AtomicBool,
    counters: LogCounters,
    stable_commits: StableCommits,
}

impl Shared {
    pub(in crate::log) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        state: State,
        checkpoints: Checkpoints,
    ) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            options,
            watermarks: watch::Sender::new(state.watermarks()),
            state: Mutex::new(state),
            checkpoints: Mutex::new(checkpoints),
            checkpoint_io: Mutex::new(()),
            drafts: AtomicU64::new(0),
            tail_bytes: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            counters: LogCounters::default(),
            stable_commits: StableCommits::default(),
        }
    }

    pub(in crate::log) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(in crate::log) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(in crate::log) fn options(&self) -> &LogOptions {
        &self.options
    }

    /// The lock is held briefly: no I/O and no await under it.
    pub(in crate::log) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock is held briefly; see `save_checkpoint` for the I/O. Never together with the state.
    pub(in crate::log) fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the watermarks. Wakes watchers unless nothing but the end has moved up.
    pub(in crate::log) fn publish(&self, state: &State) {
        let new = state.watermarks();
        self.watermarks.send_if_modified(|marks| {
            let old = std::mem::replace(marks, new);
            old.begin != new.begin || old.committed != new.committed || new.end < old.end
        });
    }

    pub(in crate::log) fn watch(&self) -> watch::Receiver<Watermarks> {
        self.watermarks.subscribe()
    }

    /// Moves `committed` up, and what readers see with it.
    ///
    /// # Errors
    /// See [`show`](Self::show).
    pub(in crate::log) fn commit(&self, id: EntryId) -> Result<(), StorageError> {
        let mut state = self.state();
        state.commit(id);
        if self.stable_commits.are_of(id.term) {
            state.settle_committed(id);
        }
        self.show(state)
    }

    /// See [`Log::note_commits`](crate::log::Log::note_commits).
    pub(in crate::log) fn note_commits(&self, term: u64, commits: Commits) -> bool {
        self.stable_commits.note(term, commits)
    }

    /// Shows readers what is committed, batches whole (I11).
    ///
    /// # Errors
    /// The last entry is not in memory any more and cannot be read, so that readers do not see it yet.
    pub(in crate::log) fn show<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<(), StorageError> {
        let mut shown = Ok(());
        if let Some(end) = state.to_show() {
            let batch = match state.tail.get(end - 1) {
                Some(entry) => Ok(Some(entry.batch)),
                None => {
                    drop(state);
                    let batch = self.batch_at(end - 1);
                    state = self.state();
                    batch
                }
            };
            match batch {
                Ok(Some(batch)) => state.show(end, batch),
                Ok(None) => {}
                Err(error) => shown = Err(error),
            }
        }
        self.publish(&state);
        shown
    }

    /// Batch of an entry that is not in memory any more; none if the log does not hold it.
    fn batch_at(&self, index: u64) -> Result<Option<Batch>, StorageError> {
        let entries = self.read(index, index + 1, 0, false)?;
        Ok(entries.first().map(|entry| entry.batch))
    }

    /// The last committed entry, for the writer to store. The outer none while a change of memory that
    /// drops entries has not reached the writer, which is at `epoch`: the position may then be that of
    /// entries to come, and the writer still holds others at the same indexes.
    pub(in crate::log) fn committed_as_of(&self, epoch: u64) -> Option<Option<EntryId>> {
        let state = self.state();
        (state.epoch() == epoch).then_some(state.committed)
    }

    /// True if this changes it.
    pub(in crate::log) fn set_stalled(&self, stalled: bool) -> bool {
        self.stalled.swap(stalled, Ordering::Relaxed) != stalled
    }

    pub(in crate::log) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(in crate::log) fn set_stored(&self, epoch: u64, end: u64, evicted: &mut Vec<Entry>) {
        let mut state = self.state();
        state.set_stored(epoch, end);
        if self.options.flush == Flush::Sync {
            // It was flushed first.
            state.set_flushed(epoch, end);
        }
        // What is evicted is dropped outside of the lock.
        state.evict(self.options.tail_cache_max, evicted);
        self.note_tail(&state);
    }

    /// What `set_stored` does not say: nothing if all that is stored was flushed first.
    pub(in crate::log) fn set_flushed(&self, epoch: u64, end: u64) {
        if self.options.flush == Flush::Async {
            self.state().set_flushed(epoch, end);
        }
    }

    pub(in crate::log) fn note_tail(&self, state: &State) {
        self.tail_bytes.store(state.tail.bytes(), Ordering::Relaxed);
    }

    pub(in crate::log) fn tail_bytes(&self) -> u64 {
        self.tail_bytes.load(Ordering::Relaxed)
    }

    pub(in crate::log) fn set_segments(&self, epoch: u64, segments: SegmentSet) {
        self.state().set_segments(epoch, Arc::new(segments));
    }

    pub(in crate::log) fn set_failure(&self, error: &Arc<StorageError>) {
        self.state().failure.get_or_insert_with(|| Arc::clone(error));
        self.has_failed.store(true, Ordering::Release);
    }

    /// The first failure, whoever has found it.
    pub(in crate::log) fn failure(&self) -> Option<Arc<StorageError>> {
        // Asked at each run of the writer.
        if self.has_failed.load(Ordering::Acquire) { self.state().failure.clone() } else { None }
    }

    /// Closes the log: nothing is taken or read any more, and no file stays open. Waits for a checkpoint that is
    /// being written.
    pub(in crate::log) fn let_go(&self) {
        let _alone = self.checkpoint_io.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        state.closed = true;
        state.segments = Arc::new(SegmentSet { sealed: Vec::new(), active: None });
    }

    /// What users of a closed log get.
    pub(in crate::log) fn closed_error(&self) -> StorageError {
        StorageError::io("use", &self.dir, io::Error::other("the log is closed"))
    }

    pub(in crate::log) fn has_checkpoint(&self, id: EntryId) -> bool {
        self.checkpoints().contains(id)
    }

    /// The manifest names this boundary now, and needs no checkpoint below it any more.
    pub(in crate::log) fn boundary_stored(&self, boundary: EntryId) {
        self.checkpoints().set_boundary(Some(boundary));
        self.thin_checkpoints();
    }

    fn thin_checkpoints(&self) {
        // Ahead of the manifest while a purge waits for the writer.
        let next = self.state().boundary;
        let dropped = self.checkpoints().thin(next);
        checkpoints::remove(self.disk(), &self.dir, &dropped);
    }

    /// Removes checkpoints that are not of this log's history.
    pub(in crate::log) fn drop_checkpoints(&self, disowned: &[EntryId]) {
        if disowned.is_empty() {
            return;
        }
        tracing::warn!(checkpoints = ?disowned, "removing checkpoints of entries that the log does not hold, or may not keep");
        self.checkpoints().forget(disowned);
        checkpoints::remove(self.disk(), &self.dir, disowned);
    }

    /// Removes checkpoints at `end` or behind: the log was cut there.
    pub(in crate::log) fn cut_checkpoints(&self, end: u64) {
        let ids = self.checkpoints().ids();
        let behind: Vec<EntryId> = ids.into_iter().filter(|id| id.index >= end).collect();
        self.drop_checkpoints(&behind);
    }

    /// A checkpoint as of `id`, to be written. It is kept in memory up to `buffer_max`.
    pub(in crate::log) fn draft(&self, id: EntryId, buffer_max: usize) -> Draft {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{:020}.{number}{TMP_SUFFIX}", id.index));
        let limits = (buffer_max, self.options.disk_reserve);
        Draft::new(Arc::clone(&self.disk), path, (self.options.log_id.0, id), limits)
    }

    /// Makes durable what a checkpoint names, then itself. One at a time.
    pub(in crate::log) fn save_checkpoint(
        &self,
        mut draft: Draft,
        files: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StorageError> {
        let _alone = self.checkpoint_io.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().closed {
            return Err(self.closed_error());
        }
        files().map_err(|error| {
            StorageError::io("flush what the state machine has in", &self.dir, error)
        })?;
        self.keep(&draft.finish()?)
    }

    /// Takes a checkpoint in that was received; durable on return.
    pub(in crate::log) fn keep_checkpoint(
        &self,
        file: &CheckpointFile,
    ) -> Result<(), StorageError> {
        let _alone = self.checkpoint_io.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().closed {
            return Err(self.closed_error());
        }
        self.keep(file)
    }

    fn keep(&self, file: &CheckpointFile) -> Result<(), StorageError> {
        file.keep(&checkpoints::path_of(&self.dir, file.id().index))?;
        self.checkpoints().insert(file.id(), file.len());
        self.thin_checkpoints();
        Ok(())
    }

    pub(in crate::log) fn written(&self, entries: u64, bytes: u64) {
        self.counters.groups.add(1);
        self.counters.entries.add(entries);
        self.counters.bytes.add(bytes);
    }

    pub(in crate::log) fn flushed(&self, duration: Duration, entries: u64, bytes: u64) {
        self.counters.flushes.add(1);
        self.counters.flush_nanos.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        if let Some(observer) = &self.options.observer {
            observer.flushed(duration, entries, bytes);
        }
    }

    /// A write or a flush has failed.
    pub(in crate::log) fn note_failed(&self) {
        if let Some(observer) = &self.options.observer {
            observer.failed();
        }
    }

    pub(in crate::log) fn woken(&self) {
        self.counters.wakeups.add(1);
    }

    pub(in crate::log) fn counts(&self) -> LogCounts {
        self.counters.read()
    }
}

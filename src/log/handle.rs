//! The handle to a log.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::StorageError;
use crate::format::entry::{Entry, EntryId};
use crate::format::vote::Vote;
use crate::record::Flush;
use crate::seam::Disk;
use crate::state_machine::FlushFiles;
use crate::watermarks::Watermarks;

use super::drive::WriterPool;
use super::drive::core::{Core, Waiter};
use super::drive::queue::WriterQueue;
use super::files::checkpoint_file::{CheckpointFile, Draft};
use super::files::damage::DamageFound;
use super::files::{checkpoints, damage};
use super::memory::counters::LogCounts;
use super::memory::job::{Completion, Control};
use super::memory::memberships::StoredMembership;
use super::memory::stable_commits::Commits;
use super::{LogOptions, SegmentInfo, open};

/// A state of up to this many bytes stays in memory until it is saved: taking it does not wait for the disk.
const TAKEN_BUFFER_MAX: usize = 8 << 20;

/// Handle to one log on disk. Cheap to clone.
///
/// Cancel safety of all async calls: once polled they take effect, whether or not the future is
/// polled to its end.
#[derive(Clone)]
pub(crate) struct Log {
    core: Arc<Core>,
}

impl Log {
    /// Opens the log in `dir`, or makes it if `dir` does not exist. Recovers (docs/storage.md 4.7).
    ///
    /// # Errors
    /// Says which file is damaged, and where; nothing was changed then.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        writers: &WriterPool,
    ) -> Result<Self, StorageError> {
        Self::open_on(disk, dir, options, writers.assign())
    }

    /// The same, with a queue that the caller sees to.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        queue: Arc<WriterQueue>,
    ) -> Result<Self, StorageError> {
        let core = open::open(disk, dir, options, queue)?;
        let log = Self { core };
        // Arms the marker, if the last group needs one.
        log.wake();
        Ok(log)
    }

    /// Has the writer look after what is due.
    pub(super) fn wake(&self) {
        self.core.shared.state().scheduled = true;
        self.core.schedule();
    }

    /// Puts consecutive entries at the tail: readable on return, queued for the writer. `done` is called when they are
    /// flushed (or written, in async mode). In async mode a small append is written, and `done` called, before this
    /// returns, if nothing else waits for the writer; else it does no I/O, no encoding and no CRC.
    ///
    /// The first entry ever may have any index (a log may begin anywhere); after that I2 and I3 hold.
    pub(crate) fn append(&self, entries: Vec<Entry>, done: Completion) {
        self.core.append(entries, done);
    }

    /// Durable on return, and so is every append submitted before.
    pub(crate) async fn save_vote(&self, vote: Vote) -> Result<(), Arc<StorageError>> {
        self.done(self.core.save_vote(vote)).await
    }

    /// The last vote saved, or being saved.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.core.shared.state().vote
    }

    /// Calls `done` once all entries below `end` are durable, or on failure.
    pub(super) fn flush_below(&self, end: u64, done: Completion) {
        self.core.flush_below(end, done);
    }

    /// The vote together with the last entry: what a later leader does to the log comes behind the vote for it.
    pub(crate) fn vote_and_last(&self) -> (Option<Vote>, Option<EntryId>) {
        let state = self.core.shared.state();
        (state.vote, state.tail.last().max(state.boundary))
    }

    /// True if the log holds this very entry, or begins behind it.
    pub(crate) fn holds(&self, id: EntryId) -> bool {
        let purged = self.purged().is_some_and(|boundary| boundary.index >= id.index);
        // What cannot be read is not held.
        purged || self.core.shared.id_at(id.index).ok().flatten() == Some(id)
    }

    /// Drops every entry behind `last` (all entries if none), but none at or below the boundary.
    /// Durable on return.
    pub(crate) async fn truncate_after(
        &self,
        last: Option<EntryId>,
    ) -> Result<(), Arc<StorageError>> {
        let waiter = self.core.truncate_after(last)?;
        self.done(waiter).await
    }

    /// Moves the boundary up to `upto`, and removes segments that lie wholly at or below it. `upto`
    /// may lie beyond the tail: then the log is empty and begins behind it. Below the boundary: no
    /// effect. Durable on return.
    pub(crate) async fn purge(&self, upto: EntryId) -> Result<(), Arc<StorageError>> {
        match self.core.purge(upto) {
            Some(waiter) => self.done(waiter).await,
            None => Ok(()),
        }
    }

    /// Takes a boundary from a leader. If the log holds an entry with exactly this id, only the
    /// boundary's membership is noted; else every segment is dropped and the log begins behind
    /// `upto`, in one manifest change. `committed` moves up to `upto`. Durable on return.
    pub(crate) async fn install(
        &self,
        upto: EntryId,
        membership: Option<StoredMembership>,
    ) -> Result<(), Arc<StorageError>> {
        match self.core.install(upto, membership)? {
            Some(waiter) => self.done(waiter).await,
            None => Ok(()),
        }
    }

    /// Moves `committed` up to and including `id`, in memory; it rides on the next flush. Publishes
    /// the watermarks, held back at the start of a batch that is not whole yet (I11), and at the
    /// tail. `id` need not be in the log yet.
    ///
    /// # Errors
    /// Readers cannot be shown it: it is not in memory any more, and reading it failed. Who waits for the commit must
    /// not be told of it.
    pub(crate) fn set_committed(&self, id: EntryId) -> Result<(), StorageError> {
        self.core.shared.commit(id)
    }

    /// Last committed id, clamped to the tail at open.
    pub(crate) fn committed(&self) -> Option<EntryId> {
        self.core.shared.state().committed
    }

    /// One past the last index that a majority has flushed, as far as this node knows. Moves up only.
    pub(crate) fn stable(&self) -> u64 {
        self.core.shared.state().stable()
    }

    /// The leader of `term` vouches that this log is the same as its own below `end`, and that a majority has flushed what
    /// lies below `stable`. Gives how far this log has flushed of what is vouched for; nothing if it follows a later leader
    /// by now, which may have replaced it.
    pub(crate) fn vouched(&self, term: u64, end: u64, stable: u64) -> u64 {
        self.core.shared.state().vouched(term, end, stable)
    }

    /// Notes what is known of what the leader of `term` commits: if it is stable at once, `stable` moves with each commit. To
    /// be told before anything is committed that it is about. True if this is news.
    pub(crate) fn note_commits(&self, term: u64, commits: Commits) -> bool {
        self.core.shared.note_commits(term, commits)
    }

    /// On the leader of `term`: moves `stable` up to what `flushed` gives, which is told how far this log has flushed: but
    /// not past what is committed, and only to entries of that term. Gives where `stable` is then. `flushed` must not
    /// call the log.
    pub(crate) fn settle(&self, term: u64, flushed: impl FnOnce(u64) -> u64) -> u64 {
        self.core.shared.state().settle(term, flushed)
    }

    /// The last id purged.
    pub(crate) fn purged(&self) -> Option<EntryId> {
        self.core.shared.state().boundary
    }

    /// Id of the last entry, or the boundary if there is none behind it.
    pub(crate) fn last_id(&self) -> Option<EntryId> {
        let state = self.core.shared.state();
        state.tail.last().max(state.boundary)
    }

    /// Id of the entry at `index`, if held here or the boundary itself.
    pub(crate) fn id_at(&self, index: u64) -> Result<Option<EntryId>, StorageError> {
        self.core.shared.id_at(index)
    }

    /// Entries from `from` on, below `to`, as many as fit `max_bytes` with their 48-byte headers
    /// (but at least one if there is one). Stops early at the tail, and begins later if `from` is
    /// not held any more. Entries at or below the boundary that still lie in a segment are served too.
    /// With `payloads` false records come with an empty payload. May block on the disk.
    pub(crate) fn read(
        &self,
        from: u64,
        to: u64,
        max_bytes: usize,
        payloads: bool,
    ) -> Result<Vec<Entry>, StorageError> {
        self.core.shared.read(from, to, max_bytes, payloads)
    }

    /// Of entries read from here, those that readers may see: records, and of batches only whole
    /// ones (I11). `entries` lie below `committed`.
    pub(crate) fn visible(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, StorageError> {
        self.core.shared.visible(entries)
    }

    /// Last membership at or below `index`.
    pub(crate) fn membership_at(&self, index: u64) -> Option<StoredMembership> {
        self.core.shared.state().memberships.at(index).cloned()
    }

    /// Notes what an error says of damage beside the log, durably: it is not opened again then. Blocks on the disk.
    pub(crate) fn note_damage(&self, error: &StorageError) {
        if let Some(found) = DamageFound::of(error) {
            self.note_found(&found);
        }
    }

    /// The same, of damage that was found before.
    pub(crate) fn note_found(&self, found: &DamageFound) {
        damage::note(self.core.shared.disk(), self.core.shared.dir(), found);
    }

    /// Where the log begins and ends, and how far readers may go.
    pub(crate) fn watermarks(&self) -> Watermarks {
        self.core.shared.state().watermarks()
    }

    /// The watermarks as they move. Wakes when `begin` or `committed` move or entries are dropped;
    /// not when only `end` moves up.
    pub(crate) fn watch(&self) -> watch::Receiver<Watermarks> {
        self.core.shared.watch()
    }

    /// The segments in their order, the active one last.
    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let segments = Arc::clone(&self.core.shared.state().segments);
        let sealed = segments.sealed.iter().map(|sealed| {
            let meta = sealed.meta();
            SegmentInfo {
                base_index: meta.segment.base,
                last: Some(meta.last),
                bytes: meta.end + meta.footer_len,
                sealed: true,
                newest_ms: meta.newest_ms,
            }
        });
        let active = segments.active.as_ref().map(|active| {
            let facts = active.facts();
            SegmentInfo {
                base_index: active.meta().base,
                last: facts.last,
                bytes: facts.allocated,
                sealed: false,
                newest_ms: facts.newest_ms,
            }
        });
        sealed.chain(active).collect()
    }

    /// Base index of the active segment; 0 if there is none yet.
    pub(crate) fn active_base(&self) -> u64 {
        let state = self.core.shared.state();
        state.segments.active.as_ref().map_or(0, |active| active.meta().base)
    }

    /// Bytes that segments and checkpoints take, allocated space included.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let segments: u64 = self.segments().iter().map(|segment| segment.bytes).sum();
        segments + self.core.shared.checkpoints().bytes()
    }

    /// The failure that poisoned the log.
    pub(crate) fn failure(&self) -> Option<Arc<StorageError>> {
        self.core.shared.state().failure.clone()
    }

    /// Bytes of the entries in memory. More than `tail_cache_max` only while the disk is behind, since
    /// what is not stored has no other place.
    pub(crate) fn tail_bytes(&self) -> u64 {
        self.core.shared.tail_bytes()
    }

    /// True while the disk has no space for the next step; appends wait, and go on by themselves.
    pub(crate) fn stalled_for_space(&self) -> bool {
        self.core.shared.is_stalled()
    }

    /// What the writer has done since the log was opened.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "counts are for metrics"))]
    pub(crate) fn counts(&self) -> LogCounts {
        self.core.shared.counts()
    }

    /// A checkpoint of the state machine as of `id`, to be written and saved.
    pub(crate) fn take_checkpoint(&self, id: EntryId) -> Draft {
        self.core.shared.draft(id, TAKEN_BUFFER_MAX)
    }

    /// A checkpoint as of `id` that another node has taken, to be written as it comes.
    pub(crate) fn receive_checkpoint(&self, id: EntryId) -> Draft {
        self.core.shared.draft(id, 0)
    }

    /// Saves a checkpoint, and before it makes durable the files that it names; durable on return. Old ones are
    /// thinned. Blocks on the disk. A failure leaves the log as it was.
    pub(super) fn save_checkpoint(
        &self,
        draft: Draft,
        files: FlushFiles,
    ) -> Result<(), StorageError> {
        self.core.shared.save_checkpoint(draft, files)
    }

    /// The same for one that was received and finished. May be done again if it fails.
    pub(crate) fn keep_checkpoint(&self, file: &CheckpointFile) -> Result<(), StorageError> {
        self.core.shared.keep_checkpoint(file)
    }

    /// Whether it acknowledges what is flushed, or what is written.
    pub(crate) fn flush(&self) -> Flush {
        self.core.shared.options().flush
    }

    /// Where it lies.
    pub(crate) fn dir(&self) -> &Path {
        self.core.shared.dir()
    }

    /// Ids of the checkpoints held, oldest first.
    pub(crate) fn checkpoints(&self) -> Vec<EntryId> {
        self.core.shared.checkpoints().ids()
    }

    /// The newest checkpoint that `fits`. It is kept until the boundary, which is to move there, has passed it.
    pub(crate) fn pin_checkpoint(&self, fits: impl Fn(EntryId) -> bool) -> Option<EntryId> {
        self.core.shared.checkpoints().pin(fits)
    }

    /// The checkpoint as of `id`. Its state is not verified. Blocks on the disk.
    pub(crate) fn open_checkpoint(&self, id: EntryId) -> Result<CheckpointFile, StorageError> {
        let shared = &self.core.shared;
        checkpoints::open(shared.disk(), shared.dir(), shared.options().log_id.0, id)
    }

    /// Waits until everything submitted is durable, writes the last marker, and lets go of the
    /// files. Later calls fail.
    pub(crate) async fn close(&self) -> Result<(), Arc<StorageError>> {
        self.done(self.core.submit_control(Control::Close)).await
    }

    /// Closes, then removes the log's directory.
    pub(crate) async fn destroy(&self) -> Result<(), Arc<StorageError>> {
        self.done(self.core.submit_control(Control::Destroy)).await
    }

    async fn done(&self, waiter: Waiter) -> Result<(), Arc<StorageError>> {
        match waiter.await {
            Ok(result) => result,
            Err(_) => Err(Arc::new(self.core.shared.closed_error())),
        }
    }
}

/// Checkpoints that are small, for tests.
#[cfg(any(test, feature = "simulation"))]
impl Log {
    /// `state` as of `id`, to be saved.
    pub(crate) fn drafted(&self, id: EntryId, state: &[u8]) -> Result<Draft, StorageError> {
        written(self.take_checkpoint(id), state)
    }

    /// Saves `state` as of `id`; durable on return.
    pub(crate) fn save_state(&self, id: EntryId, state: &[u8]) -> Result<(), StorageError> {
        self.save_checkpoint(self.drafted(id, state)?, Box::new(|| Ok(())))
    }

    /// `state` as another node sends it, so many bytes at a time; not kept yet.
    pub(crate) fn received(
        &self,
        id: EntryId,
        state: &[u8],
        piece: usize,
    ) -> Result<CheckpointFile, StorageError> {
        state.chunks(piece).try_fold(self.receive_checkpoint(id), written)?.finish()
    }

    /// The state that was saved as of `id`, verified.
    pub(crate) fn load_state(&self, id: EntryId) -> Result<bytes::Bytes, StorageError> {
        let file = self.open_checkpoint(id)?;
        file.verify()?;
        file.piece(0, usize::MAX)
    }
}

#[cfg(any(test, feature = "simulation"))]
fn written(mut draft: Draft, bytes: &[u8]) -> Result<Draft, StorageError> {
    let result = std::io::Write::write_all(&mut draft, bytes);
    result.map_err(|error| StorageError::io("write", "a checkpoint", error))?;
    Ok(draft)
}

//! Which segments there are: rolling, cutting, dropping. Each is one manifest change.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::StorageError;
use crate::format::entry::EntryId;
use crate::format::manifest::{Boundary, Manifest, SealedMeta, SegmentMeta};
use crate::mutant::Mutant;
use crate::seam::disk::atomic_file::{self, ReplaceError};
use crate::segment::active::{SegmentWriter, allocation_step};
use crate::segment::offset_index::SparseIndex;
use crate::segment::sealed::SealedSegment;
use crate::segment::segment_path;

use super::{Fault, LogWriter, end_of};
use crate::log::files::manifest::MANIFEST_NAME;
use crate::log::memory::memberships::StoredMembership;
use crate::log::memory::shared::Shared;
use crate::log::memory::state::SegmentSet;

impl LogWriter {
    /// Seals the active segment and begins the next one.
    pub(super) fn roll(&mut self, shared: &Shared) -> Result<(), Fault> {
        if self.active.is_dirty() {
            self.flush(shared).map_err(Fault::Fatal)?;
        }
        self.reserve(shared, self.active.seal_len()).map_err(Fault::before)?;
        let meta = self.active.seal(end_of(self.committed(shared))).map_err(Fault::Fatal)?;
        let mut sealed = self.sealed.clone();
        sealed.push(self.sealed_segment(meta, None));
        self.relayout(shared, sealed, Some((meta.last.index + 1, meta.last.term)))
    }

    /// Drops every entry behind `last`.
    pub(super) fn truncate(&mut self, shared: &Shared, last: Option<EntryId>) -> Result<(), Fault> {
        if self.active.is_dirty() {
            self.flush(shared).map_err(Fault::Fatal)?;
        }
        let base = self.active.segment().meta().base;
        let first = self.sealed.first().map_or(base, |sealed| sealed.meta().segment.base);
        let next = last.map_or((first, 0), |last| (last.index + 1, last.term));
        if next.0 >= self.end() {
            return Ok(());
        }
        let sealed = match last {
            Some(last) if last.index >= base => self.with_active_cut(last),
            Some(last) => self.sealed_up_to(last)?,
            None => Vec::new(),
        };
        self.memberships.truncate(next.0);
        self.relayout(shared, sealed, Some(next))?;
        shared.cut_checkpoints(next.0);
        Ok(())
    }

    /// Cuts the active segment behind its last valid group: what follows is a torn tail.
    pub(in crate::log) fn cut_torn_tail(&mut self, shared: &Shared) -> Result<(), Fault> {
        let meta = *self.active.segment().meta();
        let (sealed, next) = match self.active.last() {
            Some(last) => (self.with_active_cut(last), (last.index + 1, last.term)),
            None => (self.sealed.clone(), (meta.base, meta.prev_term)),
        };
        self.relayout(shared, sealed, Some(next))
    }

    /// Drops every segment; the log goes on behind `upto`.
    pub(in crate::log) fn restart_behind(
        &mut self,
        shared: &Shared,
        upto: EntryId,
    ) -> Result<(), Fault> {
        self.relayout(shared, Vec::new(), Some((upto.index + 1, upto.term)))
    }

    /// Replaces a manifest of an older build, which knows the committed position by its index only.
    pub(in crate::log) fn restate(&mut self, shared: &Shared) -> Result<(), Fault> {
        self.relayout(shared, self.sealed.clone(), None)
    }

    /// Drops the sealed segments that lie at or below `upto`.
    pub(super) fn drop_below(&mut self, shared: &Shared, upto: EntryId) -> Result<(), Fault> {
        let count = self.sealed.partition_point(|sealed| sealed.meta().last.index <= upto.index);
        self.relayout(shared, self.sealed[count..].to_vec(), None)
    }

    fn with_active_cut(&mut self, last: EntryId) -> Vec<Arc<SealedSegment>> {
        self.active.release_unwritten();
        let (meta, index) = self.active.sealed_short(last);
        let mut sealed = self.sealed.clone();
        sealed.push(self.sealed_segment(meta, Some(index)));
        sealed
    }

    /// The sealed segments that hold entries up to `last`, the last one cut there.
    fn sealed_up_to(&self, last: EntryId) -> Result<Vec<Arc<SealedSegment>>, Fault> {
        let begins_before = |sealed: &Arc<SealedSegment>| sealed.meta().segment.base <= last.index;
        let count = self.sealed.partition_point(begins_before);
        let mut sealed = self.sealed[..count].to_vec();
        if let Some(cut) = sealed.last_mut()
            && cut.meta().last.index > last.index
        {
            let meta = cut.cut_behind(last).map_err(Fault::Fatal)?;
            *cut = self.sealed_segment(meta, None);
        }
        Ok(sealed)
    }

    fn sealed_segment(&self, meta: SealedMeta, index: Option<SparseIndex>) -> Arc<SealedSegment> {
        Arc::new(SealedSegment::new(Arc::clone(&self.disk), &self.dir, meta, index))
    }

    /// One manifest change: these sealed segments, and the active one or, if `next` is given, a new
    /// one that begins at that index behind that term. Files that are not listed any more are
    /// removed.
    ///
    /// Until the manifest is replaced nothing is changed, and a stall may be tried again.
    pub(super) fn relayout(
        &mut self,
        shared: &Shared,
        sealed: Vec<Arc<SealedSegment>>,
        next: Option<(u64, u64)>,
    ) -> Result<(), Fault> {
        let new = match next {
            Some((base, prev_term)) => Some(self.new_segment(shared, base, prev_term)?),
            None => None,
        };
        let active = new.as_ref().unwrap_or(&self.active).segment();
        let id = active.meta().id;
        let manifest = self.manifest(shared, &sealed, *active.meta());
        if let Err(error) = self.write_manifest(&manifest) {
            if let (Some(new), ReplaceError::Before(_)) = (&new, &error) {
                // Not listed: the next open removes it if this does not.
                let _ = self.disk.unlink(new.segment().path());
            }
            return Err(error.into());
        }
        self.next_segment_id = manifest.next_segment_id;
        let listed: Vec<u64> =
            sealed.iter().map(|sealed| sealed.meta().segment.id).chain([id]).collect();
        let before = std::mem::replace(&mut self.sealed, sealed);
        let old = new.map(|new| std::mem::replace(&mut self.active, new));
        self.publish(shared);
        let ids = before.iter().map(|sealed| sealed.meta().segment.id);
        let ids = ids.chain(old.iter().map(|old| old.segment().meta().id));
        let removed: Vec<u64> = ids.filter(|id| !listed.contains(id)).collect();
        // Whoever lets go of a removed file last waits for its space to be freed.
        drop((before, old));
        removed.into_iter().for_each(|id| self.remove_segment(id));
        Ok(())
    }

    /// Shows readers the segments.
    fn publish(&self, shared: &Shared) {
        let sealed = self.sealed.clone();
        let active = Some(Arc::clone(self.active.segment()));
        shared.set_segments(self.epoch, SegmentSet { sealed, active });
    }

    fn new_segment(
        &self,
        shared: &Shared,
        base: u64,
        prev_term: u64,
    ) -> Result<SegmentWriter, Fault> {
        let options = shared.options();
        let random = options.clock.random();
        let random =
            random.map_err(|error| Fault::Fatal(StorageError::io("draw", &self.dir, error)))?;
        let salt = random as u64;
        let meta = SegmentMeta { id: self.next_segment_id, base, salt, prev_term };
        let step = allocation_step(&*self.disk, &self.dir, options.disk_reserve);
        let (log_id, size) = (options.log_id.0, (options.segment_size, step));
        let now_ms = options.clock.now_ms();
        SegmentWriter::create(&*self.disk, &self.dir, log_id, meta, size, now_ms)
            .map_err(Fault::before)
    }

    /// Allocates space in the active segment.
    pub(super) fn reserve(&mut self, shared: &Shared, bytes: u64) -> Result<(), StorageError> {
        let Self { disk, dir, active, .. } = self;
        active.reserve(bytes, || allocation_step(&**disk, dir, shared.options().disk_reserve))
    }

    fn manifest(
        &self,
        shared: &Shared,
        sealed: &[Arc<SealedSegment>],
        active: SegmentMeta,
    ) -> Manifest {
        let boundary = self.boundary.map(|id| Boundary {
            id,
            membership: self.memberships.boundary().map(StoredMembership::to_meta),
            has_checkpoint: shared.has_checkpoint(id),
        });
        Manifest {
            log_id: shared.options().log_id.0,
            next_segment_id: self.next_segment_id.max(active.id + 1),
            committed: self.committed_stored(shared).into(),
            stable: self.stable_stored(shared),
            boundary,
            sealed: sealed.iter().map(|sealed| *sealed.meta()).collect(),
            active,
            memberships: self.memberships.behind().iter().map(StoredMembership::to_meta).collect(),
        }
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), ReplaceError> {
        let path = self.dir.join(MANIFEST_NAME);
        let bytes = manifest.encode().map_err(|error| ReplaceError::Before(error.at(&path, 0)))?;
        let begins_new = manifest.active.id != self.active.segment().meta().id;
        let unflushed = begins_new
            && match manifest.active.base.cmp(&self.end()) {
                Ordering::Less => Mutant::TruncationNotFlushed.is_active(),
                Ordering::Equal => Mutant::RollNotFlushed.is_active(),
                Ordering::Greater => Mutant::InstallNotFlushed.is_active(),
            };
        atomic_file::replace_with(&*self.disk, &path, &[&bytes], !unflushed)
    }

    fn remove_segment(&self, id: u64) {
        let path = segment_path(&self.dir, id);
        let unlinked = match self.needs_space {
            true => self.disk.unlink(&path),
            false => self.disk.unlink_later(&path),
        };
        if let Err(error) = unlinked {
            tracing::warn!(path = %path.display(), %error, "cannot remove a dropped segment");
        }
    }
}

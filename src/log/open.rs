//! Opening a log: makes it if it is new, else recovers it. docs/storage.md 4.7.
//!
//! Everything is read and checked first; only then is anything changed, so that an error leaves the
//! directory as it was.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StorageError;
use crate::format::committed::Committed;
use crate::format::entry::EntryId;
use crate::format::manifest::{Manifest, SealedMeta, SegmentMeta};
use crate::mutant::Mutant;
use crate::seam::disk::{atomic_file, remove_all};
use crate::seam::{Access, Disk, DiskFile};
use crate::segment::active::{SegmentWriter, allocation_step};
use crate::segment::recovery::{self, Scan};
use crate::segment::sealed::SealedSegment;
use crate::segment::segment_id;

use super::drive::core::Core;
use super::drive::queue::WriterQueue;
use super::files::checkpoints::Checkpoints;
use super::files::damage;
use super::files::data_dir::{NEW_SUFFIX, make_dirs};
use super::files::manifest::{MANIFEST_NAME, check_sealed, open_segment, read_manifest};
use super::files::vote_file::VoteFile;
use super::memory::memberships::{Memberships, StoredMembership};
use super::memory::shared::Shared;
use super::memory::state::{Recovered, SegmentSet, State};
use super::options::LogOptions;
use super::writer::{Fault, LogWriter, Parts};

/// Opens or makes a log.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
    queue: Arc<WriterQueue>,
) -> Result<Arc<Core>, StorageError> {
    // A log is renamed into its place, so that an empty directory is one that has lost its files.
    let is_new = match disk.list(dir) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(StorageError::io("list", dir, error)),
    };
    if is_new {
        create(&*disk, dir, &options)?;
    }
    damage::check(&*disk, dir)?;
    let found = Found::read(&*disk, dir, options.log_id.0)?;
    let core = found.start(disk, dir, options, queue)?;
    Ok(Arc::new(core))
}

/// Makes an empty log: beside its place first, so that there is all of it or nothing.
fn create(disk: &dyn Disk, dir: &Path, options: &LogOptions) -> Result<(), StorageError> {
    let mut new = dir.as_os_str().to_owned();
    new.push(NEW_SUFFIX);
    let new = PathBuf::from(new);
    match remove_all(disk, &new) {
        Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        result => result?,
    }
    make_dirs(disk, &new)?;
    let log_id = options.log_id.0;
    let random = options.clock.random().map_err(|error| StorageError::io("draw", dir, error))?;
    let active = SegmentMeta { id: 1, base: 0, salt: random as u64, prev_term: 0 };
    VoteFile::create(disk, &new, log_id)?;
    let step = allocation_step(disk, &new, options.disk_reserve);
    let (size, now_ms) = (options.segment_size, options.clock.now_ms());
    SegmentWriter::create(disk, &new, log_id, active, (size, step), now_ms)?;
    let manifest = Manifest {
        log_id,
        next_segment_id: 2,
        committed: Committed::Nothing,
        stable: 0,
        boundary: None,
        sealed: Vec::new(),
        active,
        memberships: Vec::new(),
    };
    let path = new.join(MANIFEST_NAME);
    let bytes = manifest.encode().map_err(|error| error.at(&path, 0))?;
    atomic_file::replace(disk, &path, &[&bytes])?;
    disk.rename(&new, dir).map_err(|error| StorageError::io("make", dir, error))?;
    atomic_file::sync_parent(disk, dir)
}

/// A log as it lies on disk; nothing was changed yet.
struct Found {
    manifest: Manifest,
    active_file: Arc<dyn DiskFile>,
    active_path: PathBuf,
    scan: Scan,
    vote: VoteFile,
    checkpoints: Checkpoints,
}

impl Found {
    fn read(disk: &dyn Disk, dir: &Path, log_id: u64) -> Result<Self, StorageError> {
        let manifest = read_manifest(disk, dir, log_id)?;
        for sealed in &manifest.sealed {
            check_sealed(disk, dir, log_id, sealed)?;
        }
        let (active_file, active_path) = open_segment(disk, dir, &manifest.active, Access::Write)?;
        recovery::check_header(&*active_file, &active_path, log_id, &manifest.active)?;
        let scan = recovery::scan(&*active_file, &active_path, &manifest.active)?;
        let vote = VoteFile::open(disk, dir, log_id, Access::Write)?;
        let boundary = manifest.boundary.as_ref();
        let required = boundary.filter(|boundary| boundary.has_checkpoint).map(|b| b.id);
        let checkpoints = Checkpoints::find(disk, dir, log_id, required)?;
        Ok(Self { manifest, active_file, active_path, scan, vote, checkpoints })
    }

    /// Last entry held in a segment.
    fn last(&self) -> Option<EntryId> {
        self.scan.last.or_else(|| self.manifest.sealed.last().map(|sealed| sealed.last))
    }

    fn memberships(&mut self) -> Memberships {
        let base = self.manifest.active.base;
        let boundary = self.manifest.boundary.as_ref().and_then(|b| b.membership.clone());
        let sealed = std::mem::take(&mut self.manifest.memberships).into_iter();
        let mut behind: Vec<_> = sealed
            .filter(|membership| membership.id.index < base)
            .map(StoredMembership::from_meta)
            .collect();
        behind.extend(self.scan.memberships.iter().filter_map(StoredMembership::of));
        let mut memberships = Memberships::new(boundary.map(StoredMembership::from_meta), behind);
        if let Some(boundary) = &self.manifest.boundary {
            memberships.purge(boundary.id.index);
        }
        memberships
    }

    /// Makes durable what was read: a process that crashed may have left it in the page cache only,
    /// and what this one tells others must not be undone by a power cut.
    fn flush(&self, disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
        if Mutant::RecoveredNotFlushed.is_active() {
            return Ok(());
        }
        let flushed = self.active_file.sync_data();
        flushed.map_err(|error| StorageError::io("flush", &self.active_path, error))?;
        self.vote.flush()?;
        disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))?;
        atomic_file::sync_parent(disk, dir)
    }

    /// Puts the log to work: from here on the disk is changed.
    fn start(
        mut self,
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        queue: Arc<WriterQueue>,
    ) -> Result<Core, StorageError> {
        let boundary = self.manifest.boundary.as_ref().map(|boundary| boundary.id);
        let held = self.last();
        // Only what a crash or a cut has taken from below the boundary can be missing there.
        let behind_tail = boundary.filter(|boundary| {
            held.map_or(self.manifest.active.base, |last| last.index + 1) <= boundary.index
        });
        let last = if behind_tail.is_some() { boundary } else { held.or(boundary) };
        let memberships = self.memberships();
        let seal =
            |meta: &SealedMeta| Arc::new(SealedSegment::new(Arc::clone(&disk), dir, *meta, None));
        let sealed: Vec<_> = self.manifest.sealed.iter().map(seal).collect();
        self.flush(&*disk, dir).inspect_err(|_| tell_of_failure(&options))?;
        let active = SegmentWriter::resume(
            self.active_path,
            self.active_file,
            self.manifest.active,
            options.segment_size,
            &mut self.scan,
            options.clock.now_ms(),
        );
        let stored = [self.manifest.committed, self.vote.newest().committed];
        let is_old = |claim: &Committed| matches!(claim, Committed::Index(_));
        let old = stored.map(|claim| is_old(&claim));
        let stable = self.manifest.stable.max(self.vote.newest().stable);
        let segments =
            SegmentSet { sealed: sealed.clone(), active: Some(Arc::clone(active.segment())) };
        let vote = self.vote.newest().vote;
        let state = State::new(Recovered {
            boundary,
            memberships: memberships.clone(),
            vote,
            segments,
            last,
            stable,
        });
        self.checkpoints.set_boundary(boundary);
        let shared = Shared::new(Arc::clone(&disk), dir, options, state, self.checkpoints);
        recommit(&shared, stored, self.scan.committed)?;
        let committed = shared.state().committed;
        let disowned = disowned_checkpoints(&shared);
        // Nothing has been changed so far.
        self.vote.repair()?;
        if old[1] {
            // An older build's index could be believed for other entries.
            self.vote.restate(committed.into(), stable)?;
        }
        remove_orphans(&*disk, dir, &self.manifest)?;
        shared.drop_checkpoints(&disowned);
        let mut writer = LogWriter::new(Parts {
            disk,
            dir: dir.to_owned(),
            next_segment_id: self.manifest.next_segment_id,
            boundary,
            memberships,
            sealed,
            active,
            vote: self.vote,
            committed,
        });
        let changed = match behind_tail {
            Some(boundary) => writer.restart_behind(&shared, boundary),
            None if self.scan.torn && !Mutant::TornTailOverwritten.is_active() => {
                writer.cut_torn_tail(&shared)
            }
            None if old[0] => writer.restate(&shared),
            None => Ok(()),
        };
        changed.map_err(|(Fault::Stall(error) | Fault::Fatal(error))| error)?;
        writer.mark_when_idle(queue.now());
        Ok(Core::new(shared, writer, queue))
    }
}

/// What the last run had acknowledged may be gone: the next try to open the log would find it shorter.
fn tell_of_failure(options: &LogOptions) {
    if let Some(observer) = &options.observer
        && !Mutant::FailedOpenTrusted.is_active()
    {
        observer.failed();
    }
}

/// Takes up the last committed entry of those that were `stored`, as far as the log holds them, and of what the groups of
/// the active segment say, which is about their own entries. The one that is taken up is read; others are not.
fn recommit(shared: &Shared, stored: [Committed; 2], in_groups: u64) -> Result<(), StorageError> {
    if shared.options().at_stable && !Mutant::SuspectBelievesCommitted.is_active() {
        // What a majority had only written may be gone, and other entries in its place.
        let stable = shared.state().stable();
        let last = stable.checked_sub(1).map(|index| shared.id_at(index)).transpose()?;
        return last.flatten().map_or(Ok(()), |id| shared.commit(id));
    }
    let held = shared.state().watermarks().end;
    let highest = stored.into_iter().map(Committed::end).max().unwrap_or(0).max(in_groups);
    if Mutant::CommittedNotClamped.is_active() && highest > held {
        let term = shared.state().tail.last().map_or(0, |last| last.term);
        return shared.commit(EntryId { term, index: highest - 1 });
    }
    let in_groups = in_groups.checked_sub(1).map_or(Committed::Nothing, Committed::Index);
    let mut claims = [stored[0], stored[1], in_groups];
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.end().min(held)));
    for claim in claims {
        let end = claim.end().min(held);
        let Some(index) = end.checked_sub(1) else { break };
        let Some(id) = shared.id_at(index)? else { continue };
        let believed = match claim {
            Committed::Entry(committed) => {
                committed == id || Mutant::CommittedBelievedByIndex.is_active()
            }
            Committed::Index(_) => true,
            Committed::Nothing => false,
        };
        if believed {
            return shared.commit(id);
        }
    }
    Ok(())
}

/// Checkpoints that are not of this log's history: it holds another entry where they were taken, or none, or one that a
/// leader may replace. The boundary's is sound: no entry can contradict it.
fn disowned_checkpoints(shared: &Shared) -> Vec<EntryId> {
    if Mutant::CheckpointBelievedByIndex.is_active() {
        return Vec::new();
    }
    let (boundary, stable) = {
        let state = shared.state();
        (state.boundary, state.stable())
    };
    let mut disowned = shared.checkpoints().ids();
    disowned.retain(|id| boundary.is_none_or(|boundary| boundary.index < id.index));
    disowned.retain(|id| {
        let unsettled = shared.options().at_stable && id.index >= stable;
        // Damage that is found here is told to whoever comes to read the entry.
        unsettled || shared.id_at(id.index).is_ok_and(|held| held != Some(*id))
    });
    disowned
}

/// Removes segments that the manifest does not list, and files that were never renamed.
fn remove_orphans(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<(), StorageError> {
    let sealed = manifest.sealed.iter().map(|sealed| sealed.segment.id);
    let listed: Vec<u64> = sealed.chain([manifest.active.id]).collect();
    let names = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    for entry in names {
        let orphan = segment_id(&entry.name).is_some_and(|id| !listed.contains(&id));
        if orphan || entry.name.ends_with(atomic_file::TMP_SUFFIX) {
            let path = dir.join(&entry.name);
            tracing::info!(path = %path.display(), "removing what no manifest lists");
            disk.unlink(&path).map_err(|error| StorageError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

//! Checkpoints of the embedder's state machine: one file each, named by the index that it is as of.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::format::checkpoint::{CHECKPOINT_HEADER, CheckpointHeader};
use crate::format::entry::EntryId;
use crate::mutant::Mutant;
use crate::seam::{Access, Disk};

use super::checkpoint_file::CheckpointFile;

const SUFFIX: &str = ".ckpt";
/// Checkpoints kept between the boundary's and the newest two.
const BETWEEN_MAX: usize = 13;
/// Checkpoints kept because the boundary is to move there; one that is timed out may still do so.
const PINNED_MAX: usize = 4;

/// The checkpoints of one log, oldest first.
#[derive(Debug, Default)]
pub(in crate::log) struct Checkpoints {
    held: Vec<Held>,
    /// The boundary that the manifest names: it may require this one.
    boundary: Option<EntryId>,
    /// Where the boundary is to move, newest last.
    pinned: Vec<EntryId>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    id: EntryId,
    bytes: u64,
}

impl Checkpoints {
    /// Finds the checkpoints in a log's directory. One with a damaged head is left out, unless it is
    /// `required`: then it is an error, or if it is not there at all.
    pub(in crate::log) fn find(
        disk: &dyn Disk,
        dir: &Path,
        log_id: u64,
        required: Option<EntryId>,
    ) -> Result<Self, StorageError> {
        let names = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
        let mut held = Vec::new();
        for index in names.iter().filter_map(|entry| index_of(&entry.name)) {
            let needed = required.is_some_and(|id| id.index == index);
            match open_at(disk, dir, log_id, index) {
                Ok(file) => held.push(Held { id: file.id(), bytes: file.len() }),
                Err(error) if needed => return Err(error),
                Err(error) => tracing::warn!(%error, "passing over a checkpoint"),
            }
        }
        held.sort_by_key(|checkpoint| checkpoint.id.index);
        if let Some(id) = required.filter(|id| !held.iter().any(|held| held.id == *id)) {
            let path = path_of(dir, id.index);
            let detail = "the manifest says that the log begins behind it".to_owned();
            return Err(StorageError::Missing { path, detail });
        }
        Ok(Self { held, ..Self::default() })
    }

    /// Notes the boundary that the manifest names.
    pub(in crate::log) fn set_boundary(&mut self, boundary: Option<EntryId>) {
        self.boundary = boundary;
    }

    pub(in crate::log) fn ids(&self) -> Vec<EntryId> {
        self.held.iter().map(|checkpoint| checkpoint.id).collect()
    }

    pub(in crate::log) fn contains(&self, id: EntryId) -> bool {
        self.held.iter().any(|checkpoint| checkpoint.id == id)
    }

    pub(in crate::log) fn bytes(&self) -> u64 {
        self.held.iter().map(|checkpoint| checkpoint.bytes).sum()
    }

    /// Notes one that was saved.
    pub(in crate::log) fn insert(&mut self, id: EntryId, bytes: u64) {
        self.held.retain(|checkpoint| checkpoint.id.index != id.index);
        let at = self.held.partition_point(|checkpoint| checkpoint.id.index < id.index);
        self.held.insert(at, Held { id, bytes });
    }

    /// Forgets these.
    pub(in crate::log) fn forget(&mut self, ids: &[EntryId]) {
        self.held.retain(|checkpoint| !ids.contains(&checkpoint.id));
        self.pinned.retain(|pinned| !ids.contains(pinned));
    }

    /// The newest that `fits`. It stays until the boundary has passed it: the boundary is to move there.
    pub(in crate::log) fn pin(&mut self, fits: impl Fn(EntryId) -> bool) -> Option<EntryId> {
        let id = self.held.iter().rev().map(|checkpoint| checkpoint.id).find(|id| fits(*id))?;
        self.pinned.retain(|pinned| *pinned != id);
        self.pinned.push(id);
        if self.pinned.len() > PINNED_MAX {
            self.pinned.remove(0);
        }
        Some(id)
    }

    /// Forgets those below the boundary, and of the others those that lie closest to their neighbours
    /// while there are too many. The boundary's, that of the one that is about to be (`next`), the
    /// pinned and the newest two stay.
    pub(in crate::log) fn thin(&mut self, next: Option<EntryId>) -> Vec<EntryId> {
        let below = self.boundary.map_or(0, |boundary| {
            let kept = boundary.index + u64::from(Mutant::BoundaryCheckpointRemoved.is_active());
            self.held.partition_point(|checkpoint| checkpoint.id.index < kept)
        });
        let newest = self.held.len().saturating_sub(2);
        let mut dropped: Vec<EntryId> =
            self.held.drain(..below.min(newest)).map(|h| h.id).collect();
        let boundary = self.boundary;
        self.pinned.retain(|pinned| Some(*pinned) >= boundary);
        while self.held.len() > 1 + BETWEEN_MAX + 2 {
            let gap = |at: usize| self.held[at + 1].id.index - self.held[at - 1].id.index;
            let free = |at: &usize| {
                let id = self.held[*at].id;
                Some(id) != next && !self.pinned.contains(&id)
            };
            let between = (1..self.held.len() - 2).filter(free);
            let Some(at) = between.min_by_key(|&at| gap(at)) else { break };
            dropped.push(self.held.remove(at).id);
        }
        dropped
    }
}

/// Removes checkpoints that were thinned.
pub(in crate::log) fn remove(disk: &dyn Disk, dir: &Path, dropped: &[EntryId]) {
    for id in dropped {
        let path = path_of(dir, id.index);
        if let Err(error) = disk.unlink(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old checkpoint");
        }
    }
}

/// The checkpoint as of `id`. Its state is not verified.
pub(in crate::log) fn open(
    disk: &dyn Disk,
    dir: &Path,
    log_id: u64,
    id: EntryId,
) -> Result<CheckpointFile, StorageError> {
    let path = path_of(dir, id.index);
    match open_at(disk, dir, log_id, id.index) {
        Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let detail = "it was removed or never taken".to_owned();
            Err(StorageError::Missing { path, detail })
        }
        Ok(file) if file.id() != id => {
            Err(StorageError::corrupt(&path, 16, format!("it is as of {:?}", file.id())))
        }
        result => result,
    }
}

/// The index that a file name gives, if it is a checkpoint's.
pub(in crate::log) fn index_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

pub(in crate::log) fn path_of(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:020}{SUFFIX}"))
}

/// The checkpoint as of `index`. Its state is not verified.
pub(in crate::log) fn open_at(
    disk: &dyn Disk,
    dir: &Path,
    log_id: u64,
    index: u64,
) -> Result<CheckpointFile, StorageError> {
    let path = path_of(dir, index);
    let failed = |error| StorageError::io("read", &path, error);
    let file = disk.open(&path, Access::Read).map_err(failed)?;
    let len = file.size().map_err(failed)?;
    let mut bytes = [0; CHECKPOINT_HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(StorageError::corrupt(&path, len, "shorter than its head"));
        }
        result => result.map_err(failed)?,
    }
    let header = CheckpointHeader::decode(&bytes, len).map_err(|error| error.at(&path, 0))?;
    check_owner(&header, &path, log_id, index)?;
    Ok(CheckpointFile::new(file, path, header))
}

fn check_owner(
    header: &CheckpointHeader,
    path: &Path,
    log_id: u64,
    index: u64,
) -> Result<(), StorageError> {
    if (header.log_id, header.id.index) == (log_id, index) {
        return Ok(());
    }
    let detail = format!("it belongs to log {}, index {}", header.log_id, header.id.index);
    Err(StorageError::corrupt(path, 8, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_and_the_newest_two_stay_and_gaps_stay_even() {
        let mut checkpoints = Checkpoints::default();
        let mut dropped = 0;
        for index in 1..=1000 {
            checkpoints.insert(EntryId { term: 1, index }, 1);
            dropped += checkpoints.thin(None).len();
        }
        let held: Vec<u64> = checkpoints.ids().iter().map(|id| id.index).collect();
        assert_eq!(held.len() + dropped, 1000);
        assert_eq!(held.len(), 16, "{held:?}");
        assert_eq!((held[0], &held[14..]), (1, &[999, 1000][..]), "{held:?}");
        let gaps = held[..14].windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max() < Some(250), "{held:?}");
        checkpoints.set_boundary(Some(EntryId { term: 1, index: 2000 }));
        checkpoints.thin(None);
        assert_eq!(checkpoints.ids().len(), 2, "the newest two stay in any case");
    }

    #[test]
    fn the_one_that_the_boundary_is_about_to_move_to_stays() {
        let mut checkpoints = Checkpoints::default();
        let next = EntryId { term: 1, index: 7 };
        for index in 1..=100 {
            checkpoints.insert(EntryId { term: 1, index }, 1);
            checkpoints.thin((index >= 7).then_some(next));
        }
        assert!(checkpoints.contains(next));
        assert!(checkpoints.ids().len() <= 16);
    }

    #[test]
    fn a_checkpoint_stays_while_the_boundary_is_on_its_way_to_it() {
        let id = |index| EntryId { term: 1, index };
        let mut checkpoints = Checkpoints::default();
        (1..=10).for_each(|index| checkpoints.insert(id(index), 1));
        assert_eq!(checkpoints.pin(|candidate| candidate.index <= 5), Some(id(5)));
        for index in 11..=1000 {
            checkpoints.insert(id(index), 1);
            checkpoints.thin(None);
        }
        assert!(checkpoints.contains(id(5)));
        assert_eq!(checkpoints.ids().len(), 16);
        for index in 1001..=2000 {
            checkpoints.insert(id(index), 1);
            checkpoints.set_boundary(Some(id(500)));
            checkpoints.thin(None);
        }
        assert!(!checkpoints.contains(id(5)), "the boundary has passed it");
        assert_eq!(checkpoints.pin(|candidate| candidate.index < 5), None);
    }
}

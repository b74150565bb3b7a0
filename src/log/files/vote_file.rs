//! The vote on disk: saved twice, one copy after the other, so that one of them is always whole.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StorageError;
use crate::format::committed::Committed;
use crate::format::vote::{VOTE_FILE, VOTE_SLOT, VOTE_SLOTS_AT, Vote, VoteSlot};
use crate::mutant::Mutant;
use crate::seam::{Access, Disk, DiskFile};

/// Name of the file in a log's directory.
pub(in crate::log) const VOTE_NAME: &str = "VOTE";

/// The open vote file.
#[derive(Debug)]
pub(in crate::log) struct VoteFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    newest: VoteSlot,
    /// Which slots do not hold it.
    behind: [bool; 2],
}

impl VoteFile {
    /// Makes the file of a new log, without a vote. The directory is not synced.
    pub(in crate::log) fn create(
        disk: &dyn Disk,
        dir: &Path,
        log_id: u64,
    ) -> Result<(), StorageError> {
        let path = dir.join(VOTE_NAME);
        let newest =
            VoteSlot { log_id, sequence: 1, vote: None, committed: Committed::Nothing, stable: 0 };
        let made = disk.open(&path, Access::Create).and_then(|file| {
            file.allocate(0, VOTE_FILE)?;
            file.write_all_at(&vec![0; VOTE_FILE as usize], 0)?;
            for at in VOTE_SLOTS_AT {
                file.write_all_at(&newest.encode(), at)?;
            }
            file.sync_data()
        });
        made.map_err(|error| StorageError::io("create", &path, error))
    }

    /// Reads the file; changes nothing.
    ///
    /// # Errors
    /// The file is missing, or neither slot is whole.
    pub(in crate::log) fn open(
        disk: &dyn Disk,
        dir: &Path,
        log_id: u64,
        access: Access,
    ) -> Result<Self, StorageError> {
        let path = dir.join(VOTE_NAME);
        let mut opened = disk.open(&path, access);
        let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        if Mutant::MissingVoteForgotten.is_active() && opened.as_ref().is_err_and(missing) {
            Self::create(disk, dir, log_id)?;
            opened = disk.open(&path, access);
        }
        let file = opened.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let detail = "without its vote the node could vote twice".to_owned();
                StorageError::Missing { path: path.clone(), detail }
            }
            _ => StorageError::io("open", &path, error),
        })?;
        let [first, second] = VOTE_SLOTS_AT.map(|at| read_slot(&*file, at, log_id));
        let newest = match (&first, &second) {
            (Ok(first), Ok(second)) if second.sequence > first.sequence => *second,
            (Ok(first), _) => *first,
            (Err(_), Ok(second)) => *second,
            (Err(why), Err(_)) => return Err(StorageError::corrupt(path, 0, why.clone())),
        };
        let behind = [first, second].map(|slot| slot != Ok(newest));
        Ok(Self { path, file, newest, behind })
    }

    pub(in crate::log) fn newest(&self) -> &VoteSlot {
        &self.newest
    }

    /// True if a slot is damaged or behind the other.
    pub(in crate::log) fn is_uneven(&self) -> bool {
        self.behind.contains(&true)
    }

    /// Makes durable what was read.
    pub(in crate::log) fn flush(&self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(|error| StorageError::io("flush", &self.path, error))
    }

    /// Makes both slots hold the newest vote again, durably. The good one is not touched: a write of
    /// the same bytes, torn, would leave none.
    pub(in crate::log) fn repair(&mut self) -> Result<(), StorageError> {
        if self.is_uneven() {
            tracing::warn!(path = %self.path.display(), "one copy of the vote was damaged or old");
            self.write(self.newest, self.behind)?;
        }
        Ok(())
    }

    /// Saves a vote, and with it what is committed and what a majority has flushed. Durable on return; after an error it may
    /// be either vote.
    pub(in crate::log) fn save(
        &mut self,
        vote: Vote,
        committed: Committed,
        stable: u64,
    ) -> Result<(), StorageError> {
        let sequence = self.newest.sequence + 1;
        let vote = Some(vote);
        self.write(VoteSlot { sequence, vote, committed, stable, ..self.newest }, [true; 2])
    }

    /// Replaces what is known of the log beside the vote. Durable on return.
    pub(in crate::log) fn restate(
        &mut self,
        committed: Committed,
        stable: u64,
    ) -> Result<(), StorageError> {
        let sequence = self.newest.sequence + 1;
        self.write(VoteSlot { sequence, committed, stable, ..self.newest }, [true; 2])
    }

    fn write(&mut self, slot: VoteSlot, slots: [bool; 2]) -> Result<(), StorageError> {
        for (at, _) in VOTE_SLOTS_AT.into_iter().zip(slots).filter(|(_, chosen)| *chosen) {
            let written = self.file.write_all_at(&slot.encode(), at);
            let unflushed = Mutant::VoteNotFlushed.is_active()
                || Mutant::VoteSlotsFlushedTogether.is_active() && at == VOTE_SLOTS_AT[0];
            let flushed = written.and_then(|()| match unflushed {
                true => Ok(()),
                false => self.file.sync_data(),
            });
            flushed.map_err(|error| StorageError::io("write", &self.path, error))?;
        }
        self.newest = slot;
        self.behind = [false; 2];
        Ok(())
    }
}

fn read_slot(file: &dyn DiskFile, at: u64, log_id: u64) -> Result<VoteSlot, String> {
    let mut bytes = [0; VOTE_SLOT];
    file.read_exact_at(&mut bytes, at).map_err(|error| error.to_string())?;
    let slot = VoteSlot::decode(&bytes).map_err(|error| error.to_string())?;
    if slot.log_id == log_id { Ok(slot) } else { Err("the vote of another log".to_owned()) }
}

//! The file that the logs' clock is saved in: what it showed, and when that was.

use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::format::FormatError;
use crate::format::envelope::Envelope;
use crate::seam::Disk;
use crate::seam::disk::atomic_file;

const FILE_NAME: &str = "CLOCK";
const FILE_LEN_MAX: u64 = 1 << 10;
/// In the file: what the clock showed, what the wall clock showed, and what is yet to be made up for, each u64
/// milliseconds, little-endian.
const ENVELOPE: Envelope = Envelope { what: "clock", magic: *b"QLCK", version: 2 };
/// In the file: what the clock showed.
const OLDER: Envelope = Envelope { version: 1, ..ENVELOPE };

/// A clock as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Saved {
    /// What it showed.
    pub(super) shown_ms: u64,
    /// What the wall clock showed then. None in files of version 1.
    pub(super) wall_ms: Option<u64>,
    /// What it had yet to make up for.
    pub(super) owed_ms: u64,
}

impl Saved {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.shown_ms, self.wall_ms.unwrap_or(0), self.owed_ms];
        ENVELOPE.seal(&numbers.map(u64::to_le_bytes).concat())
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let length = || FormatError::Field { what: "clock", field: "length" };
        match ENVELOPE.open(bytes) {
            Err(FormatError::Version { found, .. }) if found == OLDER.version => {
                let shown = OLDER.open(bytes)?.try_into().map_err(|_| length())?;
                Ok(Self { shown_ms: u64::from_le_bytes(shown), wall_ms: None, owed_ms: 0 })
            }
            body => {
                let (numbers, rest) = body?.as_chunks::<8>();
                let &[shown, wall, owed] = numbers else { return Err(length()) };
                if !rest.is_empty() {
                    return Err(length());
                }
                let [shown_ms, wall_ms, owed_ms] = [shown, wall, owed].map(u64::from_le_bytes);
                Ok(Self { shown_ms, wall_ms: Some(wall_ms), owed_ms })
            }
        }
    }
}

/// Where it is saved.
#[derive(Debug)]
pub(super) struct ClockFile(PathBuf);

impl ClockFile {
    /// In a node's data directory.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE_NAME))
    }

    /// What was saved. None if nothing was, or it cannot be read.
    pub(super) fn read(&self, disk: &dyn Disk) -> Option<Saved> {
        let bytes = match atomic_file::read(disk, &self.0, FILE_LEN_MAX) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(%error, "the time of the last run is not known");
                return None;
            }
        };
        let saved = Saved::decode(&bytes);
        let unknown = |error: &_| tracing::warn!(%error, "the time of the last run is not known");
        saved.inspect_err(unknown).ok()
    }

    /// Saves a clock. Durable on return.
    ///
    /// # Errors
    /// The disk's; the old file may be there still.
    pub(super) fn save(&self, disk: &dyn Disk, saved: &Saved) -> Result<(), StorageError> {
        Ok(atomic_file::replace(disk, &self.0, &[&saved.encode()])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::disk::sim::SimDisk;

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_as_if_nothing_was() {
        let disk = SimDisk::new();
        let shared = disk.shared();
        shared.mkdir(Path::new("/data")).expect("a new directory");
        let file = ClockFile::new(Path::new("/data"));
        assert_eq!(file.read(&*shared), None);
        for shown_ms in [7, 8] {
            let saved = Saved { shown_ms, wall_ms: Some(1_700_000_000_000), owed_ms: 99 };
            file.save(&*shared, &saved).expect("the disk takes it");
            assert_eq!(file.read(&*shared), Some(saved));
        }
        disk.tamper(Path::new("/data/CLOCK"), |bytes| bytes[30] ^= 1);
        assert_eq!(file.read(&*shared), None);
    }

    #[test]
    fn a_file_of_an_older_build_is_read() {
        let older = OLDER.seal(&7_u64.to_le_bytes());
        let expected = Saved { shown_ms: 7, wall_ms: None, owed_ms: 0 };
        assert_eq!(Saved::decode(&older), Ok(expected));
        assert!(Saved::decode(&OLDER.seal(&[0; 9])).is_err());
        assert!(Saved::decode(&ENVELOPE.seal(&[0; 23])).is_err());
        assert!(Saved::decode(&ENVELOPE.seal(&[0; 32])).is_err());
    }
}

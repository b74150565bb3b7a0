//! Damage that was found while a log ran is noted beside it, and keeps it from being opened again.
//!
//! Opening reads what was written last, and not the whole log: without the note a node that is started again and again
//! would be elected again and again, and stop each time where it meets the damage, and as long the log could
//! not go on.

use std::io;
use std::path::Path;

use crate::error::StorageError;
use crate::format::damage_note::{DAMAGE_NOTE_LEN_MAX, DamageNote};
use crate::mutant::Mutant;
use crate::seam::Disk;
use crate::seam::disk::atomic_file;

/// Name of the note in a log's directory.
pub(in crate::log) const DAMAGE_NAME: &str = "DAMAGE";

/// Damage that was found.
#[derive(Debug, Clone)]
pub(crate) struct DamageFound {
    /// None if the disk failed to read what it may hold: another run may be able to.
    lasting: Option<DamageNote>,
}

impl DamageFound {
    /// The damage that an error of a read tells of. Other errors say nothing about what the disk holds.
    pub(crate) fn of(error: &StorageError) -> Option<Self> {
        let (path, offset, detail) = match error {
            StorageError::Corrupt { path, offset, detail } => (path, *offset, detail.clone()),
            StorageError::Missing { path, detail } => (path, 0, format!("it is missing; {detail}")),
            StorageError::Io { source, .. } if is_of_medium(source) => {
                return (!Mutant::UnreadableIgnored.is_active()).then_some(Self { lasting: None });
            }
            _ => return None,
        };
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(Self { lasting: Some(DamageNote { file, offset, detail }) })
    }
}

/// True if the disk, or what the file system has on it, is to blame, and not the process or a limit of the system.
fn is_of_medium(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let of_medium = [
        Errno::IO,
        // Disks, RAID and file systems with checksums may say these.
        Errno::NODATA,
        Errno::BADMSG,
        Errno::ILSEQ,
        #[cfg(target_os = "linux")]
        Errno::UCLEAN,
        #[cfg(target_os = "linux")]
        Errno::REMOTEIO,
        #[cfg(target_os = "linux")]
        Errno::HWPOISON,
    ];
    Errno::from_io_error(error).is_some_and(|errno| of_medium.contains(&errno))
}

/// Notes damage that lasts.
pub(in crate::log) fn note(disk: &dyn Disk, dir: &Path, found: &DamageFound) {
    let Some(note) = &found.lasting else { return };
    if let Err(error) = atomic_file::replace(disk, &dir.join(DAMAGE_NAME), &[&note.encode()]) {
        // It is found again.
        let error = StorageError::from(error);
        tracing::warn!(error = %crate::error::with_sources(&error), "cannot note that a log is damaged");
    }
}

/// Fails if damage was noted.
pub(in crate::log) fn check(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    let path = dir.join(DAMAGE_NAME);
    let Some(bytes) = atomic_file::read(disk, &path, DAMAGE_NOTE_LEN_MAX)? else { return Ok(()) };
    let note = DamageNote::decode(&bytes).map_err(|error| error.at(&path, 0))?;
    let detail =
        format!("{} (found by an earlier run, which noted it in {DAMAGE_NAME})", note.detail);
    Err(StorageError::corrupt(dir.join(note.file), note.offset, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_read_says_of_the_disk_is_damage_and_what_it_says_of_the_process_is_not() {
        use rustix::io::Errno;

        let found = |error| DamageFound::of(&error).map(|found| found.lasting.is_some());
        let read = |errno: Errno| found(StorageError::io("read", "1.seg", errno.into()));
        assert_eq!(found(StorageError::corrupt("1.seg", 7, "its CRC")), Some(true));
        let missing = StorageError::Missing { path: "1.seg".into(), detail: String::new() };
        assert_eq!(found(missing), Some(true));
        for errno in [Errno::IO, Errno::BADMSG] {
            assert_eq!(read(errno), Some(false), "{errno}: another run may be able to read it");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::ACCESS] {
            assert_eq!(read(errno), None, "{errno}");
        }
        assert_eq!(found(StorageError::Full { path: "1.seg".into() }), None);
    }
}

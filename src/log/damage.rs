//! Damage that was found while a log ran is noted beside it, and keeps it from being opened again.
//!
//! Opening reads what was written last, and not the whole log: without the note a node that is started again and again
//! would be elected again and again, and stop each time where it comes upon the damage, and as long the log could
//! not go on.

use std::path::Path;

use crate::error::StorageError;
use crate::format::damage_note::{DAMAGE_NOTE_LEN_MAX, DamageNote};
use crate::segment::{Disk, atomic_file};

/// Name of the note in a log's directory.
pub(super) const DAMAGE_NAME: &str = "DAMAGE";

/// Damage that was found.
#[derive(Debug, Clone)]
pub(crate) struct DamageFound(DamageNote);

impl DamageFound {
    /// The damage that an error tells of. Other errors say nothing about what the disk holds.
    pub(crate) fn of(error: &StorageError) -> Option<Self> {
        let StorageError::Corrupt { path, offset, detail } = error else { return None };
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(Self(DamageNote { file, offset: *offset, detail: detail.clone() }))
    }
}

/// Notes damage.
pub(super) fn note(disk: &dyn Disk, dir: &Path, found: &DamageFound) {
    let bytes = found.0.encode();
    if let Err(error) = atomic_file::replace(disk, &dir.join(DAMAGE_NAME), &[&bytes]) {
        // It is found again.
        let error = StorageError::from(error);
        tracing::warn!(error = %crate::error::with_sources(&error), "cannot note that a log is damaged");
    }
}

/// Fails if damage was noted.
pub(super) fn check(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    let path = dir.join(DAMAGE_NAME);
    let Some(bytes) = atomic_file::read(disk, &path, DAMAGE_NOTE_LEN_MAX)? else { return Ok(()) };
    let note = DamageNote::decode(&bytes).map_err(|error| error.at(&path, 0))?;
    let detail =
        format!("{} (found by an earlier run, which noted it in {DAMAGE_NAME})", note.detail);
    Err(StorageError::corrupt(dir.join(note.file), note.offset, detail))
}

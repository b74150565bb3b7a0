//! Removing a directory with all that lies in it.

use std::path::Path;

use super::Disk;
use crate::error::StorageError;

/// Removes whatever lies in a directory, and the directory.
pub(crate) fn remove_all(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    let failed = |error| StorageError::io("remove", dir, error);
    for entry in disk.list(dir).map_err(failed)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_all(disk, &path)?;
        } else {
            disk.unlink(&path).map_err(failed)?;
        }
    }
    disk.remove_dir(dir).map_err(failed)
}

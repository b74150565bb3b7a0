//! Looks at a data directory without a node, and never changes a byte of it.
//!
//! A node may be running on it: then what is seen of the newest entries may be half written.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::StorageError;
use crate::record::LogId;
use crate::segment::disk::DiskLock;
use crate::segment::{Disk, LockMode};

use super::data_dir::{LOCK_NAME, LOGS_NAME, log_of};

mod inspect;
mod verify;

pub use inspect::{
    CheckpointSummary, Inspection, LogSummary, NodeSummary, Position, SegmentSummary, VoteSummary,
    inspect,
};
pub use verify::{Finding, LogVerification, Severity, Verification, verify};

#[cfg(any(test, feature = "simulation"))]
pub(crate) use {inspect::inspect_on, verify::verify_on};

/// Whether a process uses the directory. Keeps one from starting while what is returned is held.
fn look_at_lock(
    disk: &dyn Disk,
    data_dir: &Path,
) -> Result<(bool, Option<Box<dyn DiskLock>>), StorageError> {
    let path = data_dir.join(LOCK_NAME);
    match disk.lock(&path, LockMode::Shared) {
        Ok(Some(lock)) => Ok((false, Some(lock))),
        Ok(None) => Ok((true, None)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((false, None)),
        Err(error) => Err(StorageError::io("lock", path, error)),
    }
}

/// The logs that have a directory.
fn list_logs(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<LogId>, StorageError> {
    let path = data_dir.join(LOGS_NAME);
    let names = disk.list(&path).map_err(|error| StorageError::io("list", path, error))?;
    Ok(names.iter().filter(|entry| entry.is_dir).filter_map(|entry| log_of(&entry.name)).collect())
}

//! Looks at a data directory without a node, and never changes a byte of it, but for [`accept_loss`].
//!
//! A node may be running on it: then what is seen of the newest entries may be half written.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::StorageError;
use crate::record::LogId;
use crate::seam::disk::RealDisk;
use crate::seam::{Disk, DiskLock, LockMode, SystemClock};

use crate::log::files::data_dir::{LOCK_NAME, LOGS_NAME, log_of};

pub(in crate::log) mod accept_loss;
mod inspect;
mod verify;

pub use accept_loss::AcceptedLoss;
pub use inspect::{
    CheckpointSummary, Inspection, LogSummary, NodeSummary, Position, SegmentSummary, VoteSummary,
    inspect,
};
pub use verify::{Finding, LogVerification, Severity, Verification, verify};

#[cfg(any(test, feature = "simulation"))]
pub(crate) use {inspect::inspect_on, verify::verify_on};

/// Has a node take its logs for whole though they may have lost what it had acknowledged, in a power cut with
/// [`Flush::Async`](crate::Flush::Async). For nodes that wait for others which never come back: what only those
/// had is lost then. The data counts as the newest of its node from then on, even if it is an older copy that was put back, and
/// also if this was done before with the same copy: what counts is the machine's clock. Durable on return.
///
/// # Errors
/// A process uses the directory, it is no node's, or what the disk says.
pub fn accept_loss(data_dir: impl AsRef<Path>) -> Result<AcceptedLoss, StorageError> {
    accept_loss::accept_loss(&RealDisk, &SystemClock, data_dir.as_ref())
}

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

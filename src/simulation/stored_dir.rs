//! A data directory without a node: for tests of what is stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StorageError;
use crate::log::DataDir;
use crate::log::offline::{Inspection, Verification, inspect_on, verify_on};
use crate::member::NodeId;
use crate::record::LogId;
use crate::seam::{Clock, Disk};

/// An opened and locked data directory.
#[derive(Debug)]
pub struct StoredDir {
    dir: DataDir,
}

impl StoredDir {
    /// Opens or makes it, as a node does at its start.
    ///
    /// # Errors
    /// What is damaged or missing, or what the disk says.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: &dyn Clock,
        path: &Path,
        node: NodeId,
    ) -> Result<Self, StorageError> {
        Ok(Self { dir: DataDir::open(disk, clock, path, node)? })
    }

    /// Where a log lies.
    pub fn log_dir(&self, log: LogId) -> PathBuf {
        self.dir.log_dir(log)
    }

    /// Random number made with the directory.
    pub fn incarnation(&self) -> u128 {
        self.dir.incarnation()
    }

    /// Id of the cluster; 0 before the node belongs to one.
    pub fn cluster(&self) -> u128 {
        self.dir.cluster()
    }

    /// Notes the cluster that the node belongs to. Durable on return.
    ///
    /// # Errors
    /// It belongs to another one, or what the disk says.
    pub fn set_cluster(&self, cluster: u128) -> Result<(), StorageError> {
        self.dir.set_cluster(cluster)
    }

    /// The logs whose directories must be there.
    pub fn logs(&self) -> Vec<LogId> {
        self.dir.logs()
    }

    /// The logs whose directories are there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn logs_on_disk(&self) -> Result<Vec<LogId>, StorageError> {
        self.dir.logs_on_disk()
    }

    /// Notes that a log exists. Durable on return.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add_log(&self, log: LogId) -> Result<(), StorageError> {
        self.dir.add_log(log)
    }

    /// Forgets a log, before it is destroyed. Durable on return.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove_log(&self, log: LogId) -> Result<(), StorageError> {
        self.dir.remove_log(log)
    }

    /// Removes the files of a log that is not open and was forgotten.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove_files(&self, log: LogId) -> Result<(), StorageError> {
        self.dir.remove_files(log)
    }
}

/// [`offline::inspect`](crate::offline::inspect) on any disk.
///
/// # Errors
/// The first file that is missing or damaged.
pub fn inspect(disk: &dyn Disk, data_dir: &Path) -> Result<Inspection, StorageError> {
    inspect_on(disk, data_dir)
}

/// [`offline::verify`](crate::offline::verify) on any disk.
///
/// # Errors
/// The directory cannot be listed.
pub fn verify(disk: &dyn Disk, data_dir: &Path) -> Result<Verification, StorageError> {
    verify_on(disk, data_dir, &mut |_, _| {})
}

//! A place on disk for what a state machine derives from its log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::seam::{Clock, Disk};

/// A directory of a state machine's own, inside its log's: for files that are made from the log and can be made
/// again, so that they need not be in memory and in every checkpoint.
///
/// It is absent until the state machine makes it, and goes away with the log. Nothing but the state machine
/// looks into it. A checkpoint may name such files once they are durable, and one that came from another node names
/// files that are not here.
#[derive(Debug, Clone)]
pub struct StateDir {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
}

impl StateDir {
    /// The directory at `path` of `disk`, on a machine with that clock.
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, path: impl Into<PathBuf>) -> Self {
        Self { disk, clock, path: path.into() }
    }

    /// The disk that the node runs on.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The clock that the node runs by, for random numbers. A state machine's state must not depend on either.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// True if it is this very directory, of the same disk.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.disk, &other.disk) && self.path == other.path
    }

    /// Where the directory is, or is to be made. The directory above it exists once the log is open.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

//! A driven log and the disk that it lies on.

use std::ops::{Deref, DerefMut};

use super::*;
use crate::seam::disk::sim::SimDisk;

pub(super) const DIR: &str = "/logs/0000000000000007";

/// See the module.
pub(super) struct Driven {
    pub(super) disk: SimDisk,
    driven: DrivenLog,
}

impl Driven {
    pub(super) fn open(disk: &SimDisk, options: &LogOptions) -> Result<Self, StorageError> {
        let driven = DrivenLog::open(disk.shared(), Path::new(DIR), options.clone())?;
        Ok(Self { disk: disk.clone(), driven })
    }
}

impl Deref for Driven {
    type Target = DrivenLog;

    fn deref(&self) -> &DrivenLog {
        &self.driven
    }
}

impl DerefMut for Driven {
    fn deref_mut(&mut self) -> &mut DrivenLog {
        &mut self.driven
    }
}

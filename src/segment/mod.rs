//! Files of entries: the seam to the file system, active and sealed segments, recovery. Synchronous.

use std::path::{Path, PathBuf};

pub(crate) mod active;
pub(crate) mod atomic_file;
mod background;
pub(crate) mod cursor;
pub(crate) mod disk;
mod freeing;
mod mmap;
pub(crate) mod offset_index;
mod real_disk;
pub(crate) mod recovery;
pub(crate) mod sealed;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod sim_disk;
mod writeback;

pub use disk::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode};
pub(crate) use real_disk::RealDisk;

/// How file names of segments end.
const SEGMENT_SUFFIX: &str = ".seg";

/// Path of a segment file in its log's directory.
pub(crate) fn segment_path(dir: &Path, segment_id: u64) -> PathBuf {
    dir.join(format!("{segment_id:016x}{SEGMENT_SUFFIX}"))
}

/// The segment id that a file name gives, if it is a segment's.
pub(crate) fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    if digits.len() != 16 { None } else { u64::from_str_radix(digits, 16).ok() }
}

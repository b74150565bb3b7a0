//! Files of entries: active and sealed segments, recovery. Synchronous.

use std::path::{Path, PathBuf};

pub(crate) mod active;
pub(crate) mod cursor;
pub(crate) mod offset_index;
pub(crate) mod recovery;
pub(crate) mod sealed;

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

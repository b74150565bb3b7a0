//! The manifest of a log, and the segments that it lists.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StorageError;
use crate::format::envelope::ENVELOPE;
use crate::format::manifest::{Manifest, SealedMeta, SegmentMeta};
use crate::seam::disk::atomic_file;
use crate::seam::{Access, Disk, DiskFile};
use crate::segment::recovery;
use crate::segment::segment_path;

/// Name of the manifest in a log's directory.
pub(in crate::log) const MANIFEST_NAME: &str = "MANIFEST";
const MANIFEST_LEN_MAX: u64 = (16 << 20) + ENVELOPE as u64;

/// Reads a log's manifest.
pub(in crate::log) fn read_manifest(
    disk: &dyn Disk,
    dir: &Path,
    log_id: u64,
) -> Result<Manifest, StorageError> {
    let path = dir.join(MANIFEST_NAME);
    let Some(bytes) = atomic_file::read(disk, &path, MANIFEST_LEN_MAX)? else {
        let detail = "it lists what the log consists of".to_owned();
        return Err(StorageError::Missing { path, detail });
    };
    let manifest = Manifest::decode(&bytes).map_err(|error| error.at(&path, 0))?;
    if manifest.log_id != log_id {
        let detail = format!("it belongs to log {}", manifest.log_id);
        return Err(StorageError::corrupt(path, 0, detail));
    }
    Ok(manifest)
}

/// Checks that a sealed segment is there and as long as the manifest says.
pub(in crate::log) fn check_sealed(
    disk: &dyn Disk,
    dir: &Path,
    log_id: u64,
    meta: &SealedMeta,
) -> Result<(), StorageError> {
    let (file, path) = open_segment(disk, dir, &meta.segment, Access::Read)?;
    recovery::check_header(&*file, &path, log_id, &meta.segment)?;
    let size = file.size().map_err(|error| StorageError::io("read", &path, error))?;
    if size < meta.end {
        let detail = format!("the file ends here, and its entries at byte {}", meta.end);
        return Err(StorageError::corrupt(path, size, detail));
    }
    Ok(())
}

/// Opens the file of a segment that the manifest lists.
pub(in crate::log) fn open_segment(
    disk: &dyn Disk,
    dir: &Path,
    meta: &SegmentMeta,
    access: Access,
) -> Result<(Arc<dyn DiskFile>, PathBuf), StorageError> {
    let path = segment_path(dir, meta.id);
    match disk.open(&path, access) {
        Ok(file) => Ok((file, path)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(StorageError::Missing { path, detail: "the manifest lists it".to_owned() })
        }
        Err(error) => Err(StorageError::io("open", path, error)),
    }
}

//! Small files that are replaced whole: after a crash there is the old one or the new one.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::mutant::Mutant;

use super::{Access, Disk};

/// How the file that will be renamed is named.
pub(crate) const TMP_SUFFIX: &str = ".tmp";

/// Where replacing stopped.
#[derive(Debug)]
pub(crate) enum ReplaceError {
    /// Before the rename: the old file is there, and the same may be tried again.
    Before(StorageError),
    /// In the rename or behind it: after a crash it may be either.
    Unknown(StorageError),
}

impl From<ReplaceError> for StorageError {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Before(error) | ReplaceError::Unknown(error) => error,
        }
    }
}

/// Replaces `path` by a file that holds `parts`, one behind the other. Durable on return.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, parts: &[&[u8]]) -> Result<(), ReplaceError> {
    replace_with(disk, path, parts, true)
}

/// `replace`; only a mutant wants it without the flushes.
pub(crate) fn replace_with(
    disk: &dyn Disk,
    path: &Path,
    parts: &[&[u8]],
    flush: bool,
) -> Result<(), ReplaceError> {
    let tmp = tmp_path(path);
    if let Err(error) = write(disk, &tmp, parts, flush) {
        // What is left of it is removed at the next open, if not now.
        let _ = disk.unlink(&tmp);
        return Err(ReplaceError::Before(StorageError::io("write", &tmp, error)));
    }
    let rename = disk.rename(&tmp, path);
    rename.map_err(|error| ReplaceError::Unknown(StorageError::io("replace", path, error)))?;
    if flush { sync_parent(disk, path).map_err(ReplaceError::Unknown) } else { Ok(()) }
}

/// The whole of a small file; none if it does not exist.
///
/// # Errors
/// Also if it is longer than `len_max`.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    len_max: u64,
) -> Result<Option<Vec<u8>>, StorageError> {
    let failed = |error| StorageError::io("read", path, error);
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let len = file.size().map_err(failed)?;
    if len > len_max {
        let detail = format!("{len} bytes, and at most {len_max} make sense");
        return Err(StorageError::corrupt(path, len_max, detail));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|e| failed(io::Error::other(e)))?];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(Some(bytes))
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    if Mutant::DirectoryNotFlushed.is_active() {
        return Ok(());
    }
    disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))
}

fn write(disk: &dyn Disk, tmp: &Path, parts: &[&[u8]], flush: bool) -> io::Result<()> {
    let file = disk.open(tmp, Access::Create)?;
    let mut offset = 0;
    for part in parts {
        file.write_all_at(part, offset)?;
        offset += part.len() as u64;
    }
    if flush { file.sync_data() } else { Ok(()) }
}

fn tmp_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TMP_SUFFIX);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::RealDisk;
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_no_tmp_is_left() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("F");
        assert_eq!(read(&RealDisk, &path, 9).expect("read"), None);
        replace(&RealDisk, &path, &[b"one"]).expect("make");
        replace(&RealDisk, &path, &[b"tw", b"o!"]).expect("replace");
        assert_eq!(read(&RealDisk, &path, 4).expect("read"), Some(b"two!".to_vec()));
        assert!(read(&RealDisk, &path, 3).is_err(), "longer than makes sense");
        let names = RealDisk.list(dir.path()).expect("list");
        assert_eq!(names.len(), 1, "{names:?}");
    }
}

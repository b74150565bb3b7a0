//! The one seam to the file system: everything that this library does to a disk goes through it.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) mod atomic_file;
mod background;
mod freeing;
pub(crate) mod mmap;
mod real;
pub(crate) mod remove;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod sim;
mod writeback;

pub(crate) use real::RealDisk;
pub(crate) use remove::remove_all;

/// Most buffers in one vectored write; Linux takes 1024.
const IO_SLICES_MAX: usize = 1024;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read; it must exist.
    Read,
    /// To read and write; it must exist.
    Write,
    /// To read and write; it is made if absent and emptied if not.
    Create,
}

/// How a lock file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Alone. Makes the file if absent.
    Exclusive,
    /// With others that share. The file must exist and is not touched.
    Shared,
}

/// A held lock; dropping it lets go.
pub trait DiskLock: Debug + Send + Sync {}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
}

/// A file system. All calls block; errors are the system's.
///
/// What is promised of it, and nothing more: bytes that were written are seen by later reads; they are
/// durable after [`DiskFile::sync_data`] of that file; a name that was made, moved or removed is durable
/// after [`Disk::sync_dir`] of its directory; `rename` is all or nothing. What is not durable may survive a power cut
/// in any part and any order.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file or directory, over an existing one if there is one. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in their order. Names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Removes a file's name. Open files and mappings of it stay valid.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// The same for a file whose space is not needed at once: it may be free some time later.
    fn unlink_later(&self, path: &Path) -> io::Result<()> {
        self.unlink(path)
    }
    /// Makes a directory.
    fn mkdir(&self, dir: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Tries to lock a file; none if another process holds it.
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn DiskLock>>>;
    /// Bytes that may still be written to the file system that holds `path`.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
    /// A number that stays as long as the machine runs and the file system that holds `path` is mounted: meanwhile the page
    /// cache has lost nothing but by a failed flush. None if that is not known.
    fn boot_id(&self, path: &Path) -> Option<u128> {
        let _ = path;
        None
    }
}

/// An open file. Reads and writes name their offset, so that one handle serves many threads.
pub trait DiskFile: Debug + Send + Sync {
    /// Length in bytes, allocated space included.
    fn size(&self) -> io::Result<u64>;
    /// Allocates space for `from..to` and makes the file at least `to` bytes long. New bytes are zero.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn cut(&self, len: u64) -> io::Result<()>;
    /// Writes some of `buffers`, at most 1024 of them, and says how many bytes.
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reads some bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes everything written, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Says that what was written may go to the disk now, so that the next `sync_data` has less to do. Promises nothing,
    /// and does not wait.
    fn start_writeback(&self) {}
    /// The first `len` bytes, read-only. The file must not be written or cut any more.
    fn map(&self, len: u64) -> io::Result<Bytes>;
}

impl dyn DiskFile + '_ {
    /// Fills `buffer` from `offset` on.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&mut [IoSlice::new(bytes)], offset)
    }

    /// Writes all of `buffers`, one behind the other, from `offset` on. `buffers` is used up.
    pub(crate) fn write_all_vectored_at(
        &self,
        mut buffers: &mut [IoSlice<'_>],
        mut offset: u64,
    ) -> io::Result<()> {
        IoSlice::advance_slices(&mut buffers, 0);
        while !buffers.is_empty() {
            let some = &buffers[..buffers.len().min(IO_SLICES_MAX)];
            match self.write_vectored_at(some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut buffers, written);
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

//! The disk of the machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FallocateFlags, StatxFlags};

use super::writeback::Writeback;
use super::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode, freeing, mmap};

/// Zeros written at once where the file system cannot allocate.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The disk of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl RealDisk {
    /// As the trait object that the rest takes.
    pub(crate) fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

#[derive(Debug)]
struct HeldLock {
    /// Locked until it is closed.
    _file: File,
}

impl DiskLock for HeldLock {}

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(access != Access::Read);
        if access == Access::Create {
            options.create(true).truncate(true);
        }
        Ok(Arc::new(RealFile::new(options.open(path)?, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            entries.extend(entry.file_name().into_string().map(|name| DirEntry { name, is_dir }));
        }
        entries.sort();
        Ok(entries)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn unlink_later(&self, path: &Path) -> io::Result<()> {
        freeing::unlink(path)
    }

    fn mkdir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn DiskLock>>> {
        let exclusive = mode == LockMode::Exclusive;
        let file = OpenOptions::new()
            .read(true)
            .write(exclusive)
            .create(exclusive)
            .truncate(false)
            .open(path)?;
        match if exclusive { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => Ok(Some(Box::new(HeldLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn boot_id(&self, path: &Path) -> Option<u128> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let boot = u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()?;
        Some(boot ^ u128::from(mount_id(path)))
    }
}

/// Number of the mount that holds `path`; 0 where the system does not tell. A volume that was torn off has another one
/// when it is back.
fn mount_id(path: &Path) -> u64 {
    /// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: the numbers of before are given again.
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), UNIQUE | StatxFlags::MNT_ID);
    stat.map_or(0, |stat| stat.stx_mnt_id)
}

#[derive(Debug)]
struct RealFile {
    file: File,
    writeback: Writeback,
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let len = to.saturating_sub(from);
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.fill(from, to),
            Err(error) => Err(error.into()),
        }
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.file, buffers, offset)?)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_writeback(&self) {
        self.writeback.start();
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        if len > self.size()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        mmap::map(&self.file, len)
    }
}

impl RealFile {
    fn new(file: File, path: &Path) -> Self {
        Self { file, writeback: Writeback::new(path) }
    }

    /// Allocates by writing zeros, never over bytes that are there.
    fn fill(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from.max(self.size()?);
        while at < to {
            let some = (to - at).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..some as usize], at)?;
            at += some;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectored_writes_of_any_number_of_buffers_come_back_in_order() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = RealDisk.open(&dir.path().join("f"), Access::Create).expect("create");
        let expected: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
        let mut buffers: Vec<IoSlice<'_>> = expected.chunks(2).map(IoSlice::new).collect();
        buffers.insert(1, IoSlice::new(&[]));
        file.write_all_vectored_at(&mut buffers, 100).expect("write");
        let mut read = vec![0; expected.len()];
        file.read_exact_at(&mut read, 100).expect("read");
        assert_eq!(read, expected);
        assert_eq!(file.size().expect("size"), 5100);
        assert_eq!(&file.map(5100).expect("map")[100..], expected);
        assert!(file.map(5101).is_err(), "a mapping never reaches beyond the file");
    }

    #[test]
    fn allocated_space_is_zero_and_written_bytes_stay() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        let file = RealFile::new(File::create_new(&path).expect("create"), &path);
        file.allocate(0, 4096).expect("allocate");
        (&file as &dyn DiskFile).write_all_at(b"abc", 0).expect("write");
        file.fill(0, 200_000).expect("fill");
        assert_eq!(file.size().expect("size"), 200_000);
    }

    #[test]
    fn a_mount_has_a_number_that_stays() {
        let dir = tempfile::tempdir().expect("tempdir");
        let boot = RealDisk.boot_id(dir.path());
        assert!(boot.is_some());
        assert_eq!(RealDisk.boot_id(dir.path()), boot);
        assert_ne!(RealDisk.boot_id(Path::new("/proc")), boot, "another mount");
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("LOCK");
        assert!(RealDisk.lock(&path, LockMode::Shared).is_err(), "sharing makes no file");
        let held = RealDisk.lock(&path, LockMode::Exclusive).expect("lock").expect("free");
        assert!(RealDisk.lock(&path, LockMode::Exclusive).expect("lock").is_none());
        assert!(RealDisk.lock(&path, LockMode::Shared).expect("lock").is_none());
        drop(held);
        assert!(RealDisk.lock(&path, LockMode::Shared).expect("lock").is_some());
    }
}

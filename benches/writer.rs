//! Group commit by the writer of a log, without Raft and connections: encode, write, flush, acknowledge. By the way
//! that the segments' files are made.
//!
//! `cargo bench --features simulation --bench writer`, on the disk of the target directory;
//! `QUORUMLOG_BENCH_DIR` names another. `files` has the same ways without a log.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorumlog::seam::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode, SystemClock};
use quorumlog::simulation::{
    StoredChange, StoredEntry, StoredId, StoredLog, StoredLogOptions, real_disk,
};
use quorumlog::{Flush, LogId};
use rustix::fs::OFlags;
use tempfile::TempDir;

use crate::support::place::directory;
use crate::support::ways::bench_ways;

const PAYLOAD_BYTES: usize = 1024;
/// Entries of one group.
const GROUPS: [u64; 3] = [1, 64, 256];
const SEGMENT_BYTES: u64 = 64 << 20;
/// A log that has grown so long gives way to a new one.
const LOG_BYTES: u64 = 512 << 20;
/// What O_DIRECT asks of offsets, lengths and addresses.
const BLOCK: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Strategy {
    /// As the library has it: space is allocated in steps, and its blocks were never written.
    Allocated,
    /// Each write makes the file longer.
    Growing,
    /// Its blocks were written with zeros before.
    Prefilled,
    /// Its blocks hold an older file, which is written over.
    Recycled,
    /// As prefilled, without the page cache.
    Direct,
}

impl Strategy {
    const ALL: [Self; 5] =
        [Self::Allocated, Self::Growing, Self::Prefilled, Self::Recycled, Self::Direct];

    /// What the blocks of a file hold before it is used; none for a new file.
    fn filler(self) -> Option<u8> {
        match self {
            Self::Allocated | Self::Growing => None,
            Self::Prefilled | Self::Direct => Some(0),
            Self::Recycled => Some(7),
        }
    }
}

/// The disk of the machine, but for how segments are made.
#[derive(Debug)]
struct StrategicDisk {
    real: Arc<dyn Disk>,
    strategy: Strategy,
    /// A file that was filled before its time.
    spare: PathBuf,
}

impl StrategicDisk {
    fn new(dir: &Path, strategy: Strategy) -> Self {
        Self { real: real_disk(), strategy, spare: dir.join("spare") }
    }

    /// Fills the file of the next segment, if the strategy has it so and it was taken.
    fn fill_spare(&self) -> io::Result<()> {
        let Some(filler) = self.strategy.filler().filter(|_| !self.spare.exists()) else {
            return Ok(());
        };
        let file = File::create(&self.spare)?;
        let bytes = vec![filler; 1 << 20];
        for at in (0..SEGMENT_BYTES).step_by(bytes.len()) {
            file.write_all_at(&bytes, at)?;
        }
        file.sync_all()
    }
}

impl Disk for StrategicDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let segment = path.extension().is_some_and(|suffix| suffix == "seg");
        if !segment || access != Access::Create {
            return self.real.open(path, access);
        }
        if self.strategy.filler().is_none() {
            let file = self.real.open(path, access)?;
            return Ok(match self.strategy {
                Strategy::Growing => Arc::new(Unallocated(file)),
                _ => file,
            });
        }
        self.fill_spare()?;
        self.real.rename(&self.spare, path)?;
        let file = self.real.open(path, Access::Write)?;
        let file: Arc<dyn DiskFile> = match self.strategy {
            Strategy::Direct => Arc::new(DirectFile::open(path, file)?),
            _ => file,
        };
        Ok(Arc::new(Unallocated(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.real.list(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.real.unlink(path)
    }

    fn mkdir(&self, dir: &Path) -> io::Result<()> {
        self.real.mkdir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.remove_dir(dir)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.real.lock(path, mode)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.real.free_space(path)
    }
}

/// A file whose space is as it is: nothing is allocated ahead.
#[derive(Debug)]
struct Unallocated(Arc<dyn DiskFile>);

impl DiskFile for Unallocated {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn allocate(&self, _from: u64, _to: u64) -> io::Result<()> {
        Ok(())
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.0.cut(len)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.write_vectored_at(buffers, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        self.0.map(len)
    }
}

/// Writes whole blocks past the page cache, the last of them again and again until it is full.
#[derive(Debug)]
struct DirectFile {
    buffered: Arc<dyn DiskFile>,
    direct: File,
    staged: Mutex<Staged>,
}

/// A buffer whose blocks begin at a multiple of the block.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    /// The block that was not full, and where it lies.
    block: Vec<u8>,
    at: u64,
}

impl DirectFile {
    fn open(path: &Path, buffered: Arc<dyn DiskFile>) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        Ok(Self { buffered, direct, staged: Mutex::default() })
    }
}

impl DiskFile for DirectFile {
    fn size(&self) -> io::Result<u64> {
        self.buffered.size()
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.buffered.allocate(from, to)
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.buffered.cut(len)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        let Staged { bytes, block, at } = &mut *staged;
        let begin = offset - offset % BLOCK as u64;
        // The log writes from front to back, so the block before is known, or is a new one.
        block.resize(if begin == *at { (offset - begin) as usize } else { 0 }, 0);
        let written: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let len = block.len() + written;
        let whole = len.next_multiple_of(BLOCK);
        bytes.resize(bytes.len().max(whole + BLOCK), 0);
        let front = bytes.as_ptr().align_offset(BLOCK);
        let aligned = &mut bytes[front..front + whole];
        let mut end = 0;
        for part in [block.as_slice()].into_iter().chain(buffers.iter().map(|buffer| &**buffer)) {
            aligned[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        aligned[end..].fill(0);
        self.direct.write_all_at(aligned, begin)?;
        let full = len - len % BLOCK;
        block.clear();
        block.extend_from_slice(&aligned[full..len]);
        *at = begin + full as u64;
        Ok(written)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.buffered.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.direct.sync_data()
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        self.buffered.map(len)
    }
}

/// A log that is appended to.
struct Target {
    // Before its directory, so that it is dropped first.
    log: StoredLog,
    disk: Arc<StrategicDisk>,
    _dir: TempDir,
    next: u64,
    written: u64,
}

impl Target {
    fn open(strategy: Strategy) -> io::Result<Self> {
        let dir = directory();
        let disk = Arc::new(StrategicDisk::new(dir.path(), strategy));
        let options = StoredLogOptions {
            log: LogId(1),
            flush: Flush::Sync,
            flush_interval: Duration::from_millis(200),
            segment_size: SEGMENT_BYTES,
            tail_cache_max: 16 << 20,
        };
        let shared = Arc::clone(&disk) as Arc<dyn Disk>;
        let log = StoredLog::open(shared, Arc::new(SystemClock), &dir.path().join("log"), &options);
        let log = log.map_err(io::Error::other)?;
        Ok(Self { log, disk, _dir: dir, next: 0, written: 0 })
    }

    /// Appends one group; gives the time that this took, without that for filling files and starting over.
    fn append(&mut self, payload: &Bytes, count: u64) -> io::Result<Duration> {
        if self.written > LOG_BYTES {
            *self = Self::open(self.disk.strategy)?;
        }
        self.disk.fill_spare()?;
        let entry = |index| StoredEntry::record(StoredId { term: 1, index }, payload.clone());
        let group = (self.next..self.next + count).map(entry).collect();
        let begun = Instant::now();
        let done = self.log.apply(StoredChange::Append(group));
        let took = begun.elapsed();
        done.ok_or(io::ErrorKind::StorageFull)?.map_err(io::Error::other)?;
        self.next += count;
        self.written += count * payload.len() as u64;
        Ok(took)
    }
}

fn group_commit(criterion: &mut Criterion) {
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let mut bench = criterion.benchmark_group("group_commit");
    for count in GROUPS {
        bench.throughput(Throughput::Elements(count));
        bench_ways(&mut bench, count, &Strategy::ALL, Target::open, |target| {
            target.append(&payload, count)
        });
    }
    bench.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = group_commit
}
criterion_main!(benches);

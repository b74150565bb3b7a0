//! One group written and flushed, by the way that its file was made. This is why segments are what they are.
//!
//! `cargo bench --bench files`, on the disk of the target directory; `QUORUMLOG_BENCH_DIR` names another.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod support;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::fs::{FallocateFlags, OFlags};

use crate::support::place::directory;
use crate::support::ways::bench_ways;

/// Length of a file; then there is a new one.
const FILE_BYTES: u64 = 64 << 20;
/// What O_DIRECT asks of offsets, lengths and addresses.
const BLOCK: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Strategy {
    /// Each write makes the file longer.
    Growing,
    /// Space is allocated, and its blocks were never written.
    Allocated,
    /// Its blocks were written with zeros before.
    Prefilled,
    /// Its blocks hold an older file, which is written over.
    Recycled,
    /// As prefilled, without the page cache.
    Direct,
    /// The same with one call for write and flush.
    DirectDsync,
}

impl Strategy {
    const ALL: [Self; 6] = [
        Self::Growing,
        Self::Allocated,
        Self::Prefilled,
        Self::Recycled,
        Self::Direct,
        Self::DirectDsync,
    ];

    fn flags(self) -> OFlags {
        match self {
            Self::Direct => OFlags::DIRECT,
            Self::DirectDsync => OFlags::DIRECT | OFlags::DSYNC,
            _ => OFlags::empty(),
        }
    }
}

/// A file that is being written.
struct Target {
    strategy: Strategy,
    path: PathBuf,
    file: File,
    at: u64,
}

impl Target {
    fn create(dir: &Path, strategy: Strategy) -> io::Result<Self> {
        let path = dir.join(format!("{strategy:?}"));
        let file = Self::make(&path, strategy)?;
        Ok(Self { strategy, path, file, at: 0 })
    }

    fn make(path: &Path, strategy: Strategy) -> io::Result<File> {
        let fresh = File::create(path)?;
        if strategy != Strategy::Growing {
            rustix::fs::fallocate(&fresh, FallocateFlags::empty(), 0, FILE_BYTES)?;
        }
        if !matches!(strategy, Strategy::Growing | Strategy::Allocated) {
            let zeros = vec![0; 1 << 20];
            for at in (0..FILE_BYTES).step_by(zeros.len()) {
                fresh.write_all_at(&zeros, at)?;
            }
        }
        fresh.sync_all()?;
        let flags = i32::try_from(strategy.flags().bits()).map_err(io::Error::other)?;
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
    }

    /// Writes and flushes one group; gives the time that this took, without that for a new file.
    fn append(&mut self, group: &[u8]) -> io::Result<Duration> {
        if self.at + group.len() as u64 > FILE_BYTES {
            self.at = 0;
            if self.strategy != Strategy::Recycled {
                self.file = Self::make(&self.path, self.strategy)?;
            }
        }
        let begun = Instant::now();
        self.file.write_all_at(group, self.at)?;
        if self.strategy != Strategy::DirectDsync {
            self.file.sync_data()?;
        }
        let took = begun.elapsed();
        self.at += group.len() as u64;
        Ok(took)
    }
}

/// A buffer that begins at a multiple of the block.
struct Aligned {
    bytes: Vec<u8>,
    begin: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![7_u8; len + BLOCK];
        let begin = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, begin, len }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.begin..self.begin + self.len]
    }
}

fn groups(criterion: &mut Criterion) {
    let dir = directory();
    let mut bench = criterion.benchmark_group("write_and_flush");
    for size in [BLOCK, 64 << 10, 256 << 10] {
        let group = Aligned::new(size);
        bench.throughput(Throughput::Bytes(size as u64));
        bench_ways(
            &mut bench,
            size,
            &Strategy::ALL,
            |strategy| Target::create(dir.path(), strategy),
            |target| target.append(group.as_slice()),
        );
    }
    bench.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = groups
}
criterion_main!(benches);

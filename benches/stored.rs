//! One log on the disk, without Raft and connections: what is in memory, what is sealed, and how long it takes to open.
//!
//! `cargo bench --features simulation --bench stored`; `QUORUMLOG_BENCH_LOG=10GiB` sets the size of the log that is
//! opened, `QUORUMLOG_BENCH_DIR` its directory.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorumlog::seam::SystemClock;
use quorumlog::simulation::{
    StoredChange, StoredEntry, StoredId, StoredLog, StoredLogOptions, real_disk,
};
use quorumlog::{ByteCount, Flush, LogId};

use crate::support::place::directory;
use crate::support::recovered::log_size;

const PAYLOAD_BYTES: usize = 1024;
const SEGMENT_BYTES: u64 = 64 << 20;
const TAIL_BYTES: u64 = 16 << 20;
/// Entries of one append.
const GROUP: u64 = 256;
/// Enough for two sealed segments, far more than the tail cache holds.
const READ_LOG: ByteCount = ByteCount::mib(160);
/// Size of the log that is opened, unless the environment says otherwise.
const RECOVERED: ByteCount = ByteCount::mib(512);

fn open(dir: &Path) -> StoredLog {
    let options = StoredLogOptions {
        log: LogId(1),
        flush: Flush::Async,
        flush_interval: Duration::from_millis(200),
        segment_size: SEGMENT_BYTES,
        tail_cache_max: TAIL_BYTES,
    };
    StoredLog::open(real_disk(), Arc::new(SystemClock), &dir.join("log"), &options)
        .expect("it opens")
}

/// Appends one group behind the last entry.
fn append(log: &mut StoredLog, group: Vec<StoredEntry>) {
    let last = group.last().expect("it has entries").id;
    let done = log.apply(StoredChange::Append(group));
    done.expect("there is space").expect("it can be written");
    log.set_committed(last);
}

fn group(log: &StoredLog, payload: &Bytes) -> Vec<StoredEntry> {
    let next = log.last_id().map_or(0, |last| last.index + 1);
    let entry = |index| StoredEntry::record(StoredId { term: 1, index }, payload.clone());
    (next..next + GROUP).map(entry).collect()
}

/// A log of so many bytes of payloads.
fn filled(dir: &Path, size: ByteCount) -> StoredLog {
    let mut log = open(dir);
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    for _ in 0..size.bytes().div_ceil(GROUP * PAYLOAD_BYTES as u64) {
        let group = group(&log, &payload);
        append(&mut log, group);
    }
    log
}

/// Entries go into the tail cache, from there to the file, and old ones go from the cache.
fn tail(criterion: &mut Criterion) {
    let dir = directory();
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let mut log = filled(dir.path(), ByteCount::mib(32));
    let mut bench = criterion.benchmark_group("tail");
    let end = log.watermarks().end;
    for count in [1, 64, 1000] {
        bench.throughput(Throughput::Elements(count));
        bench.bench_function(BenchmarkId::new("read", count), |bencher| {
            bencher.iter(|| {
                let entries = log.read(end - count, end, 64 << 20).expect("it can be read");
                assert_eq!(entries.len() as u64, count);
            });
        });
    }
    bench.throughput(Throughput::Elements(GROUP));
    bench.bench_function(BenchmarkId::new("append_and_evict", GROUP), |bencher| {
        bencher.iter(|| {
            let group = group(&log, &payload);
            append(&mut log, group);
            // Else the file would grow to the size of the disk.
            if log.watermarks().end.is_multiple_of(1 << 18) {
                let upto = log.last_id().expect("it has entries");
                log.apply(StoredChange::Purge(upto));
            }
        });
    });
    bench.finish();
}

fn sealed(criterion: &mut Criterion) {
    let dir = directory();
    let log = filled(dir.path(), READ_LOG);
    let (begin, end) = (log.watermarks().begin, log.watermarks().end);
    let mut bench = criterion.benchmark_group("sealed");
    for size in [64 << 10, 1 << 20] {
        bench.throughput(Throughput::Bytes(size as u64));
        let mut at = begin;
        bench.bench_function(BenchmarkId::new("read", size), |bencher| {
            bencher.iter(|| {
                let entries = log.read(at, end, size).expect("it can be read");
                let next = entries.last().expect("there are some").id.index + 1;
                // Once around what is in sealed segments for sure.
                at = if next < end / 4 { next } else { begin };
            });
        });
    }
    bench.finish();
}

/// Opens a log that lies on the disk: reads its manifest and the whole active segment.
fn recovery(criterion: &mut Criterion) {
    let size = log_size(RECOVERED);
    let dir = directory();
    let mut log = filled(dir.path(), size);
    log.apply(StoredChange::Close).expect("there is space").expect("it closes");
    drop(log);
    let mut bench = criterion.benchmark_group("open");
    bench.sample_size(10);
    bench.bench_function(size.to_string(), |bencher| {
        // Closing it is not measured.
        bencher.iter_batched(|| (), |()| open(dir.path()), BatchSize::PerIteration);
    });
    bench.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = tail, sealed, recovery
}
criterion_main!(benches);

//! One node in this process, one voter: what an append, a read and a restart cost without a network.
//!
//! `cargo bench --bench embedded`. The figures are of this machine's disk; compare medians of one run.
//! `QUORUMLOG_BENCH_LOG=10GiB` sets the size of the log that is recovered.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorumlog::{ByteCount, CommitLog, Config, Flush, LogName, Node};
use tokio::runtime::Runtime;

use crate::support::place::directory;
use crate::support::recovered::log_size;

const PAYLOAD_BYTES: usize = 1024;
/// Appends under way at once in the pipelined benchmark.
const PIPELINE: usize = 256;

/// Size of the log that is recovered, unless the environment says otherwise.
const RECOVERED: ByteCount = ByteCount::mib(128);

fn config(dir: &Path, flush: Flush) -> Config {
    let mut config = Config::new(1, dir).with_listen("127.0.0.1:0");
    config.storage.flush = flush;
    config.storage.disk_reserve = ByteCount::new(0);
    config
}

fn open(runtime: &Runtime, flush: Flush) -> (tempfile::TempDir, Node, CommitLog) {
    let dir = directory();
    let config = config(dir.path(), flush);
    let (node, log) = runtime.block_on(async {
        let node = Node::open(config).await.expect("a new node opens");
        node.bootstrap([node.member()]).await.expect("a new cluster can be founded");
        let name = LogName::new("bench").expect("a valid name");
        let log = node.create_log(&name).await.expect("a log can be made");
        log.append(Bytes::new()).await.expect("the only voter takes appends");
        (node, log)
    });
    (dir, node, log)
}

async fn append_pipelined(log: &CommitLog, payload: &Bytes) {
    let mut tickets = Vec::with_capacity(PIPELINE);
    for _ in 0..PIPELINE {
        tickets.push(log.submit(payload.clone()).await.expect("it is admitted"));
    }
    for ticket in tickets {
        ticket.await.expect("it commits");
    }
}

fn appends(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be made");
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    for flush in [Flush::Sync, Flush::Async] {
        let (_dir, node, log) = open(&runtime, flush);
        let mut group = criterion.benchmark_group(format!("append_{flush}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("one", |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                log.append(payload.clone()).await.expect("it commits");
            });
        });
        group.throughput(Throughput::Elements(PIPELINE as u64));
        group.bench_function("pipelined_256", |bencher| {
            bencher.to_async(&runtime).iter(|| append_pipelined(&log, &payload));
        });
        group.finish();
        runtime.block_on(node.shutdown()).expect("a healthy node shuts down");
    }
}

fn reads(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be made");
    let (_dir, node, log) = open(&runtime, Flush::Async);
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    // Enough for several sealed segments, far more than the tail cache holds.
    runtime.block_on(async {
        for _ in 0..800 {
            append_pipelined(&log, &payload).await;
        }
    });
    let begin = log.watermarks().begin;
    // The newest megabyte is in the tail cache.
    let tail = log.watermarks().committed - 1000;
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("sealed_1MiB", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            assert!(!log.read(begin, 1 << 20).await.expect("it can be read").is_empty());
        });
    });
    group.bench_function("tail_1000_records", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            assert_eq!(log.read(tail, 4 << 20).await.expect("it can be read").len(), 1000);
        });
    });
    group.finish();
    runtime.block_on(node.shutdown()).expect("a healthy node shuts down");
}

/// From opening the directory until the log takes an append again.
fn recovery(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be made");
    let size = log_size(RECOVERED);
    let (dir, node, log) = open(&runtime, Flush::Async);
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    runtime.block_on(async {
        while log.status().disk_bytes < size.bytes() {
            append_pipelined(&log, &payload).await;
        }
        node.shutdown().await.expect("a healthy node shuts down");
    });
    drop(log);
    drop(node);
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    group.bench_function(size.to_string(), |bencher| {
        bencher.iter_custom(|times| runtime.block_on(restarts(dir.path(), times)));
    });
    group.finish();
}

/// Opens the node so many times; gives the time until it serves, without that of closing it.
async fn restarts(dir: &Path, times: u64) -> Duration {
    let mut took = Duration::ZERO;
    let name = LogName::new("bench").expect("a valid name");
    for _ in 0..times {
        let begun = Instant::now();
        let node = Node::open(config(dir, Flush::Async)).await.expect("it recovers");
        loop {
            if let Some(log) = node.log(&name)
                && log.append(Bytes::new()).await.is_ok()
            {
                break;
            }
            // paced: the log's directory is opened by another task, which tells nobody.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took += begun.elapsed();
        node.shutdown().await.expect("a healthy node shuts down");
    }
    took
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(4)).sample_size(20);
    targets = appends, reads, recovery
}
criterion_main!(benches);

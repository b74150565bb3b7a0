//! What the bytes of one append cost without files and connections.
//!
//! `cargo bench --features simulation --bench formats`
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorumlog::simulation::formats::{encode_entry, encode_frame, verify_entries, verify_frame};

const SIZES: [usize; 4] = [64, 1 << 10, 16 << 10, 1 << 20];
/// Entries of one request to a follower.
const REQUEST_ENTRIES: u64 = 64;

fn entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("entry");
    for size in SIZES {
        let payload = Bytes::from(vec![7; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("encode", size), &payload, |bencher, payload| {
            bencher.iter(|| encode_entry(black_box(3), black_box(9), payload.clone()));
        });
        let mut body = BytesMut::new();
        for index in 0..REQUEST_ENTRIES {
            body.extend_from_slice(&encode_entry(3, index, payload.clone()));
            body.extend_from_slice(&payload);
        }
        let body = body.freeze();
        group.throughput(Throughput::Bytes(size as u64 * REQUEST_ENTRIES));
        group.bench_with_input(BenchmarkId::new("verify_64", size), &body, |bencher, body| {
            bencher
                .iter(|| assert_eq!(verify_entries(body.clone()), Some(REQUEST_ENTRIES as usize)));
        });
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    // The head of an append has its options and the length and CRC of its payload.
    let head = [5; 24];
    let header = encode_frame(7, &head, 1024);
    let mut group = criterion.benchmark_group("frame");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| encode_frame(black_box(7), &head, 1024));
    });
    group.bench_function("verify", |bencher| {
        bencher.iter(|| assert!(verify_frame(black_box(&header), &head, 1 << 20).is_some()));
    });
    group.finish();
}

criterion_group!(benches, entries, frames);
criterion_main!(benches);

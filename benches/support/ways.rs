//! The same appends to files that were made in several ways.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId};

/// Measures appends of one size each way, and says which way is not possible here. `append` gives the time that counts.
pub(crate) fn bench_ways<W: Debug + Copy, T>(
    bench: &mut BenchmarkGroup<'_, WallTime>,
    size: impl ToString,
    ways: &[W],
    open: impl Fn(W) -> io::Result<T>,
    append: impl Fn(&mut T) -> io::Result<Duration>,
) {
    for &way in ways {
        let mut target = match open(way) {
            Ok(target) => target,
            Err(error) => {
                eprintln!("{way:?} is not possible here: {error}");
                continue;
            }
        };
        let id = BenchmarkId::new(format!("{way:?}"), size.to_string());
        bench.bench_function(id, |bencher| {
            bencher.iter_custom(|times| {
                let one = |_| append(&mut target).expect("it can be written");
                (0..times).map(one).sum()
            });
        });
    }
}

//! Latencies: recorded in microseconds with three digits, reported as percentiles.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Longest latency that is told apart, in microseconds; longer ones count as this.
const LONGEST_US: u64 = 600_000_000;

/// Recorders do not wait for each other unless they share a part.
const PARTS: usize = 16;

/// Points of a curve between each quantile and the one half as far from the longest.
const CURVE_POINTS: u32 = 4;

/// Takes latencies from many tasks at once.
pub(crate) struct LatencyRecorder {
    parts: Vec<Mutex<Histogram<u64>>>,
}

/// What is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl LatencyRecorder {
    /// An empty one.
    ///
    /// # Errors
    /// None in practice; the histogram's bounds are constants.
    pub(crate) fn new() -> Result<Self> {
        let part = || Histogram::new_with_bounds(1, LONGEST_US, 3).map(Mutex::new);
        let parts = (0..PARTS).map(|_| part()).collect::<std::result::Result<_, _>>();
        Ok(Self { parts: parts.map_err(|error| Failure::failed(format!("histogram: {error}")))? })
    }

    /// Counts one latency, measured by task number `task`.
    pub(crate) fn record(&self, task: usize, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        if let Some(Ok(mut part)) = self.parts.get(task % PARTS).map(Mutex::lock) {
            part.saturating_record(micros);
        }
    }

    fn all(&self) -> Option<Histogram<u64>> {
        let mut parts = self.parts.iter().filter_map(|part| part.lock().ok());
        let first = parts.next()?;
        let mut all = first.clone();
        drop(first);
        for part in parts {
            // All parts have the same bounds, so adding cannot fail.
            let _ = all.add(&*part);
        }
        Some(all)
    }

    /// Quantiles, closer to each other towards the longest, and their latencies in microseconds.
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        let Some(all) = self.all().filter(|all| !all.is_empty()) else { return Vec::new() };
        let points =
            all.iter_quantiles(CURVE_POINTS).map(|at| (at.quantile(), at.value_iterated_to()));
        points.take_while(|(quantile, _)| *quantile < 1.0).collect()
    }

    /// What was recorded so far.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let Some(all) = self.all() else { return Percentiles::default() };
        Percentiles {
            count: all.len(),
            p50_us: all.value_at_quantile(0.5),
            p99_us: all.value_at_quantile(0.99),
            p999_us: all.value_at_quantile(0.999),
            max_us: all.max(),
        }
    }
}

/// Microseconds for people: `870 us`, `4.21 ms`, `1.30 s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_cover_what_all_tasks_recorded() {
        let recorder = LatencyRecorder::new().expect("recorder");
        for us in 1..=1000_u64 {
            recorder.record(us as usize, Duration::from_micros(us));
        }
        let found = recorder.percentiles();
        assert_eq!(found.count, 1000);
        for (found, wanted) in
            [(found.p50_us, 500), (found.p99_us, 990), (found.p999_us, 999), (found.max_us, 1000)]
        {
            assert!(found.abs_diff(wanted) <= 1, "{found} for {wanted}");
        }
    }

    #[test]
    fn a_latency_beyond_the_bound_still_counts() {
        let recorder = LatencyRecorder::new().expect("recorder");
        recorder.record(0, Duration::from_secs(3600));
        assert_eq!(recorder.percentiles().count, 1);
        assert!(recorder.percentiles().max_us >= LONGEST_US);
    }

    #[test]
    fn nothing_recorded_reports_zeros() {
        let recorder = LatencyRecorder::new().expect("recorder");
        assert_eq!(recorder.percentiles(), Percentiles::default());
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        assert_eq!(micros(870), "870 us");
        assert_eq!(micros(4210), "4.21 ms");
        assert_eq!(micros(1_300_000), "1.30 s");
    }
}

//! Every append of a round by the moment of its acknowledgement, for a picture of a failover.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Recorders do not wait for each other unless they share a part.
const PARTS: usize = 16;
/// Most appends that are kept; later ones are left out.
const APPENDS_MAX: usize = 8_000_000;

/// Takes appends from many tasks at once.
pub(super) struct Timeline {
    parts: Vec<Mutex<Vec<Acknowledged>>>,
}

/// One append.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    /// Milliseconds since the begin.
    at_ms: u32,
    latency_us: u32,
}

/// The appends that ended in one span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Span {
    /// Its begin, in seconds.
    pub(super) at: f64,
    pub(super) appends_s: f64,
    pub(super) p50_us: u32,
    pub(super) max_us: u32,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::new(Vec::new())).collect() }
    }

    /// Takes an append, unless it ended before the round's `begin`, while the load warmed up.
    pub(super) fn acknowledged(&self, task: usize, begin: Instant, begun: Instant, ended: Instant) {
        if let Some(at) = ended.checked_duration_since(begin) {
            self.record(task, at, ended - begun);
        }
    }

    fn record(&self, task: usize, at: Duration, latency: Duration) {
        let at_ms = u32::try_from(at.as_millis()).unwrap_or(u32::MAX);
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let part = self.parts[task % PARTS].lock();
        let mut part = part.unwrap_or_else(PoisonError::into_inner);
        if part.len() < APPENDS_MAX / PARTS {
            part.push(Acknowledged { at_ms, latency_us });
        }
    }

    /// Spans of this length that cover `duration`.
    pub(super) fn spans(&self, length: Duration, duration: Duration) -> Vec<Span> {
        let length_ms = length.as_millis().max(1) as u32;
        let count = duration.as_millis().div_ceil(u128::from(length_ms)) as usize;
        let mut latencies: Vec<Vec<u32>> = vec![Vec::new(); count];
        for part in &self.parts {
            for append in &*part.lock().unwrap_or_else(PoisonError::into_inner) {
                if let Some(span) = latencies.get_mut((append.at_ms / length_ms) as usize) {
                    span.push(append.latency_us);
                }
            }
        }
        let span = |(n, mut latencies): (usize, Vec<u32>)| {
            latencies.sort_unstable();
            Span {
                at: n as f64 * f64::from(length_ms) / 1e3,
                appends_s: latencies.len() as f64 * 1e3 / f64::from(length_ms),
                p50_us: latencies.get(latencies.len() / 2).copied().unwrap_or(0),
                max_us: latencies.last().copied().unwrap_or(0),
            }
        };
        latencies.into_iter().enumerate().map(span).collect()
    }

    /// Milliseconds from `at` until the first append that began after it was acknowledged.
    pub(super) fn first_after(&self, at: Duration) -> Option<u32> {
        let at_us = at.as_micros();
        let begun_after = |append: &&Acknowledged| {
            // The millisecond that it ended in is rounded down.
            u128::from(append.at_ms) * 1000 >= at_us + u128::from(append.latency_us)
        };
        let parts = self.parts.iter().filter_map(|part| {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.iter().filter(begun_after).map(|append| append.at_ms).min()
        });
        Some(parts.min()? - u32::try_from(at.as_millis()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_counted_in_the_span_in_which_they_ended() {
        let timeline = Timeline::new();
        let ms = Duration::from_millis;
        for (task, at) in [10, 20, 30, 40, 130].into_iter().enumerate() {
            timeline.record(task, ms(at), Duration::from_micros(at * 10));
        }
        let spans = timeline.spans(ms(50), ms(150));
        assert_eq!(spans.len(), 3);
        assert_eq!((spans[0].appends_s, spans[0].p50_us, spans[0].max_us), (80.0, 300, 400));
        assert_eq!(spans[1], Span { at: 0.05, ..Span::default() });
        assert_eq!(spans[2].appends_s, 20.0);
    }

    #[test]
    fn what_was_acknowledged_while_the_load_warmed_up_is_left_out() {
        let timeline = Timeline::new();
        let ms = Duration::from_millis;
        let begun = Instant::now();
        let begin = begun + ms(100);
        for ended in [99, 100, 120] {
            timeline.acknowledged(0, begin, begun, begun + ms(ended));
        }
        assert_eq!(timeline.spans(ms(50), ms(50))[0].appends_s, 40.0);
    }

    #[test]
    fn an_append_that_began_before_the_kill_does_not_end_the_outage() {
        let timeline = Timeline::new();
        let ms = Duration::from_millis;
        timeline.record(0, ms(900), ms(500));
        assert_eq!(timeline.first_after(ms(500)), None);
        timeline.record(1, ms(1200), ms(100));
        assert_eq!(timeline.first_after(ms(500)), Some(700));
    }
}

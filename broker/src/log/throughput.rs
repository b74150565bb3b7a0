//! How many messages a second a log takes and gives, over the times that RocketMQ's tools show.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::request::behind;
use crate::state::{Queue, Shared};

/// Over how long the rates are.
const WINDOWS: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];
/// How often the counts are noted.
const INTERVAL: Duration = Duration::from_secs(10);
/// As many as the longest time has, and one that lies behind it.
const SAMPLES_MAX: usize = 61;

/// Queues that are counted in one turn; a topic's are counted together.
const QUEUES_AT_ONCE: usize = 4096;

/// The counts at a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    put: u64,
    got: u64,
}

/// Messages a second over 10, 60 and 600 s, or for as long as there are counts.
pub(crate) type Rates = [f64; 3];

/// What went in and out. Messages that went in are counted by the queues.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    got: AtomicU64,
    samples: Mutex<VecDeque<Sample>>,
}

/// About how many messages a log's queues have numbered, while they number more.
pub(crate) async fn messages(shared: &Shared) -> u64 {
    let (mut messages, mut after) = (0, None::<String>);
    loop {
        let mut counted = 0;
        let last = {
            let state = shared.state();
            let mut topics = state.topics_from(behind(after.as_deref()));
            topics
                .find(|(_, topic)| {
                    messages += topic.queues().iter().map(Queue::max).sum::<u64>();
                    counted += 1 + topic.queues().len();
                    counted >= QUEUES_AT_ONCE
                })
                .map(|(name, _)| name.to_owned())
        };
        if last.is_none() {
            return messages;
        }
        after = last;
        tokio::task::yield_now().await;
    }
}

fn is_due(samples: &VecDeque<Sample>, now: Instant) -> bool {
    samples.back().is_none_or(|last| now.saturating_duration_since(last.at) >= INTERVAL)
}

impl Throughput {
    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts messages that a client was given.
    pub(crate) fn gave(&self, messages: usize) {
        self.got.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// True if it is time to note the counts.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        is_due(&self.samples(), now)
    }

    /// Notes the counts if that is due; `put` are all messages so far.
    pub(crate) fn note(&self, now: Instant, put: u64) {
        let mut samples = self.samples();
        if !is_due(&samples, now) {
            return;
        }
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(Sample { at: now, put, got: self.got.load(Ordering::Relaxed) });
    }

    /// How many messages a second were put and got.
    pub(crate) fn rates(&self, now: Instant, put: u64) -> (Rates, Rates) {
        let got = self.got.load(Ordering::Relaxed);
        let samples = self.samples();
        let over = |window: Duration, total: u64, count: fn(&Sample) -> u64| {
            let behind = |sample: &&Sample| now.saturating_duration_since(sample.at) >= window;
            let from = samples.iter().rev().find(behind).or(samples.front());
            let Some(from) = from else { return 0.0 };
            let seconds = now.saturating_duration_since(from.at).as_secs_f64();
            // Topics that are deleted take their count with them.
            let messages = total.saturating_sub(count(from)) as f64;
            if seconds > 0.0 { messages / seconds } else { 0.0 }
        };
        let put = WINDOWS.map(|window| over(window, put, |sample| sample.put));
        let got = WINDOWS.map(|window| over(window, got, |sample| sample.got));
        (put, got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_the_last_seconds_or_since_the_start() {
        let throughput = Throughput::default();
        let start = Instant::now();
        assert_eq!(throughput.rates(start, 5), ([0.0; 3], [0.0; 3]), "nothing is known yet");
        let mut put = 100;
        throughput.note(start, put);
        for second in 1..=1_000 {
            put += if second <= 995 { 2 } else { 0 };
            throughput.gave(3);
            throughput.note(start + Duration::from_secs(second), put);
        }
        let (put_rates, got_rates) = throughput.rates(start + Duration::from_secs(1_000), put);
        assert_eq!(put_rates, [1.0, 110.0 / 60.0, 1190.0 / 600.0]);
        assert_eq!(got_rates, [3.0; 3]);
        let held = throughput.samples.lock().expect("no panic").len();
        assert_eq!(held, SAMPLES_MAX, "no more than the longest time needs");
        // A topic was deleted.
        let (put_rates, _) = throughput.rates(start + Duration::from_secs(1_001), 10);
        assert_eq!(put_rates, [0.0; 3]);
    }

    #[test]
    fn a_young_log_is_measured_since_its_first_count() {
        let throughput = Throughput::default();
        let start = Instant::now();
        throughput.note(start, 0);
        let (put, got) = throughput.rates(start + Duration::from_secs(4), 8);
        assert_eq!((put, got), ([2.0; 3], [0.0; 3]));
    }
}

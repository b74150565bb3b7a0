//! When the appends of an open loop are due, and a thread that keeps to it.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::failure::{Failure, Result};

/// Appends that may be due before the load takes them; it counts from when they were due all the same.
const DUE_MAX: usize = 4096;

/// Evenly spaced moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    begin: Instant,
    per_second: u64,
}

impl Schedule {
    pub(super) fn new(begin: Instant, per_second: u64) -> Self {
        Self { begin, per_second: per_second.max(1) }
    }

    /// When number `n` is due.
    pub(super) fn due(&self, n: u64) -> Instant {
        let (seconds, rest) = (n / self.per_second, n % self.per_second);
        let nanos = u128::from(rest) * 1_000_000_000 / u128::from(self.per_second);
        self.begin + Duration::from_secs(seconds) + Duration::from_nanos(nanos as u64)
    }

    /// The first number that is due at `at` or later.
    pub(super) fn first_at(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.begin).as_nanos();
        let number = (nanos * u128::from(self.per_second)).div_ceil(1_000_000_000);
        u64::try_from(number).unwrap_or(u64::MAX)
    }
}

/// Gives the first `count` moments of a schedule, each when it has come. A separate thread, since the
/// runtime's timer rounds up to whole milliseconds, longer than an append takes. It ends with the receiver.
///
/// # Errors
/// The system gives no thread.
pub(super) fn keep(schedule: Schedule, count: u64) -> Result<mpsc::Receiver<Instant>> {
    let (sender, receiver) = mpsc::channel(DUE_MAX);
    let run = move || {
        // Without it the kernel may wake us 50 us late, which is measured too.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        for n in 0..count {
            let due = schedule.due(n);
            loop {
                let wait = due.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    break;
                }
                thread::park_timeout(wait);
            }
            if sender.blocking_send(due).is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("pace".to_owned()).spawn(run);
    started.map_err(|error| Failure::io("cannot start a thread", &error))?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_even_and_does_not_drift() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, 3);
        assert_eq!(schedule.due(0), begin);
        assert_eq!(schedule.due(3_000_000), begin + Duration::from_secs(1_000_000));
        assert_eq!(schedule.due(4) - begin, Duration::from_nanos(1_333_333_333));
        for n in 0..100 {
            assert_eq!(schedule.first_at(schedule.due(n) + Duration::from_nanos(1)), n + 1, "{n}");
        }
        assert_eq!(schedule.first_at(begin + Duration::from_secs(2)), 6);
    }

    #[tokio::test]
    async fn every_moment_is_given_once_and_none_before_it_has_come() {
        let schedule = Schedule::new(Instant::now(), 20_000);
        let mut due = keep(schedule, 1000).expect("thread");
        for n in 0..1000 {
            assert_eq!(due.recv().await, Some(schedule.due(n)));
            assert!(Instant::now() >= schedule.due(n), "{n}");
        }
        assert_eq!(due.recv().await, None);
    }
}

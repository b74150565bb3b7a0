//! The time that leases of locks go by.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The time that leases go by: milliseconds that leaders have led since the log's first lock, one after another. It is
/// in each request for locks, so that applying one reads no clock. It has nothing to do with wall clocks, except that
/// in a log of an older build it begins where theirs was.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    /// What it showed when this node last became leader.
    began: Mutex<Option<(i64, Instant)>>,
}

impl LeaseClock {
    /// This node leads now, and has applied all locks: the newest was taken at `newest_ms`.
    pub(crate) fn begin(&self, newest_ms: i64) {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        *began = Some((newest_ms, Instant::now()));
    }

    /// What it shows, on the leader.
    pub(crate) fn now_ms(&self) -> i64 {
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((newest_ms, at)) = *began else { return 0 };
        newest_ms.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leases_go_by_elapsed_time_and_a_new_leader_goes_on_where_the_last_lock_was_taken() {
        let clock = LeaseClock::default();
        clock.begin(7_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now_ms(), 12_000);
        let next = LeaseClock::default();
        next.begin(clock.now_ms());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(next.now_ms(), 13_000);
        next.begin(i64::MAX);
        assert_eq!(next.now_ms(), i64::MAX, "whatever an older build left");
    }
}

//! How long a connection may take for a frame, or for what is written to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// For a frame that has begun to come, and for the other end to take anything of what is written.
const LIMIT: Duration = Duration::from_secs(30);
/// While the node's budget is used up: so long, and as long as the bytes take at `RATE_MIN`.
const LIMIT_PRESSED: Duration = Duration::from_secs(1);
/// Bytes a second.
const RATE_MIN: usize = 1 << 20;
/// How often those who wait look at the time.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// A frame or a piece of output that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    since: Instant,
}

impl Patience {
    pub(super) fn begin() -> Self {
        Self { since: Instant::now() }
    }

    /// True once it took too long in any case.
    pub(super) fn is_over(self) -> bool {
        self.since.elapsed() > LIMIT
    }

    /// True once `bytes` took too long for one that others wait for.
    pub(super) fn is_slow(self, bytes: usize) -> bool {
        let paced = Duration::from_millis((bytes / (RATE_MIN / 1000)) as u64);
        self.since.elapsed() > LIMIT_PRESSED + paced
    }
}

/// When a connection last brought or took a byte.
#[derive(Debug)]
pub(crate) struct Activity {
    begin: Instant,
    last_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { begin: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Activity {
    /// Now.
    pub(super) fn note(&self) {
        let elapsed = self.begin.elapsed().as_millis();
        self.last_ms.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Resolves once neither end has sent a byte for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let last = self.last();
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

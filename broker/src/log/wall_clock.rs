//! What the machine takes for the time of day.

use std::io;
use std::sync::Arc;

use quorumlog::seam::Clock;

/// The wall clock. It may be wrong, and it may jump in either direction: whatever waits or expires goes by elapsed time, and
/// by this only as a hint.
#[derive(Debug, Clone)]
pub(crate) struct WallClock(Arc<dyn Clock>);

impl WallClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(clock)
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.0.now_ms()).unwrap_or(i64::MAX)
    }

    /// A random number that nobody else draws.
    pub(crate) fn random(&self) -> io::Result<u128> {
        self.0.random()
    }
}

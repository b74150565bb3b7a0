//! How long operations take.

use std::time::Duration;

use super::fault::OpKind;
use super::random::Random;

/// How long operations take. None take any time by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// A flush, of a file or directory, takes at least this.
    pub flush: Duration,
    /// And up to so much more.
    pub jitter: Duration,
    /// Any operation that moves bytes takes so much for each KiB.
    pub per_kib: Duration,
    /// Of a million flushes, so many are slow.
    pub slow_per_million: u32,
    /// What a slow one takes instead.
    pub slow: Duration,
}

impl Latency {
    /// The time, and whether it is a slow one's.
    pub(super) fn draw(&self, kind: OpKind, bytes: u64, random: &mut Random) -> (Duration, bool) {
        let moving =
            self.per_kib.saturating_mul(u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX));
        if !matches!(kind, OpKind::Flush | OpKind::SyncDir) {
            return (moving, false);
        }
        if self.slow_per_million > 0 && random.per_million(self.slow_per_million) {
            return (self.slow, true);
        }
        let jitter = match u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX) {
            0 => Duration::ZERO,
            nanos => Duration::from_nanos(random.next() % nanos),
        };
        (self.flush.saturating_add(jitter).saturating_add(moving), false)
    }
}

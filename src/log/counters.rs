//! What the writers count, for metrics.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Told about every flush, by the writer thread. Must not block, save when the log has failed.
pub(crate) trait WriterObserver: Debug + Send + Sync {
    /// A flush of `entries` entries of together `bytes` bytes took `duration`.
    fn flushed(&self, duration: Duration, entries: u64, bytes: u64);
    /// A write or a flush has failed, also the one of what an earlier run left: the log takes nothing any more. Nobody was told
    /// yet. May be called more than once.
    fn failed(&self) {}
}

/// Counts since the log was opened. They only grow.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    pub(super) groups: Counter,
    pub(super) entries: Counter,
    pub(super) bytes: Counter,
    pub(super) flushes: Counter,
    pub(super) flush_nanos: Counter,
    pub(super) wakeups: Counter,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "counts are for metrics"))]
pub(crate) struct LogCounts {
    /// Groups written; one write each.
    pub(crate) groups: u64,
    /// Entries written.
    pub(crate) entries: u64,
    /// Bytes of entries written, headers included.
    pub(crate) bytes: u64,
    /// Flushes of segments.
    pub(crate) flushes: u64,
    /// Time spent in them.
    pub(crate) flush_nanos: u64,
    /// Times that the writer turned to this log.
    pub(crate) wakeups: u64,
}

impl LogCounters {
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "counts are for metrics"))]
    pub(super) fn read(&self) -> LogCounts {
        LogCounts {
            groups: self.groups.get(),
            entries: self.entries.get(),
            bytes: self.bytes.get(),
            flushes: self.flushes.get(),
            flush_nanos: self.flush_nanos.get(),
            wakeups: self.wakeups.get(),
        }
    }
}

/// A number that one thread adds to and any may read.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "counts are for metrics"))]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

//! What the writers count, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the log was opened. They only grow.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    pub(in crate::log) groups: Counter,
    pub(in crate::log) entries: Counter,
    pub(in crate::log) bytes: Counter,
    pub(in crate::log) flushes: Counter,
    pub(in crate::log) flush_nanos: Counter,
    pub(in crate::log) wakeups: Counter,
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
    pub(in crate::log) fn read(&self) -> LogCounts {
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
pub(in crate::log) struct Counter(AtomicU64);

impl Counter {
    pub(in crate::log) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "counts are for metrics"))]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

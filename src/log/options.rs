//! How one log behaves, and who is told about it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Flush, LogId};
use crate::seam::Clock;

/// How one log behaves.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) log_id: LogId,
    pub(crate) flush: Flush,
    pub(crate) flush_interval: Duration,
    pub(crate) segment_size: u64,
    pub(crate) tail_cache_max: u64,
    /// It may have lost what it had acknowledged, or contradicts a leader's history: of what is written about it, only
    /// what it holds itself is believed.
    pub(crate) at_stable: bool,
    /// With less free space than this, logs allocate in small steps, since they share the rest. 0: do not look.
    pub(crate) disk_reserve: u64,
    /// Stamps segments, and gives them numbers by which stale bytes are told apart.
    pub(crate) clock: Arc<dyn Clock>,
    /// Told about flushes.
    pub(crate) observer: Option<Arc<dyn WriterObserver>>,
}

/// Told about every flush, by the writer thread. Must not block, save when the log has failed.
pub(crate) trait WriterObserver: Debug + Send + Sync {
    /// A flush of `entries` entries of together `bytes` bytes took `duration`.
    fn flushed(&self, duration: Duration, entries: u64, bytes: u64);
    /// A write or a flush has failed, also the one of what an earlier run left: the log takes nothing any more. Nobody was told
    /// yet. May be called more than once.
    fn failed(&self) {}
}

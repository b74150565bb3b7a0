//! What a group records about itself, through the `metrics` facade (feature `metrics`). Without the
//! feature, or without a recorder in the process, it costs nothing.

use std::time::Duration;

use crate::error::AppendError;
use crate::log::WriterObserver;
#[cfg(feature = "metrics")]
use crate::record::LogName;

/// When something began; empty without the feature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    #[cfg(feature = "metrics")]
    at: tokio::time::Instant,
}

impl Started {
    pub(crate) fn now() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            at: tokio::time::Instant::now(),
        }
    }
}

/// Handles to one log's metrics, looked up once.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub(crate) struct GroupMetrics {
    log: String,
    append: metrics::Histogram,
    commit: metrics::Histogram,
    apply: metrics::Histogram,
    fsync: metrics::Histogram,
    group_entries: metrics::Histogram,
    written_bytes: metrics::Counter,
    acknowledged: metrics::Counter,
}

#[cfg(feature = "metrics")]
impl GroupMetrics {
    pub(crate) fn new(log: &LogName) -> Self {
        let log = log.to_string();
        Self {
            append: metrics::histogram!("quorumlog_append_duration_seconds", "log" => log.clone()),
            commit: metrics::histogram!("quorumlog_commit_duration_seconds", "log" => log.clone()),
            apply: metrics::histogram!("quorumlog_apply_duration_seconds", "log" => log.clone()),
            fsync: metrics::histogram!("quorumlog_fsync_duration_seconds", "log" => log.clone()),
            group_entries: metrics::histogram!("quorumlog_group_entries", "log" => log.clone()),
            written_bytes: metrics::counter!("quorumlog_written_bytes_total", "log" => log.clone()),
            acknowledged: metrics::counter!("quorumlog_acknowledged_total", "log" => log.clone()),
            log,
        }
    }

    /// From submission to the log until it is durable here.
    pub(crate) fn appended(&self, started: Started) {
        self.append.record(started.at.elapsed());
    }

    /// From admission until the commit was told.
    pub(crate) fn committed(&self, started: Started) {
        self.commit.record(started.at.elapsed());
        self.acknowledged.increment(1);
    }

    pub(crate) fn failed(&self, error: &AppendError) {
        let labels = [("log", self.log.clone()), ("reason", reason(error).to_owned())];
        metrics::counter!("quorumlog_append_errors_total", &labels).increment(1);
    }

    pub(crate) fn applied(&self, started: Started) {
        self.apply.record(started.at.elapsed());
    }
}

#[cfg(feature = "metrics")]
impl WriterObserver for GroupMetrics {
    fn flushed(&self, duration: Duration, entries: u64, bytes: u64) {
        self.fsync.record(duration);
        // A count of entries is exact in an f64 far beyond the size of a group.
        #[allow(clippy::cast_precision_loss)]
        self.group_entries.record(entries as f64);
        self.written_bytes.increment(bytes);
    }
}

#[cfg(feature = "metrics")]
fn reason(error: &AppendError) -> &'static str {
    match error {
        AppendError::NotLeader { .. } => "not_leader",
        AppendError::NoQuorum => "no_quorum",
        AppendError::LeadershipLost { .. } => "leadership_lost",
        AppendError::Storage(_) => "storage",
        _ => "interrupted",
    }
}

/// Stands in without the feature.
#[cfg(not(feature = "metrics"))]
#[derive(Debug)]
pub(crate) struct GroupMetrics;

#[cfg(not(feature = "metrics"))]
impl GroupMetrics {
    pub(crate) fn new(_log: &crate::record::LogName) -> Self {
        Self
    }
    pub(crate) fn appended(&self, _started: Started) {}
    pub(crate) fn committed(&self, _started: Started) {}
    pub(crate) fn failed(&self, _error: &AppendError) {}
    pub(crate) fn applied(&self, _started: Started) {}
}

#[cfg(not(feature = "metrics"))]
impl WriterObserver for GroupMetrics {
    fn flushed(&self, _duration: Duration, _entries: u64, _bytes: u64) {}
}

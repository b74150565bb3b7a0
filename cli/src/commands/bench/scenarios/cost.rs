//! What a node cost while it was watched.

use serde::Serialize;

use crate::proc::ProcessSample;

/// A node's use of the machine.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    /// Of one core.
    cpu_percent: f64,
    wakeups_s: f64,
    /// In the end.
    rss_anon_mib: f64,
}

impl Cost {
    /// The headings of its cells.
    pub(super) const HEADINGS: [&str; 3] = ["cpu %", "wakeups/s", "anon MiB"];

    /// From one look at its process to the next.
    pub(super) fn between(before: &ProcessSample, after: &ProcessSample, seconds: f64) -> Self {
        let cost = after.since(before);
        Self {
            cpu_percent: cost.cpu_us as f64 / 1e4 / seconds,
            wakeups_s: cost.voluntary_switches as f64 / seconds,
            rss_anon_mib: after.rss_anon_bytes as f64 / f64::from(1 << 20),
        }
    }

    /// As in a table.
    pub(super) fn cells(&self) -> [String; 3] {
        [
            format!("{:.2}", self.cpu_percent),
            format!("{:.0}", self.wakeups_s),
            format!("{:.1}", self.rss_anon_mib),
        ]
    }
}

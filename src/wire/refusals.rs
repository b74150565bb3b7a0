//! Messages about connections that were refused or broke: others dial again and again.

use crate::repeated::Repeated;

/// Which of them were logged lately.
#[derive(Debug, Default)]
pub(super) struct Refusals(Repeated);

impl Refusals {
    /// Logs a connection that was refused.
    pub(super) fn log(&self, remote: &str, reason: &str) {
        self.warn("connection refused", remote, reason);
    }

    /// Logs a connection that this end closed, or that broke.
    pub(super) fn log_closed(&self, remote: &str, reason: &str) {
        self.warn("connection closed", remote, reason);
    }

    /// As a warning at most once a minute for each host and reason.
    fn warn(&self, what: &str, remote: &str, reason: &str) {
        if self.is_due(remote, reason) {
            tracing::warn!(remote, reason, "{what}; repetitions within a minute are not logged");
        } else {
            tracing::debug!(remote, reason, "{what}");
        }
    }

    fn is_due(&self, remote: &str, reason: &str) -> bool {
        // Each connection comes from another port.
        let host = remote.rsplit_once(':').map_or(remote, |(host, _)| host);
        self.0.is_due(&format!("{host} {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_logged_once_a_minute_for_each_host_and_reason() {
        let refusals = Refusals::default();
        assert!(refusals.is_due("10.0.0.1:5000", "other version"));
        assert!(!refusals.is_due("10.0.0.1:5001", "other version"));
        assert!(refusals.is_due("10.0.0.1:5001", "no hello in time"));
        assert!(refusals.is_due("10.0.0.2:5001", "other version"));
    }
}

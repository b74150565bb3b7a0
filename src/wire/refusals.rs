//! Messages about refused connections: others dial again and again, and one message a minute says enough.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Pause between two warnings about the same.
const PAUSE: Duration = Duration::from_secs(60);
/// Hosts and reasons that are remembered. Beyond them nothing is logged as a warning until some are old.
const REMEMBERED_MAX: usize = 256;

/// Which refusals were logged lately.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<(String, String), Instant>>);

impl Refusals {
    /// Logs a refused connection: as a warning at most once a minute for each host and reason.
    pub(super) fn log(&self, remote: &str, reason: &str) {
        if self.is_due(remote, reason) {
            tracing::warn!(
                remote,
                reason,
                "connection refused; repetitions within a minute are not logged"
            );
        } else {
            tracing::debug!(remote, reason, "connection refused");
        }
    }

    fn is_due(&self, remote: &str, reason: &str) -> bool {
        // Each connection comes from another port.
        let host = remote.rsplit_once(':').map_or(remote, |(host, _)| host);
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| at.elapsed() < PAUSE);
        let about = (host.to_owned(), reason.to_owned());
        if logged.len() >= REMEMBERED_MAX || logged.contains_key(&about) {
            return false;
        }
        logged.insert(about, Instant::now());
        true
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
        tokio::time::advance(PAUSE).await;
        assert!(refusals.is_due("10.0.0.1:5002", "other version"));
        for host in 0..2 * REMEMBERED_MAX {
            refusals.is_due(&format!("host{host}:1"), "other version");
        }
        assert_eq!(refusals.0.lock().expect("no panic holds it").len(), REMEMBERED_MAX);
    }
}

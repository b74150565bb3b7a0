//! What is counted (feature `metrics`).

use quorumlog::repeated::Repeated;

/// Requests that the leader took, by their code. Those that we do not serve share one, or a client could make any number.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Made with the first request of a code: to look one up by its labels takes as long as to read a request.
    #[cfg(feature = "metrics")]
    counters: std::sync::Mutex<std::collections::BTreeMap<i32, metrics::Counter>>,
}

impl Requests {
    /// Counts one.
    pub(crate) fn count(&self, log: &str, code: i32) {
        #[cfg(feature = "metrics")]
        {
            let code = if (0..1000).contains(&code) { code } else { -1 };
            let mut counters =
                self.counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let counter = counters.entry(code).or_insert_with(|| {
                let code = if code < 0 { "other".to_owned() } else { code.to_string() };
                let labels = [("log", log.to_owned()), ("code", code)];
                metrics::counter!("quorumlog_broker_requests_total", &labels)
            });
            counter.increment(1);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (log, code);
    }
}

/// Consumed offsets that were reported and cannot be noted.
pub(crate) fn offsets_refused(log: &str, count: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("quorumlog_broker_offsets_refused_total", "log" => log.to_owned())
        .increment(count as u64);
    #[cfg(not(feature = "metrics"))]
    let _ = (log, count);
}

/// A request with a code that we do not serve.
pub(crate) fn not_served(log: &str, code: i32, logged: &Repeated) {
    if logged.is_due(&code.to_string()) {
        tracing::info!(
            log,
            code,
            "a request with a code that is not served; repetitions within a minute are not logged"
        );
    }
    #[cfg(feature = "metrics")]
    {
        let counter =
            metrics::counter!("quorumlog_broker_unknown_requests_total", "log" => log.to_owned());
        counter.increment(1);
    }
}

/// Why a delayed message does not come where it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// Its topic is gone: it is a dead letter.
    NoTopic,
    /// Its topic has fewer queues now: it is where nobody reads until the topic has as many again.
    NoQueue,
    /// Its topic does not have its queue any more, and there is no room for another queue: it is a dead letter.
    NoRoom,
    /// It does not say where it was sent: it is a dead letter.
    Unreadable,
    /// Retention removed it before it was delivered: it is lost.
    Trimmed,
}

impl Undelivered {
    fn reason(self) -> &'static str {
        match self {
            Self::NoTopic => "no_topic",
            Self::NoQueue => "no_queue",
            Self::NoRoom => "no_room",
            Self::Unreadable => "unreadable",
            Self::Trimmed => "trimmed",
        }
    }
}

/// So many delayed messages did not come where they were sent.
pub(crate) fn undelivered(log: &str, why: Undelivered, count: u64) {
    let reason = why.reason();
    if why == Undelivered::Trimmed {
        tracing::warn!(log, count, "retention removed delayed messages before they were delivered");
    } else {
        tracing::info!(log, reason, count, "delayed messages do not come where they were sent");
    }
    #[cfg(feature = "metrics")]
    {
        let labels = [("log", log.to_owned()), ("reason", reason.to_owned())];
        metrics::counter!("quorumlog_broker_undelivered_total", &labels).increment(count);
    }
}

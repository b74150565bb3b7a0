//! What is counted (feature `metrics`).

/// Requests that the leader took, by their code. Those that we do not serve share one, or a client could make any number.
pub(super) fn requested(log: &str, code: i32) {
    #[cfg(feature = "metrics")]
    {
        let code = if (0..1000).contains(&code) { code.to_string() } else { "other".to_owned() };
        let labels = [("log", log.to_owned()), ("code", code)];
        metrics::counter!("quorumlog_broker_requests_total", &labels).increment(1);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (log, code);
}

/// A request with a code that we do not serve.
pub(super) fn not_served(log: &str, code: i32) {
    tracing::info!(log, code, "a request with a code that is not served");
    #[cfg(feature = "metrics")]
    {
        let counter =
            metrics::counter!("quorumlog_broker_unknown_requests_total", "log" => log.to_owned());
        counter.increment(1);
    }
}

//! The flushes that a node counted, from its metrics in Prometheus form.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const ANSWER_MAX: u64 = 8 << 20;

/// Flushes of all logs of the node whose HTTP listens there; none if it does not tell.
pub(super) async fn flushes(addr: &str) -> Option<u64> {
    flushes_in(&timeout(PATIENCE, get(addr)).await.ok()?.ok()?)
}

/// The same from the text of the metrics.
pub(super) fn flushes_in(metrics: &str) -> Option<u64> {
    sum(metrics, "quorumlog_flushes_total")
}

async fn get(addr: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Sum of a metric over its labels.
fn sum(metrics: &str, name: &str) -> Option<u64> {
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.rsplit(' ').next()?.parse().ok()
    };
    let mut values = metrics.lines().filter_map(value).peekable();
    values.peek()?;
    Some(values.sum::<f64>() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_mixed_with_others() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE quorumlog_flushes_total counter\n\
                    quorumlog_flushes_total{log=\"a b\"} 7\nquorumlog_flushes_total{log=\"_\"} 5\n\
                    quorumlog_flushes_total_more{log=\"a\"} 100\nquorumlog_term 3\n";
        assert_eq!(flushes_in(text), Some(12));
        assert_eq!(flushes_in("quorumlog_term 3"), None);
    }
}

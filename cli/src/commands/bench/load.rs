//! One round: clients that each append, wait for the acknowledgement, and append again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorumlog::client::ClientLog;
use quorumlog::{AppendError, AppendOptions, Flush, NodeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::{Failure, Result};
use crate::latency::{LatencyRecorder, Percentiles};
use crate::proc::ProcessSample;
use crate::progress::Progress;

/// Wait of a client after an append that failed, so that a dead cluster is not hammered.
const BACKOFF: Duration = Duration::from_millis(20);

/// What one round does.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) clients: u32,
    pub(super) size: usize,
    pub(super) flush: Flush,
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
}

/// What one round found.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    pub(super) latency: Percentiles,
    pub(super) errors: u64,
    pub(super) took: Duration,
    /// Of each node, at the begin and at the end of the measurement.
    pub(super) nodes: Vec<(NodeId, ProcessSample, ProcessSample)>,
}

struct Shared {
    payload: Bytes,
    options: AppendOptions,
    /// Appends that end from here on and before `end` are measured.
    begin: Instant,
    end: Instant,
    latencies: LatencyRecorder,
    errors: AtomicU64,
}

/// Runs a round. `sample` looks at the nodes.
pub(super) async fn run(
    round: &Round,
    logs: &[ClientLog],
    sample: impl Fn() -> Vec<(NodeId, ProcessSample)>,
) -> Result<Measured> {
    let begin = Instant::now() + round.warmup;
    let shared = Arc::new(Shared {
        payload: payload(round.size),
        options: match round.flush {
            Flush::Sync => AppendOptions::sync(),
            Flush::Async => AppendOptions::default(),
        },
        begin,
        end: begin + round.duration,
        latencies: LatencyRecorder::new()?,
        errors: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for (client, log) in (0..round.clients as usize).zip(logs.iter().cycle()) {
        tasks.spawn(client_loop(client, log.clone(), Arc::clone(&shared)));
    }
    if tasks.is_empty() {
        return Err(Failure::failed("there is no log to append to"));
    }
    sleep_until(begin).await;
    let before = sample();
    wait(begin, round.duration).await;
    let after = sample();
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Failure::failed(format!("a client of the load: {error}")))??;
    }
    let pair = |(id, before): (NodeId, ProcessSample)| {
        let (_, after) = after.iter().find(|(node, _)| *node == id)?;
        Some((id, before, *after))
    };
    Ok(Measured {
        latency: shared.latencies.percentiles(),
        errors: shared.errors.load(Ordering::Relaxed),
        took: round.duration,
        nodes: before.into_iter().filter_map(pair).collect(),
    })
}

async fn wait(begin: Instant, duration: Duration) {
    let progress = Progress::seconds(duration);
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    while begin.elapsed() < duration {
        tokio::select! {
            _ = ticks.tick() => progress.set(begin.elapsed().as_secs()),
            () = sleep_until(begin + duration) => {}
        }
    }
    progress.clear();
}

async fn client_loop(client: usize, log: ClientLog, shared: Arc<Shared>) -> Result {
    loop {
        let begun = Instant::now();
        if begun >= shared.end {
            return Ok(());
        }
        let result = log.append_with(shared.payload.clone(), shared.options).await;
        let ended = Instant::now();
        let measured = ended >= shared.begin && ended < shared.end;
        match result {
            Ok(_) if measured => shared.latencies.record(client, ended - begun),
            Ok(_) => {}
            Err(error) if never_works(&error) => return Err(error.into()),
            Err(error) => {
                tracing::info!(%error, client, "append failed");
                if ended >= shared.begin {
                    shared.errors.fetch_add(1, Ordering::Relaxed);
                }
                sleep(BACKOFF).await;
            }
        }
    }
}

/// Errors that every further append would meet too.
fn never_works(error: &AppendError) -> bool {
    matches!(error, AppendError::TooLarge { .. } | AppendError::UnknownLog { .. })
}

/// Bytes that do not compress.
fn payload(size: usize) -> Bytes {
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_size_and_do_not_repeat_a_byte() {
        assert!(payload(0).is_empty());
        let payload = payload(1024);
        assert_eq!(payload.len(), 1024);
        let mut seen = [0; 256];
        payload.iter().for_each(|byte| seen[usize::from(*byte)] += 1);
        assert!(seen.iter().all(|count| *count < 20), "{seen:?}");
    }

    #[test]
    fn only_errors_that_no_retry_mends_end_the_load() {
        assert!(never_works(&AppendError::UnknownLog { name: "x".to_owned() }));
        assert!(!never_works(&AppendError::NoQuorum));
    }
}

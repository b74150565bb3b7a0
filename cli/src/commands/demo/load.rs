//! Appends all records, each by one of many tasks with one append outstanding.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorumlog::client::ClientLog;
use quorumlog::{AppendError, Outcome};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::failure::{Failure, Result};
use crate::latency::{LatencyRecorder, Percentiles};
use crate::progress::Progress;

use super::ledger::Ledger;
use super::records::Records;

/// How long one record may take with all its retries.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Wait before a retry of an append that did not happen.
const BACKOFF: Duration = Duration::from_millis(10);

/// How the appends ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Appends begun, repeated ones included.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// Appends without an acknowledgement that may have happened; each was repeated.
    pub(super) unknown: u64,
    /// Appends that certainly did not happen; each was repeated.
    pub(super) refused: u64,
}

/// State shared by the tasks.
pub(super) struct Load {
    log: ClientLog,
    records: Records,
    next: AtomicU64,
    sent: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    ledger: Mutex<Ledger>,
    latencies: LatencyRecorder,
    progress: Progress,
    /// Records acknowledged.
    acknowledged: watch::Sender<u64>,
    /// Term of the leader that was killed. The last quarter of the records waits for it, so that
    /// there is something left for the new leader.
    killed_term: watch::Sender<Option<u64>>,
    /// The first acknowledgement of a later term.
    taken_over: watch::Sender<Option<(Instant, u64)>>,
}

impl Load {
    pub(super) fn new(log: ClientLog, records: Records, progress: Progress) -> Result<Self> {
        Ok(Self {
            ledger: Mutex::new(Ledger::new(records.len())),
            log,
            records,
            next: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            latencies: LatencyRecorder::new()?,
            progress,
            acknowledged: watch::Sender::new(0),
            killed_term: watch::Sender::new(None),
            taken_over: watch::Sender::new(None),
        })
    }

    /// Starts the tasks. Dropping the set ends them.
    pub(super) fn start(self: &Arc<Self>, tasks: u32) -> JoinSet<Result> {
        (0..tasks as usize).map(|task| Arc::clone(self).work(task)).collect()
    }

    pub(super) fn total(&self) -> u64 {
        self.records.len()
    }

    pub(super) fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits until that many records are acknowledged.
    pub(super) async fn reached(&self, count: u64) {
        // The sender is ours, so the channel cannot close.
        let _ = self.acknowledged.subscribe().wait_for(|acknowledged| *acknowledged >= count).await;
    }

    /// Notes that the leader of this term is dead.
    pub(super) fn leader_killed(&self, term: u64) {
        self.killed_term.send_replace(Some(term));
    }

    /// Waits for the first acknowledgement by a leader after the killed one: when, and its term.
    pub(super) async fn new_leader(&self) -> (Instant, u64) {
        let mut taken_over = self.taken_over.subscribe();
        match taken_over.wait_for(Option::is_some).await.map(|found| *found) {
            Ok(Some(found)) => found,
            // The sender is ours, so the channel cannot close.
            _ => std::future::pending().await,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.load(Ordering::Relaxed),
            acknowledged: self.acknowledged(),
            unknown: self.unknown.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        self.latencies.percentiles()
    }

    /// The ledger. Complete once the tasks have ended.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A poisoned ledger belongs to a task that panicked, and `join` reports that.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(self: Arc<Self>, task: usize) -> Result {
        let gate = self.total() - self.total() / 4;
        loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            if id >= self.total() {
                return Ok(());
            }
            if id > gate {
                let _ = self.killed_term.subscribe().wait_for(Option::is_some).await;
            }
            self.append(task, id).await?;
        }
    }

    /// Appends one record until it is acknowledged.
    async fn append(&self, task: usize, id: u64) -> Result {
        let payload = self.records.payload(id);
        let crc = crc32fast::hash(&payload);
        let begun = Instant::now();
        loop {
            let floor = self.ledger().begin(id, crc);
            self.sent.fetch_add(1, Ordering::Relaxed);
            let error = match self.log.append(payload.clone()).await {
                Ok(appended) => {
                    self.latencies.record(task, begun.elapsed());
                    self.ledger().acknowledge(id, appended.index, appended.term, floor);
                    self.note_term(appended.term);
                    self.acknowledged.send_modify(|count| *count += 1);
                    self.progress.add(1);
                    return Ok(());
                }
                Err(error) => error,
            };
            self.failed(id, &error)?;
            if begun.elapsed() > GIVE_UP {
                let failure = Failure::from(error);
                return Err(failure.while_doing(format_args!("record {id} for {GIVE_UP:?}")));
            }
            sleep(BACKOFF).await;
        }
    }

    fn failed(&self, id: u64, error: &AppendError) -> Result {
        match error.outcome() {
            Outcome::Unknown => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                self.ledger().unknown(id);
                Ok(())
            }
            Outcome::NotAppended if error.is_retryable() => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Outcome::NotAppended => {
                Err(Failure::from(error.clone()).while_doing(format_args!("record {id}")))
            }
        }
    }

    fn note_term(&self, term: u64) {
        if self.killed_term.borrow().is_some_and(|killed| term > killed) {
            self.taken_over.send_if_modified(|found| {
                let first = found.is_none();
                if first {
                    *found = Some((Instant::now(), term));
                }
                first
            });
        }
    }
}

/// Waits for the first task that fails; for ever if none does.
pub(super) async fn first_failure(tasks: &mut JoinSet<Result>) -> Failure {
    loop {
        match tasks.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(failure))) => return failure,
            Some(Err(error)) => return Failure::failed(format!("a task of the load: {error}")),
            None => return std::future::pending().await,
        }
    }
}

/// Waits for all tasks.
///
/// # Errors
/// One failed.
pub(super) async fn join(tasks: &mut JoinSet<Result>) -> Result {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Failure::failed(format!("a task of the load: {error}")))??;
    }
    Ok(())
}

//! Appends that go on whatever happens to the nodes, and are all looked for in the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorumlog::Outcome;
use quorumlog::client::ClientLog;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::commands::demo::check::{Findings, Held, check};
use crate::commands::demo::ledger::Ledger;
use crate::commands::demo::records::numbered;
use crate::commands::read::read_all;
use crate::failure::{Failure, Result};
use crate::latency::{LatencyRecorder, Percentiles};

/// Wait of a client between two appends, which bounds what has to be kept and read back.
const PAUSE: Duration = Duration::from_millis(4);

/// The clients and what they know.
pub(super) struct Audit {
    log: ClientLog,
    filler: Bytes,
    next: AtomicU64,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    ledger: Mutex<Ledger>,
    latencies: LatencyRecorder,
    /// The moment that an append has to begin after, and when the first such append was acknowledged.
    outage: watch::Sender<Option<(Instant, Option<Instant>)>>,
    stopping: watch::Sender<bool>,
}

/// How the appends ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) refused: u64,
}

impl Audit {
    pub(super) fn new(log: ClientLog, record_bytes: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            log,
            filler: Bytes::from(vec![b'x'; record_bytes]),
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            ledger: Mutex::new(Ledger::new(0)),
            latencies: LatencyRecorder::new()?,
            outage: watch::Sender::new(None),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Starts so many clients. Dropping the set ends them.
    pub(super) fn start(self: &Arc<Self>, clients: u32) -> JoinSet<Result> {
        (0..clients as usize).map(|client| Arc::clone(self).work(client)).collect()
    }

    /// Lets the clients end, each after its append.
    pub(super) async fn stop(&self, mut clients: JoinSet<Result>) -> Result {
        self.stopping.send_replace(true);
        while let Some(ended) = clients.join_next().await {
            ended.map_err(|error| Failure::failed(format!("a client: {error}")))??;
        }
        Ok(())
    }

    /// From now on only appends that begin after this moment end the outage.
    pub(super) fn outage_begins(&self, at: Instant) {
        self.outage.send_replace(Some((at, None)));
    }

    /// How long it took.
    pub(super) async fn outage_ended(&self) -> Duration {
        let mut outage = self.outage.subscribe();
        let ended = outage.wait_for(|outage| outage.is_some_and(|(_, end)| end.is_some())).await;
        match ended.map(|outage| *outage) {
            Ok(Some((begin, Some(end)))) => end.saturating_duration_since(begin),
            // The sender is ours, so the channel cannot close.
            _ => std::future::pending().await,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Counts {
            acknowledged: count(&self.acknowledged),
            unknown: count(&self.unknown),
            refused: count(&self.refused),
        }
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        self.latencies.percentiles()
    }

    /// Reads each of the nodes through, and compares it with what was acknowledged. The clients have ended.
    pub(super) async fn verify(&self, nodes: &[quorumlog::NodeId]) -> Result<Findings> {
        let mut all = Vec::new();
        for &node in nodes {
            let mut held = Held::new(node);
            let read = read_all(&self.log, node, |record| {
                held.push(record.index, record.term, &record.payload);
            });
            read.await
                .map_err(|failure| failure.while_doing(format_args!("reading node {node}")))?;
            all.push(held);
        }
        Ok(check(&self.ledger(), &all))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A poisoned ledger belongs to a task that panicked, and `stop` reports that.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(self: Arc<Self>, client: usize) -> Result {
        while !*self.stopping.borrow() {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            self.append(client, id).await?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Appends one record once. What failed is not appended again: the next record comes.
    async fn append(&self, client: usize, id: u64) -> Result {
        let payload = numbered(id, &self.filler);
        let floor = self.ledger().begin(id, crc32fast::hash(&payload));
        let begun = Instant::now();
        match self.log.append(payload).await {
            Ok(appended) => {
                let ended = Instant::now();
                self.latencies.record(client, ended - begun);
                self.ledger().acknowledge(id, appended.index, appended.term, floor);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.note_end(begun, ended);
            }
            Err(error) if error.outcome() == Outcome::Unknown => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                self.ledger().unknown(id);
            }
            Err(error) if error.is_retryable() => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                return Err(Failure::from(error).while_doing(format_args!("record {id}")));
            }
        }
        Ok(())
    }

    fn note_end(&self, begun: Instant, ended: Instant) {
        self.outage.send_if_modified(|outage| match outage {
            Some((begin, end @ None)) if begun >= *begin => {
                *end = Some(ended);
                true
            }
            _ => false,
        });
    }
}

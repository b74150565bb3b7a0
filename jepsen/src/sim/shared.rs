//! What the harness, the clients and the nodes' own callers share during a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorumlog::seam::BoxFuture;
use quorumlog::{AppendError, Appended, Flush, LogId, LogName, Node, Outcome};
use tokio::sync::mpsc;

use super::auditor::Auditor;
use super::broker;
use super::profile::{Profile, ProfileKind};
use super::summary::{Breach, Event};
use crate::recorder::{OperationId, Recorder};
use crate::world::Trace;
use crate::{Action, value_of};

/// Pause between appends while the cluster is spared.
const SPARED_PAUSE: Duration = Duration::from_millis(50);
/// Breaches that are kept; a broken run says the same again and again.
const BREACHES_MAX: usize = 50;

/// Something to be done on a node's own runtime.
pub(crate) type Job = Box<dyn FnOnce(Node) -> BoxFuture<()> + Send>;

/// One log and its history.
pub(crate) struct LogState {
    pub(crate) name: LogName,
    pub(crate) id: LogId,
    pub(crate) recorder: Recorder,
    /// It may be deleted: clients leave it alone, and nothing is said about its end.
    pub(crate) doomed: AtomicBool,
    /// The highest index that any client was told.
    pub(crate) last_acked: AtomicU64,
    /// The highest index that somebody asked it to begin at.
    pub(crate) trimmed: AtomicU64,
    /// All of it was read again in the end, so its history can be judged.
    pub(crate) scanned: AtomicBool,
}

/// Where a running node can be found.
pub(crate) struct NodeSlot {
    pub(crate) node: Node,
    pub(crate) jobs: mpsc::UnboundedSender<Job>,
}

/// An append that was called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    id: OperationId,
    after_faults: bool,
    /// It asks for a flush before its acknowledgement.
    flushed: bool,
}

/// What all share.
pub(crate) struct Shared {
    pub(crate) profile: Profile,
    pub(crate) trace: Trace,
    now_ns: Arc<AtomicU64>,
    process: AtomicU64,
    payload: AtomicU64,
    /// Clients are to end.
    stopping: AtomicBool,
    /// The faults are over.
    healed: AtomicBool,
    spared: AtomicBool,
    logs: Mutex<Vec<Arc<LogState>>>,
    nodes: Mutex<BTreeMap<u64, NodeSlot>>,
    auditor: Mutex<Auditor>,
    /// Which client was served by which log since the faults are over.
    served: Mutex<BTreeSet<(u64, LogId)>>,
    /// Client tasks that run.
    busy: AtomicU64,
    breaches: Mutex<Vec<Breach>>,
    events: Mutex<Vec<Event>>,
    /// What clients of brokers were told.
    pub(super) broker: broker::Ledger,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic is a breach of its own; what is behind the lock is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(profile: Profile, trace: Trace) -> Self {
        Self {
            profile,
            trace,
            now_ns: Arc::default(),
            process: AtomicU64::new(1),
            payload: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            healed: AtomicBool::new(false),
            spared: AtomicBool::new(false),
            logs: Mutex::default(),
            nodes: Mutex::default(),
            auditor: Mutex::new(Auditor::default()),
            served: Mutex::default(),
            busy: AtomicU64::new(0),
            breaches: Mutex::default(),
            events: Mutex::default(),
            broker: broker::Ledger::default(),
        }
    }

    /// Simulated time.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed) / 1_000_000
    }

    pub(crate) fn set_now(&self, now_ns: u64) {
        self.now_ns.store(now_ns, Ordering::Relaxed);
    }

    /// A number for a caller that does one thing at a time.
    pub(crate) fn process(&self) -> u64 {
        self.process.fetch_add(1, Ordering::Relaxed)
    }

    /// A payload that nobody else appends, with `padding` more bytes.
    pub(crate) fn payload(&self, padding: u64) -> Bytes {
        let number = self.payload.fetch_add(1, Ordering::Relaxed);
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(8 + padding as usize, (number % 251) as u8);
        Bytes::from(bytes)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Has clients append less from now on.
    pub(crate) fn spare(&self) {
        self.spared.store(true, Ordering::Relaxed);
    }

    /// Pauses before an append, if clients are to append less.
    pub(crate) async fn spared(&self) {
        if self.spared.load(Ordering::Relaxed) {
            tokio::time::sleep(SPARED_PAUSE).await;
        }
    }

    pub(crate) fn set_healed(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    /// Adds a log, with a history of its own.
    pub(crate) fn add_log(&self, name: LogName, id: LogId) -> Arc<LogState> {
        let now = Arc::clone(&self.now_ns);
        let log = Arc::new(LogState {
            name,
            id,
            recorder: Recorder::new(move || now.load(Ordering::Relaxed)),
            doomed: AtomicBool::new(false),
            last_acked: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
            scanned: AtomicBool::new(false),
        });
        lock(&self.logs).push(Arc::clone(&log));
        log
    }

    /// The logs that clients use.
    pub(crate) fn logs(&self) -> Vec<Arc<LogState>> {
        let logs = lock(&self.logs);
        logs.iter().filter(|log| !log.is_doomed()).cloned().collect()
    }

    /// The first log: that which faults are aimed at.
    pub(crate) fn first_log(&self) -> Option<Arc<LogState>> {
        lock(&self.logs).first().cloned()
    }

    pub(crate) fn node_up(&self, id: u64, slot: NodeSlot) {
        lock(&self.nodes).insert(id, slot);
    }

    pub(crate) fn node_down(&self, id: u64) -> Option<NodeSlot> {
        lock(&self.nodes).remove(&id)
    }

    /// A running node.
    pub(crate) fn node(&self, id: u64) -> Option<Node> {
        lock(&self.nodes).get(&id).map(|slot| slot.node.clone())
    }

    /// The nodes that run, with their numbers.
    pub(crate) fn nodes(&self) -> Vec<(u64, Node)> {
        lock(&self.nodes).iter().map(|(id, slot)| (*id, slot.node.clone())).collect()
    }

    /// Has a node do something. False if it does not run.
    pub(crate) fn run_on_node(&self, id: u64, job: Job) -> bool {
        lock(&self.nodes).get(&id).is_some_and(|slot| slot.jobs.send(job).is_ok())
    }

    pub(crate) fn auditor(&self) -> MutexGuard<'_, Auditor> {
        lock(&self.auditor)
    }

    /// What did not hold.
    pub(crate) fn breach(&self, kind: &str, detail: String) {
        self.event("cluster", format!("BREACH {kind}: {detail}"));
        let mut breaches = lock(&self.breaches);
        if breaches.len() < BREACHES_MAX {
            breaches.push(Breach { kind: kind.to_owned(), detail });
        }
    }

    pub(crate) fn take_breaches(&self) -> Vec<Breach> {
        std::mem::take(&mut lock(&self.breaches))
    }

    /// Adds to the timeline and the trace.
    pub(crate) fn event(&self, lane: &str, what: String) {
        self.trace.line(lane, format_args!("{what}"));
        let at_ms = self.now_ms();
        let event = Event { at_ms, until_ms: None, lane: lane.to_owned(), what };
        lock(&self.events).push(event);
    }

    /// An event that lasts.
    pub(crate) fn lasting_event(&self, lane: &str, what: String, for_ms: u64) {
        self.event(lane, what);
        let until = self.now_ms() + for_ms;
        if let Some(event) = lock(&self.events).last_mut() {
            event.until_ms = Some(until);
        }
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.events))
    }

    /// True once each client was served by each of these logs after the faults.
    pub(crate) fn all_served(&self, logs: &[Arc<LogState>]) -> bool {
        let served = lock(&self.served);
        let clients = 1..=self.profile.clients;
        // Clients of brokers use no other logs.
        let used = |log: &&Arc<LogState>| !self.is_of_brokers() || broker::is_broker(&log.name);
        let by_all =
            |client| logs.iter().filter(used).all(|log| served.contains(&(client, log.id)));
        clients.into_iter().all(by_all)
    }

    /// A client was served by a log, as it asked after the faults.
    pub(crate) fn note_served(&self, client: u64, log: &str) {
        if let Some(log) = self.logs().iter().find(|held| held.name.as_str() == log) {
            lock(&self.served).insert((client, log.id));
        }
    }

    /// The nodes have brokers, and the clients speak RocketMQ's protocol.
    pub(crate) fn is_of_brokers(&self) -> bool {
        self.profile.kind == ProfileKind::Broker
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }

    /// A client task begins.
    pub(crate) fn begin_work(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Client tasks that run.
    pub(crate) fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Records the call of an append of `payloads`: a batch if there are several.
    pub(crate) fn calls_append(&self, log: &LogState, process: u64, payloads: &[Bytes]) -> Call {
        let action = match payloads {
            [one] => Action::append(value_of(one)),
            many => Action::append_batch(values(many)),
        };
        let id = log.recorder.invoke(process, action);
        let flushed = self.profile.flush == Flush::Sync;
        Call { id, after_faults: self.healed.load(Ordering::Relaxed), flushed }
    }

    /// The same of an append that asks to be flushed before it is acknowledged.
    pub(crate) fn calls_flushed_append(
        &self,
        log: &LogState,
        process: u64,
        payloads: &[Bytes],
    ) -> Call {
        log.recorder.to_be_flushed(values(payloads));
        Call { flushed: true, ..self.calls_append(log, process, payloads) }
    }

    /// Records how an append ended, and has the disks looked at if it was acknowledged.
    pub(crate) fn appended(
        &self,
        log: &LogState,
        call: Call,
        client: Option<u64>,
        payloads: &[Bytes],
        result: Result<Appended, AppendError>,
    ) -> bool {
        let acked = match result {
            Ok(acked) => acked,
            Err(error) => {
                self.trace.line("client", format_args!("{}: {error}", log.name));
                match error.outcome() {
                    Outcome::NotAppended => log.recorder.fail(call.id),
                    Outcome::Unknown => log.recorder.info(call.id),
                }
                return false;
            }
        };
        let Appended { index, term, count, .. } = acked;
        self.trace.line("client", format_args!("{}: {count} at {index}, term {term}", log.name));
        if count as usize != payloads.len() {
            let detail = format!("{} records of {} were acknowledged", count, payloads.len());
            self.breach("partial-ack", detail);
        }
        let action = match payloads {
            [one] => Action::appended(value_of(one), index, term),
            many => Action::batch_appended(values(many), index, term),
        };
        log.recorder.ok(call.id, action);
        log.last_acked.fetch_max(index, Ordering::Relaxed);
        // A log that is being deleted is gone from disks before its last caller is told.
        let audited = call.flushed && !log.is_doomed();
        let failed = if audited {
            self.auditor().audit(log.id, index, payloads, || self.nodes())
        } else {
            Ok(())
        };
        if let Err(detail) = failed {
            self.breach("ack-before-durable", format!("log {}: {detail}", log.name));
        }
        if let Some(client) = client.filter(|_| call.after_faults) {
            lock(&self.served).insert((client, log.id));
        }
        true
    }
}

impl LogState {
    /// Somebody is about to ask it to begin at `before`.
    pub(crate) fn trims(&self, before: u64) {
        self.trimmed.fetch_max(before, Ordering::Relaxed);
        self.recorder.trim(before);
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Relaxed)
    }
}

fn values(payloads: &[Bytes]) -> Vec<u64> {
    payloads.iter().map(|payload| value_of(payload)).collect()
}

/// A client task that runs; counted until it is dropped.
pub(crate) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

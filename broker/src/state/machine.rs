//! The state behind a lock, fed by the log and read by connections.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use quorumlog::{ApplyError, FlushFiles, LogName, Record, StateDir, StateMachine, codec};
use tokio::sync::watch;

use super::State;
use super::arrivals::Arrivals;
use super::command::{Answer, is_change};
use super::index::index_files::{FileName, IndexFiles};
use super::older::{version2, version3};
use super::queue::physical;
use crate::LOG_PREFIX;
use crate::mutant::Mutant;

/// First bytes of a checkpoint.
const MAGIC: [u8; 4] = *b"QLBS";
/// Version of what follows.
const VERSION: u8 = 4;
/// Older versions, which are read too.
const VERSION_2: u8 = 2;
const VERSION_3: u8 = 3;

/// One log's state on this node.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    pub(super) index: IndexFiles,
    pub(crate) arrivals: Arrivals,
    /// Counts changes of the leader's address and restored states.
    pub(crate) changed: watch::Sender<u64>,
    /// The version of the registry of topics that the log has followed; in the home log the registry's.
    pub(crate) followed: watch::Sender<u64>,
    /// Up to where messages were forgotten.
    pruned: AtomicU64,
    /// Counts the states that were put in the place of others.
    number: AtomicU64,
}

impl Shared {
    fn new(files: StateDir) -> Self {
        Self {
            state: RwLock::default(),
            index: IndexFiles::new(files),
            arrivals: Arrivals::default(),
            changed: watch::Sender::new(0),
            followed: watch::Sender::new(0),
            pruned: AtomicU64::new(0),
            number: AtomicU64::new(0),
        }
    }

    /// The number of the state: another one once a state was put in the place of this one, since the log was opened again
    /// or a leader sent its own. What was found in a state of another number says nothing of this one. A look at the state
    /// was at one with this number if the number is the same after it.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The state as it is now. Nothing is applied while the guard lives: hold it briefly.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another state in the place of this one.
    fn replace(&self, other: State, files: &[FileName]) {
        self.change(|state| {
            self.index.adopt(files);
            *state = other;
            if !Mutant::ReplacedStateUnnoticed.is_active() {
                self.number.fetch_add(1, Ordering::AcqRel);
            }
        });
        let followed = self.state().followed();
        self.followed.send_replace(followed);
        self.pruned.store(0, Ordering::Release);
        self.changed.send_modify(|count| *count += 1);
        // Who waits for a message behind the end waits behind another one now.
        self.arrivals.wake_all();
    }

    /// The log is opened again, and gives everything from its beginning on, or a checkpoint before that.
    fn start_again(&self) {
        if !Mutant::BrokerStateKept.is_active() {
            self.replace(State::default(), &[]);
        }
    }

    /// Forgets messages that the log does not hold any more, unless that was done.
    /// A reader that finds one gone may call this each time.
    pub(crate) fn prune_once(&self, begin: u64) {
        if self.pruned.fetch_max(begin, Ordering::AcqRel) < begin {
            self.prune(begin);
        }
    }

    /// Forgets messages that the log does not hold any more. It looks at all queues.
    pub(crate) fn prune(&self, begin: u64) {
        let (number, straddling): (_, Vec<_>) = {
            let state = self.state();
            let queues = state.topics().flat_map(|(_, topic)| topic.queues());
            (self.number(), queues.filter_map(|queue| queue.straddling(begin)).collect())
        };
        let gone = straddling.iter().filter_map(|sealed| {
            let chunk = sealed.read(&self.index)?;
            Some((sealed.base, chunk.gone(begin)))
        });
        let gone: BTreeMap<u64, u64> = gone.collect();
        let begin = begin + if Mutant::PrunedTooFar.is_active() { 8 } else { 0 };
        self.change(|state| {
            if self.number() == number {
                state.prune(begin, &gone);
            }
        });
        self.index.retain(physical(begin, 0));
    }

    /// True once after parts of the index were found missing.
    pub(crate) fn take_lost(&self) -> bool {
        self.index.take_lost()
    }

    /// Notes that parts of the index are missing.
    pub(crate) fn note_lost(&self) {
        self.index.note_lost();
    }

    fn apply(&self, record: &Record) -> Result<Answer, ApplyError> {
        // Who is woken looks at the state, and so waits until the change is done.
        let mut arrived = |topic: &str, queue: u32| self.arrivals.wake(topic, queue);
        // Also one that leads again after it has come back at another address. Messages name no leader.
        let leader = |state: &State| {
            let addr = || state.address(state.leader()).map(str::to_owned);
            is_change(&record.payload).then(|| (state.leader(), addr()))
        };
        let (answer, new_leader, followed) = self.change(|state| {
            let before = (leader(state), state.followed());
            let payload = record.payload.clone();
            let answer = state.apply(record.index, payload, &self.index, &mut arrived);
            let followed = (state.followed() != before.1).then(|| state.followed());
            (answer, leader(state) != before.0, followed)
        });
        if new_leader {
            self.changed.send_modify(|count| *count += 1);
        }
        if let Some(version) = followed {
            self.followed.send_replace(version);
        }
        answer
    }
}

/// The states of a node's logs, by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machines {
    by_name: Arc<Mutex<BTreeMap<String, Arc<Shared>>>>,
    #[cfg(feature = "simulation")]
    observer: Option<super::Observer>,
}

impl Machines {
    /// Machines whose records an observer is told.
    #[cfg(feature = "simulation")]
    pub(crate) fn observed(observer: super::Observer) -> Self {
        Self { observer: Some(observer), ..Self::default() }
    }

    /// The state machine for a log, if it is a broker's. It keeps indexes in `files`.
    pub(crate) fn machine(&self, log: &LogName, files: StateDir) -> Option<Box<dyn StateMachine>> {
        if !log.as_str().starts_with(LOG_PREFIX) {
            return None;
        }
        let mut all = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        // Those who serve clients hold on to the state of a log that is opened again.
        let shared = match all.get(log.as_str()) {
            Some(shared) if shared.index.is_in(&files) => {
                shared.start_again();
                Arc::clone(shared)
            }
            _ => Arc::new(Shared::new(files)),
        };
        all.insert(log.as_str().to_owned(), Arc::clone(&shared));
        let machine = Box::new(Machine(Arc::clone(&shared)));
        #[cfg(feature = "simulation")]
        if let Some(observer) = &self.observer {
            return Some(observer.observe(log, machine, shared));
        }
        Some(machine)
    }

    pub(crate) fn shared(&self, log: &str) -> Option<Arc<Shared>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).get(log).cloned()
    }
}

/// Feeds one log's state.
struct Machine(Arc<Shared>);

impl StateMachine for Machine {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        self.0.apply(record).map(|answer| answer.encode())
    }

    fn takes_client_appends(&self) -> bool {
        false
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&[VERSION])?;
        let state = self.0.state();
        if Mutant::DeliveredNotInCheckpoint.is_active() {
            let mut other = state.clone();
            other.delivered.clear();
            return codec::encode_to(out, &(&other, self.0.index.names()));
        }
        codec::encode_to(out, &(&*state, self.0.index.names()))
    }

    fn flush_files(&self) -> FlushFiles {
        let shared = Arc::clone(&self.0);
        Box::new(move || shared.index.flush())
    }

    fn needs_from(&self) -> Option<u64> {
        self.0.state().waits_from()
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let (restored, files) = decode(from)?;
        self.0.replace(restored, &files);
        self.0.index.note_lost();
        Ok(())
    }
}

/// The state that a checkpoint holds, and the index files that it names.
pub(super) fn decode(from: &mut dyn Read) -> io::Result<(State, Vec<FileName>)> {
    let bad = |detail: String| io::Error::new(io::ErrorKind::InvalidData, detail);
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [magic @ .., version] = head;
    if magic != MAGIC {
        return Err(bad("no broker's state".to_owned()));
    }
    match version {
        VERSION => codec::decode_from(from),
        VERSION_3 => version3::decode(from),
        VERSION_2 => {
            let mut body = Vec::new();
            from.read_to_end(&mut body)?;
            version2::decode(&body).map_err(|error| bad(error.to_string()))
        }
        other => {
            let detail = format!(
                "the broker's state is of version {other}, and this program reads {VERSION_2} to {VERSION}"
            );
            if other < VERSION_2 {
                return Err(bad(detail));
            }
            let newer = ApplyError::NewerBuild { detail };
            Err(io::Error::new(io::ErrorKind::InvalidData, newer))
        }
    }
}

#[cfg(test)]
pub(super) fn machine_with_state(files: StateDir) -> (Box<dyn StateMachine>, Arc<Shared>) {
    let shared = Arc::new(Shared::new(files));
    (Box::new(Machine(Arc::clone(&shared))), shared)
}

//! Recording a history while a test runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cluster::{Fault, Leader, Loss, Observation, Replica, Requirements, Trim};
use crate::history::{Action, History, Operation, Outcome};

/// Takes down what happens, from one thread or many.
///
/// Every event gets a time of its own: what was recorded later has a later time, if only by a nanosecond, also
/// when a simulated clock stands still in between. So the order of two operations is never left open
/// unless they did overlap.
///
/// ```
/// use jepsen::{Action, Recorder, check};
///
/// let recorder = Recorder::new(|| 0);
/// let append = recorder.invoke(1, Action::append(17));
/// recorder.ok(append, Action::appended(17, 1, 1));
/// recorder.instant(1, Action::FinalRead { from: 0, to: 2, records: vec![(1, 17)] });
/// let report = check(&recorder.finish());
/// assert!(report.is_valid(), "{report}");
/// ```
pub struct Recorder {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    state: Mutex<State>,
}

/// An operation that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an operation of which no end is recorded counts as never returned"]
pub struct OperationId(usize);

#[derive(Default)]
struct State {
    history: History,
    last: u64,
    /// For each node, what was recorded of it last.
    seen: BTreeMap<u64, Observation>,
    /// Term and node of each leader that was recorded.
    leaders: BTreeSet<(u64, u64)>,
}

impl Recorder {
    /// `clock` gives nanoseconds since the start of the test. It must not go back, and is read under a lock.
    pub fn new(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A client that panicked has failed the test; what others record is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, and the time of what is recorded now.
    fn stamp(&self) -> (MutexGuard<'_, State>, u64) {
        let mut state = self.state();
        state.last = (self.clock)().max(state.last + 1);
        let now = state.last;
        (state, now)
    }

    /// `process` is about to call. Record this before the call is made.
    pub fn invoke(&self, process: u64, action: Action) -> OperationId {
        let (mut state, call) = self.stamp();
        let operation = Operation { process, call, ret: None, outcome: Outcome::Info, action };
        state.history.operations.push(operation);
        OperationId(state.history.operations.len() - 1)
    }

    /// It happened, and `action` is what was asked with what was told.
    ///
    /// # Panics
    /// If it has ended before, or was another kind of operation: the test is wrong.
    pub fn ok(&self, id: OperationId, action: Action) {
        self.end(id, Outcome::Ok, Some(action));
    }

    /// It did not happen and never will.
    ///
    /// # Panics
    /// If it has ended before: the test is wrong.
    pub fn fail(&self, id: OperationId) {
        self.end(id, Outcome::Fail, None);
    }

    /// The client gave up on it: it may have happened, or may yet.
    ///
    /// # Panics
    /// If it has ended before: the test is wrong.
    pub fn info(&self, id: OperationId) {
        self.end(id, Outcome::Info, None);
    }

    fn end(&self, id: OperationId, outcome: Outcome, action: Option<Action>) {
        let (mut state, now) = self.stamp();
        let operation = &mut state.history.operations[id.0];
        assert!(operation.ret.is_none(), "ended twice: {operation:?}");
        if let Some(action) = action {
            let (asked, told) = (operation.action.kind(), action.kind());
            assert!(asked == told, "asked was {asked}, and told was {told}");
            operation.action = action;
        }
        (operation.ret, operation.outcome) = (Some(now), outcome);
    }

    /// Something that was called and returned at once: a delivery, a final read.
    pub fn instant(&self, process: u64, action: Action) {
        let id = self.invoke(process, action.clone());
        self.ok(id, action);
    }

    /// What a node says about itself. Sets the time, and keeps it only if it is news.
    pub fn observe(&self, observation: Observation) {
        let (mut state, time) = self.stamp();
        let observation = Observation { time, ..observation };
        let same = |seen: &&Observation| Observation { time, ..(*seen).clone() } == observation;
        if state.seen.get(&observation.node).filter(same).is_none() {
            state.seen.insert(observation.node, observation.clone());
            state.history.observations.push(observation);
        }
    }

    /// A node leads in a term. To be told as often as it is seen.
    pub fn leader(&self, node: u64, term: u64) {
        let (mut state, time) = self.stamp();
        if state.leaders.insert((term, node)) {
            state.history.leaders.push(Leader { time, node, term });
        }
    }

    /// A fault was put in, and has taken effect `bites` times by now: 0 if that is yet to be seen.
    pub fn fault(&self, kind: &str, bites: u64) {
        self.add_fault(kind, 1, bites);
    }

    /// Faults that were put in before took effect another `bites` times.
    pub fn bit(&self, kind: &str, bites: u64) {
        if bites > 0 {
            self.add_fault(kind, 0, bites);
        }
    }

    fn add_fault(&self, kind: &str, injected: u64, bites: u64) {
        let (mut state, time) = self.stamp();
        state.history.faults.push(Fault { time, kind: kind.to_owned(), injected, bites });
    }

    /// From now on retention may remove everything below `before`. Record this before it is asked to.
    pub fn trim(&self, before: u64) {
        let (mut state, time) = self.stamp();
        state.history.trims.push(Trim { time, before });
    }

    /// So many voters have lost pages that what no majority had flushed, from an index on, may be gone. What was
    /// acknowledged before `since`, in nanoseconds of the clock, had to be flushed.
    pub fn loss(&self, from: u64, since: u64) {
        let (mut state, time) = self.stamp();
        state.history.losses.push(Loss { time, until: None, from, since });
    }

    /// Enough voters have all that they acknowledged again.
    pub fn whole_again(&self) {
        let (mut state, time) = self.stamp();
        for loss in &mut state.history.losses {
            loss.until.get_or_insert(time);
        }
    }

    /// These values are appended so that they are flushed before they are acknowledged.
    pub fn to_be_flushed(&self, values: impl IntoIterator<Item = u64>) {
        self.state().history.flushed.extend(values);
    }

    /// The last fault was taken out.
    pub fn healed(&self) {
        let (mut state, time) = self.stamp();
        state.history.healed = Some(time);
    }

    /// All replicas were seen to be equal. Only the first time counts.
    pub fn converged(&self) {
        let (mut state, time) = self.stamp();
        state.history.converged.get_or_insert(time);
    }

    /// What a member holds in the end. Sets the time.
    pub fn replica(&self, replica: Replica) {
        let (mut state, time) = self.stamp();
        state.history.replicas.push(Replica { time, ..replica });
    }

    /// Says what the run must have gone through.
    pub fn require(&self, required: Requirements) {
        self.state().history.required = required;
    }

    /// The history, without what ends later: operations that are open have an unknown outcome.
    ///
    /// Afterwards the recorder is empty, and must not be told how earlier operations ended.
    pub fn finish(&self) -> History {
        let mut state = self.state();
        let last = state.last;
        std::mem::replace(&mut *state, State { last, ..State::default() }).history
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        let mut out = f.debug_struct("Recorder");
        out.field("operations", &state.history.operations.len()).finish_non_exhaustive()
    }
}

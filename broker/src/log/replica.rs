//! This node's replica of a log, as its broker uses it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorumlog::{AppendError, AppendOptions, AppliedTicket, CommitLog, Priority, Progress};
use tokio::sync::watch;
use tokio::time::Instant;

use super::wall_clock::WallClock;
use crate::mutant::Mutant;
use crate::record::Message;
use crate::request::Failure;
use crate::settings::BrokerConfig;
use crate::state::{Answer, Change, Decision, Shared, State, change, deliveries, messages};

/// The node's part in the log, as far as clients are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// No leader is known.
    Unknown,
    /// This node leads, and has applied everything that was committed before it did.
    Leads,
    /// The leader serves clients at this address.
    Follows(String),
}

impl Part {
    /// True while the leader serves clients at `addr`.
    pub(crate) fn follows(&self, addr: &str) -> bool {
        matches!(self, Self::Follows(leader) if leader == addr)
    }
}

/// How long a route names a log's last leader after this node has heard of none: longer than an election takes. A node that
/// is cut off, or alone, does not know whether that leader is there.
const LEADERLESS_MAX: Duration = Duration::from_secs(10);

/// The log and its state, once the node has it.
pub(crate) struct Opened {
    pub(crate) log: CommitLog,
    pub(crate) shared: Arc<Shared>,
}

/// This node's replica of a log, as its broker uses it: what the state has, what is read from the log and put into it.
pub(crate) struct Replica {
    /// The log's name, and the broker's.
    pub(crate) name: String,
    /// Its number among the logs of the cluster.
    pub(crate) number: u32,
    /// Where clients are told to come.
    pub(crate) addr: SocketAddr,
    config: Arc<BrokerConfig>,
    pub(crate) opened: OnceLock<Opened>,
    /// The node cannot open the log.
    pub(crate) not_open: AtomicBool,
    pub(crate) part: watch::Sender<Part>,
    /// The number of the state with which this node leads, if it does. One that took its place meanwhile may not have
    /// everything yet.
    pub(crate) led: AtomicU64,
    /// When this node last heard of a leader that is there; its start if it has not.
    led_at: Mutex<Instant>,
    /// True for good once the log was led where it is to be, or this node has waited long enough for that.
    pub(crate) settled: watch::Sender<bool>,
    pub(crate) clock: WallClock,
    /// Held by whoever makes parts of the index again.
    pub(super) rebuilding: tokio::sync::Mutex<()>,
    /// Where records of messages are stamped and made, one behind another.
    records: Mutex<BytesMut>,
    last_stored_ms: AtomicI64,
}

/// What the state machine answered.
fn accepted(response: &[u8]) -> Result<Answer, Failure> {
    match Answer::decode(response) {
        Answer::Refused(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

/// What a full disk still takes: all but new topics, which anybody can ask for without end. No flood of locks holds up
/// offsets, and no flood of either holds up who leads.
/// New locks hold up no renewals of those that are held.
fn priority_of(change: &Change, state: &State) -> Priority {
    match change {
        Change::Lock { request, now_ms }
            if state.are_renewals(request, *now_ms) && !Mutant::RenewalsAsNewLocks.is_active() =>
        {
            Priority::Renewal
        }
        Change::Decide(Decision::Ensure { .. } | Decision::Put { .. }) => Priority::Normal,
        Change::Lead { .. } | Change::Follow(_) | Change::Rules { .. } => Priority::Essential,
        Change::Offsets(_) | Change::ReportedOffsets(_) => Priority::Preferred,
        _ => Priority::Reserved,
    }
}

/// How a change is appended. A decision is flushed on a majority whatever the node does: other logs follow it, and keep
/// what they have followed if power cuts take it from the home log.
fn options_of(change: &Change, state: &State) -> AppendOptions {
    let followed = matches!(change, Change::Decide(_)) && !Mutant::DecisionUnflushed.is_active();
    let options = if followed { AppendOptions::sync() } else { AppendOptions::default() };
    options.with_priority(priority_of(change, state))
}

impl Replica {
    pub(crate) fn new(
        (number, name): (u32, String),
        addr: SocketAddr,
        config: Arc<BrokerConfig>,
        clock: WallClock,
    ) -> Self {
        Self {
            name,
            number,
            addr,
            config,
            opened: OnceLock::new(),
            not_open: AtomicBool::new(false),
            part: watch::Sender::new(Part::Unknown),
            led: AtomicU64::new(u64::MAX),
            led_at: Mutex::new(Instant::now()),
            settled: watch::Sender::new(false),
            clock,
            rebuilding: tokio::sync::Mutex::default(),
            records: Mutex::default(),
            last_stored_ms: AtomicI64::new(0),
        }
    }

    /// True if this node has heard of a leader lately.
    pub(crate) fn is_led(&self) -> bool {
        let led_at = *self.led_at.lock().unwrap_or_else(PoisonError::into_inner);
        led_at.elapsed() < LEADERLESS_MAX || Mutant::LostLeadersNamed.is_active()
    }

    /// Notes whether a leader is there, as far as this node knows. A leader that has lost its followers still serves what was
    /// committed.
    pub(crate) fn note_led(&self) {
        let leads = *self.part.borrow() == Part::Leads;
        let is_led = leads
            || match self.opened.get() {
                Some(opened) => opened.log.status().leader.is_some() && !self.is_led_nowhere(),
                // As others say, who hear it.
                None => *self.part.borrow() != Part::Unknown,
            };
        if is_led {
            *self.led_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    /// True while this node knows that another one leads, and not where that one serves clients.
    pub(crate) fn is_led_nowhere(&self) -> bool {
        let other_leads = |opened: &Opened| {
            let status = opened.log.status();
            status.leader.is_some_and(|leader| leader.id != status.node_id)
        };
        *self.part.borrow() == Part::Unknown && self.opened.get().is_some_and(other_leads)
    }

    /// How long a send waits for its message to be flushed and replicated.
    pub(crate) fn send_timeout(&self) -> Duration {
        self.config.send_timeout
    }

    /// The log and its state.
    ///
    /// # Errors
    /// The node does not have it yet.
    pub(crate) fn opened(&self) -> Result<&Opened, Failure> {
        self.opened.get().ok_or(Failure::Moved)
    }

    /// The state.
    ///
    /// # Errors
    /// The node does not have it yet.
    pub(crate) fn shared(&self) -> Result<&Arc<Shared>, Failure> {
        self.opened().map(|opened| &opened.shared)
    }

    /// True if the state is the one with which this node began to lead.
    pub(crate) fn has_led_state(&self) -> bool {
        self.shared().is_ok_and(|shared| shared.number() == self.led.load(Ordering::Acquire))
    }

    /// True if this node's copy of the log has stopped, or cannot be opened.
    pub(super) fn has_stopped(&self) -> bool {
        match self.opened.get() {
            Some(opened) => opened.log.has_stopped(),
            None => self.not_open.load(Ordering::Acquire),
        }
    }

    /// Appends messages, all of them or none, and gives them their time of storing; with `once` not if the first one's key
    /// was stored lately. Tells `progress` how far they come. The ticket knows no limit of time.
    ///
    /// # Errors
    /// They were not appended.
    pub(crate) fn submit_messages(
        &self,
        batch: &mut [Message],
        once: bool,
        progress: &Progress,
    ) -> Result<AppliedTicket, Failure> {
        self.submit_stamped(batch, progress, |room, batch| messages(room, batch, once))
    }

    /// Appends the deliveries of a level's messages from `first` on, as `submit_messages` does, and waits until they are
    /// applied here.
    ///
    /// # Errors
    /// As `applied`.
    pub(crate) async fn deliver(
        &self,
        level: u8,
        first: u64,
        batch: &mut [Message],
    ) -> Result<Answer, Failure> {
        let encode = |_: &mut BytesMut, batch: &[Message]| deliveries(level, first, batch);
        let ticket = self.submit_stamped(batch, &Progress::new(), encode)?;
        self.applied(ticket).await
    }

    /// Messages that are stamped one after another get into the log in that order, so times of storing do not go back.
    fn submit_stamped(
        &self,
        batch: &mut [Message],
        progress: &Progress,
        encode: impl FnOnce(&mut BytesMut, &[Message]) -> Bytes,
    ) -> Result<AppliedTicket, Failure> {
        let log = &self.opened()?.log;
        let mut room = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let stored_ms = self.stored_ms();
        for message in &mut *batch {
            if !(Mutant::DeliveryKeepsTime.is_active() && message.stored_ms > 0) {
                message.stored_ms = stored_ms;
            }
        }
        let payload = encode(&mut room, batch);
        Ok(log.submit_tracked(payload, AppendOptions::default(), progress)?)
    }

    /// What the state machine answered, within the time that sends have.
    ///
    /// # Errors
    /// The record was not appended, or it is not known whether it was, or applying it was refused.
    pub(crate) async fn applied(&self, ticket: AppliedTicket) -> Result<Answer, Failure> {
        let limit = self.config.send_timeout;
        let timed_out = |_| Err(AppendError::Timeout { after: limit });
        let applied = tokio::time::timeout(limit, ticket).await.unwrap_or_else(timed_out)?;
        accepted(&applied.response)
    }

    /// Appends a change of the state and waits until it is applied here. Messages are what a full disk refuses, deliveries of
    /// delayed ones among them; consumers need changes to go on: who leads, offsets, locks.
    ///
    /// # Errors
    /// As `applied`.
    pub(crate) async fn change(&self, what: &Change) -> Result<Answer, Failure> {
        let opened = self.opened()?;
        let options = options_of(what, &opened.shared.state());
        let applied = opened.log.propose_with(change(what), options).await?;
        accepted(&applied.response)
    }

    /// A time of storing: never before one that was given earlier, by this leader or the last. So it can be ahead of the
    /// wall clock for as long as that was ahead: nothing is due by it.
    fn stored_ms(&self) -> i64 {
        let now = self.clock.now_ms();
        if Mutant::StoredTimeGoesBack.is_active() {
            return now;
        }
        let applied = self.shared().map_or(0, |shared| shared.state().stored_ms());
        let now = now.max(applied);
        self.last_stored_ms.fetch_max(now, Ordering::AcqRel).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::LockRequest;

    #[test]
    fn no_flood_of_locks_holds_up_offsets_or_who_leads() {
        let locks =
            LockRequest { group: "g".to_owned(), client: "c".to_owned(), queues: Vec::new() };
        let state = State::default();
        let locks = priority_of(&Change::Lock { request: locks, now_ms: 0 }, &state);
        for offsets in [Change::Offsets(Vec::new()), Change::ReportedOffsets(Vec::new())] {
            assert_eq!(priority_of(&offsets, &state), Priority::Preferred);
        }
        for leads in [Change::Lead { node: 1, addr: String::new() }, Change::Rules { version: 4 }] {
            assert_eq!(priority_of(&leads, &state), Priority::Essential);
        }
        assert_eq!(locks, Priority::Reserved);
    }

    /// Before, a flood of new locks on a short disk refused those who held theirs.
    #[test]
    fn no_flood_of_new_locks_holds_up_renewals() {
        let queues = vec![("T".to_owned(), 0)];
        let request = LockRequest { group: "g".to_owned(), client: "c".to_owned(), queues };
        let asks = Change::Lock { request: request.clone(), now_ms: 20_000 };
        assert_eq!(priority_of(&asks, &State::default()), Priority::Reserved);
        assert_eq!(priority_of(&asks, &State::with_locks(request, 0)), Priority::Renewal);
    }

    #[test]
    fn what_other_logs_follow_is_flushed_before_they_can() {
        let decision = Change::Decide(Decision::Adopted { log: 1, logs: 2 });
        assert_eq!(options_of(&decision, &State::default()).flush, Some(quorumlog::Flush::Sync));
        assert_eq!(options_of(&Change::Offsets(Vec::new()), &State::default()).flush, None);
    }
}

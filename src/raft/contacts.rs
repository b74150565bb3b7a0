//! What is known of the other members: where each is reached, since when one is not, and whose data is gone.
//!
//! A membership has addresses, and a member may move. What counts is its data: a node that proves in its handshake that
//! it has the data of a member is that member, wherever it is. So a link tries the address that memberships list and the
//! one that the member itself told, and stays with the one that works.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::failing::{Cause, Failing};
use super::generations::Generations;
use super::peers::Lane;
use super::processes::{Process, Processes, Validity};
use super::types::Address;
use crate::format::superblock::Newest;
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::wire::{ADDR_BYTES_MAX, Hello, Intro, LinkError};

/// Addresses of one member by the memberships of logs, which differ while a change goes from log to log.
const LISTED_MAX: usize = 4;
/// Members that one tells another of.
pub(super) const HINTS_MAX: usize = 256;
/// Pause between two warnings about one member.
pub(super) const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Who is a member of no log for this long is forgotten. A change of members takes a moment to be known here.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// Another process has a member's data.
#[derive(Debug, Clone)]
pub(crate) struct Twin {
    pub(crate) since: Instant,
    pub(crate) seen: Instant,
    pub(crate) reason: String,
}

#[derive(Debug, Default)]
struct Contact {
    /// Newest first.
    listed: Vec<String>,
    /// As the member said at its last handshake.
    told: Option<Address>,
    /// What it was listed at first, or told, last.
    newest: String,
    /// As another member says.
    hinted: Option<String>,
    /// What is tried first: where it was reached last, or says that it is now.
    reached: Option<String>,
    /// Which of the candidates is tried next.
    turn: usize,
    /// On the lane for what must not wait: whether the member is reached depends on this lane alone.
    failing: Option<Failing>,
    /// On the lane for entries.
    bulk_failing: Option<Failing>,
    processes: Processes,
    /// Where the process that counts may listen, by the host that it has dialed from.
    source: Option<String>,
    /// The process that was reached last.
    reached_process: Option<u128>,
    twin: Option<Twin>,
    /// Where a process answered that is not the one that counts.
    found: Option<String>,
    /// Since when no log has it as a member.
    unlisted: Option<Instant>,
}

impl Contact {
    /// Where to look for it, first where it was.
    fn candidates(&self) -> Vec<&str> {
        let told = self.told.as_ref().map(|told| told.peer.as_str());
        let all = self.reached.as_deref().into_iter();
        let all = all.chain(self.listed.iter().map(String::as_str)).chain(told);
        let all = all.chain(self.hinted.as_deref());
        let mut candidates = Vec::new();
        for addr in all.filter(|addr| !addr.is_empty()) {
            if !candidates.contains(&addr) {
                candidates.push(addr);
            }
        }
        candidates
    }

    fn note_reached(&mut self, addr: &str) {
        self.reached = Some(addr.to_owned());
        self.reached_process = self.processes.held();
    }

    /// The process that counts, and where it may be.
    fn held(&self) -> Option<Process> {
        let session = self.processes.held()?;
        let told = self.told.iter().map(|told| &told.peer);
        let reached = self.reached.iter().filter(|_| self.reached_process == Some(session));
        let mut places: Vec<String> = Vec::new();
        for addr in told.chain(reached).filter(|addr| !addr.is_empty()) {
            if !places.contains(addr) {
                places.push(addr.clone());
            }
        }
        let is_connected = self.processes.is_connected();
        Some(Process { session, places, source: self.source.clone(), is_near: false, is_connected })
    }
}

/// `addr`, with the host of `from` if its own is unspecified.
fn on_host(addr: &str, from: &str) -> String {
    let unspecified = addr.parse().is_ok_and(|addr: SocketAddr| addr.ip().is_unspecified());
    match (unspecified, from.rsplit_once(':'), addr.rsplit_once(':')) {
        (true, Some((host, _)), Some((_, port))) => format!("{host}:{port}"),
        _ => addr.to_owned(),
    }
}

/// Where a node says that it is, from the host `from`.
pub(super) fn intro_address(intro: &Intro, from: &str) -> Address {
    Address { peer: on_host(&intro.peer_addr, from), client: on_host(&intro.client_addr, from) }
}

/// How a process has been met.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    /// It has dialed this node from here.
    From(&'a str),
    /// It has answered here.
    At(&'a str),
}

impl<'a> Seen<'a> {
    pub(super) fn addr(self) -> &'a str {
        let (Self::From(addr) | Self::At(addr)) = self;
        addr
    }
}

/// Where a process may listen that has dialed from `remote`: its port on that host, since a copy may tell the address of
/// the original.
pub(super) fn source_of(intro: &Intro, remote: &str) -> String {
    on_host_of(remote, &intro_address(intro, remote).peer)
}

/// The port of `addr` on the host that a connection came from.
fn on_host_of(remote: &str, addr: &str) -> String {
    match (remote.rsplit_once(':'), addr.rsplit_once(':')) {
        (Some((host, _)), Some((_, port))) => format!("{host}:{port}"),
        _ => addr.to_owned(),
    }
}

/// All members that this node has to do with.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    all: Mutex<BTreeMap<ReplicaId, Contact>>,
    pub(crate) generations: Generations,
}

impl Contacts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Contact>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A membership lists the member at this address.
    pub(crate) fn list(&self, replica: ReplicaId, addr: &str) {
        let mut all = self.lock();
        let contact = all.entry(replica).or_default();
        contact.unlisted = None;
        if contact.listed.first().is_some_and(|first| first == addr) {
            return;
        }
        if !contact.listed.iter().any(|listed| listed == addr) {
            addr.clone_into(&mut contact.newest);
        }
        contact.listed.retain(|listed| listed != addr);
        contact.listed.insert(0, addr.to_owned());
        contact.listed.truncate(LISTED_MAX);
    }

    pub(super) fn forget(&self, gone: impl Fn(ReplicaId) -> bool) {
        self.lock().retain(|replica, _| !gone(*replica));
        self.generations.forget(gone);
    }

    /// Those that have been members of no log for a while.
    pub(super) fn gone(&self, members: &BTreeSet<ReplicaId>) -> BTreeSet<ReplicaId> {
        let mut gone = BTreeSet::new();
        for (replica, contact) in self.lock().iter_mut() {
            if members.contains(replica) {
                contact.unlisted = None;
            } else if contact.unlisted.get_or_insert_with(Instant::now).elapsed() >= FORGOTTEN_AFTER
            {
                gone.insert(*replica);
            }
        }
        gone
    }

    /// Where to dial next.
    pub(super) fn addr(&self, replica: ReplicaId) -> String {
        let all = self.lock();
        let Some(contact) = all.get(&replica) else { return String::new() };
        let candidates = contact.candidates();
        let at = contact.turn % candidates.len().max(1);
        candidates.get(at).copied().unwrap_or_default().to_owned()
    }

    /// How a dial of `addr` for a lane ended.
    pub(super) fn dialed(
        &self,
        replica: ReplicaId,
        lane: Lane,
        addr: &str,
        failure: Option<&LinkError>,
    ) {
        let mut all = self.lock();
        let Some(contact) = all.get_mut(&replica) else { return };
        let control = lane == Lane::Control || Mutant::AnyLaneCounts.is_active();
        let newest = contact.newest.clone();
        let failing = if control { &mut contact.failing } else { &mut contact.bulk_failing };
        let Some(error) = failure else {
            if failing.take().is_some_and(|failing| failing.warned.is_some()) {
                tracing::info!(member = %replica, addr, ?lane, "the member is reached again");
            }
            if control {
                contact.note_reached(addr);
                contact.turn = 0;
            }
            return;
        };
        failing.get_or_insert_with(|| Failing::new(addr)).note(addr, error, &newest);
        // The other lane goes where this one got through.
        let candidates = contact.candidates();
        if control && candidates.get(contact.turn % candidates.len().max(1)) == Some(&addr) {
            contact.turn = contact.turn.wrapping_add(1);
        }
    }

    /// The node that answered at `addr` has other data than the member.
    pub(super) fn lost_data(&self, replica: ReplicaId, addr: &str, reason: &str) {
        let mut all = self.lock();
        let Some(contact) = all.get_mut(&replica) else { return };
        let failing = contact.failing.get_or_insert_with(|| Failing::new(addr));
        (failing.cause, failing.reason) = (Cause::LostData, reason.to_owned());
    }

    /// True if entries cannot be sent to the member.
    pub(super) fn bulk_fails(&self, replica: ReplicaId) -> bool {
        self.lock().get(&replica).is_some_and(|contact| contact.bulk_failing.is_some())
    }

    /// Why the member is not reached, if the last attempt failed.
    pub(crate) fn failing(&self, replica: ReplicaId) -> Option<Failing> {
        self.lock().get(&replica)?.failing.clone()
    }

    /// For how long the member has not been reached, if the last attempt failed.
    pub(crate) fn unreached_for(&self, replica: ReplicaId) -> Option<Duration> {
        Some(self.failing(replica)?.since.elapsed())
    }

    /// Where this node has reached the member, if it is reached.
    pub(crate) fn reached(&self, replica: ReplicaId) -> Option<String> {
        let all = self.lock();
        let contact = all.get(&replica)?;
        contact.reached.clone().filter(|_| contact.failing.is_none())
    }

    /// Where the member has moved: the address that it told, and that it was reached at. None if it is reached at
    /// `listed`, or nowhere.
    pub(super) fn moved(&self, replica: ReplicaId, listed: &Address) -> Option<Address> {
        let all = self.lock();
        let contact = all.get(&replica)?;
        let reached = contact.reached.as_ref().filter(|_| contact.failing.is_none())?;
        let told = contact.told.as_ref()?;
        (told.peer == *reached && listed.peer != *reached).then(|| told.clone())
    }

    /// The member is where it is listed, after all.
    pub(super) fn is_at(&self, replica: ReplicaId, addr: &str) {
        if let Some(contact) = self.lock().get_mut(&replica) {
            contact.note_reached(addr);
        }
    }

    /// The process that counts as the member, if it has said hello.
    pub(crate) fn session(&self, replica: ReplicaId) -> Option<u128> {
        self.lock().get(&replica)?.processes.held()
    }

    /// True if a membership names it.
    pub(super) fn knows(&self, replica: ReplicaId) -> bool {
        self.lock().contains_key(&replica)
    }

    /// Where members have told that they are.
    pub(super) fn whereabouts(&self) -> Vec<(ReplicaId, String)> {
        let all = self.lock();
        let told = all.iter().filter_map(|(id, contact)| Some((*id, contact.told.as_ref()?)));
        told.map(|(id, told)| (id, told.peer.clone())).take(HINTS_MAX).collect()
    }

    /// Takes hints at where members are. They are tried last, and it counts whose data answers there.
    pub(crate) fn hint(&self, hints: Vec<(ReplicaId, String)>) {
        let mut all = self.lock();
        let sound = |addr: &str| addr.len() <= ADDR_BYTES_MAX && !addr.contains(char::is_control);
        for (replica, addr) in hints.into_iter().take(HINTS_MAX).filter(|hint| sound(&hint.1)) {
            if let Some(contact) = all.get_mut(&replica) {
                contact.hinted = Some(addr);
            }
        }
    }

    /// The process that counts as `replica` if it is `session` says that its data has this generation now.
    pub(super) fn raised(&self, replica: ReplicaId, session: u128, generation: u64) {
        if self.session(replica) == Some(session) {
            self.generations.note(replica, Newest { session, generation });
        }
    }

    /// Another member tells of the newest data of members.
    pub(crate) fn hear_newest(&self, told: Vec<(ReplicaId, Newest)>) {
        for (replica, newest) in told.into_iter().take(HINTS_MAX) {
            if self.knows(replica) {
                self.generations.note(replica, newest);
            }
        }
    }

    /// The processes beside `session` that count as the member, or did and are not known to have ended.
    pub(super) fn others(&self, replica: ReplicaId, session: u128) -> Vec<Process> {
        let all = self.lock();
        let Some(contact) = all.get(&replica) else { return Vec::new() };
        let mut others = contact.processes.rivals();
        others.extend(contact.held());
        others.retain(|other| other.session != session);
        others
    }

    /// Another process than the one that counts has answered at `addr`.
    pub(super) fn found(&self, replica: ReplicaId, addr: &str) {
        if let Some(contact) = self.lock().get_mut(&replica) {
            contact.found = Some(addr.to_owned());
        }
    }

    /// Where other processes than those that count have answered since the last call.
    pub(super) fn take_found(&self) -> Vec<(ReplicaId, String)> {
        let mut all = self.lock();
        let found = all.iter_mut().filter_map(|(id, contact)| Some((*id, contact.found.take()?)));
        found.collect()
    }

    /// Changes what is known of the member's processes.
    pub(super) fn of_processes<T>(
        &self,
        replica: ReplicaId,
        change: impl FnOnce(&mut Processes) -> T,
    ) -> Option<T> {
        self.lock().get_mut(&replica).map(|contact| change(&mut contact.processes))
    }

    /// The member said who it is. None if another process counts as the member; else what the connections of this one share.
    pub(super) fn met(
        &self,
        replica: ReplicaId,
        hello: &Hello,
        seen: Seen<'_>,
    ) -> Option<Arc<Validity>> {
        let intro = hello.intro.as_ref()?;
        let mut all = self.lock();
        let contact = all.get_mut(&replica)?;
        let before = contact.processes.held();
        let validity = contact.processes.hold(intro.session)?;
        let newest = Newest { session: intro.session, generation: intro.generation };
        self.generations.note(replica, newest);
        if before != Some(intro.session) {
            contact.source = None;
        }
        if let Seen::From(remote) = seen {
            contact.source = Some(source_of(intro, remote));
        }
        if Mutant::MoveIgnored.is_active() {
            return Some(validity);
        }
        let told = intro_address(intro, seen.addr());
        if contact.told.as_ref() != Some(&told) {
            // It is tried next, if the others do not work.
            contact.turn = 0;
            if contact.failing.is_some() {
                contact.reached = Some(told.peer.clone()).filter(|addr| !addr.is_empty());
            }
            contact.newest.clone_from(&told.peer);
            contact.told = Some(told);
        }
        Some(validity)
    }

    /// Two processes have the member's data.
    pub(super) fn twin(&self, replica: ReplicaId, reason: &str) {
        let mut all = self.lock();
        let Some(contact) = all.get_mut(&replica) else { return };
        let now = Instant::now();
        let since = contact.twin.as_ref().map_or(now, |twin| twin.since);
        if contact.twin.as_ref().is_none_or(|twin| twin.seen.elapsed() > WARNING_PAUSE) {
            tracing::warn!(member = %replica, reason, "two processes have one member's data");
        }
        contact.twin = Some(Twin { since, seen: now, reason: reason.to_owned() });
    }

    /// Warns of members that have not been reached for a while, now and then.
    pub(crate) fn warn(&self) {
        for (replica, contact) in self.lock().iter_mut() {
            if let Some(failing) = &mut contact.failing {
                failing.warn(*replica, "a member cannot be reached");
            } else if let Some(failing) = &mut contact.bulk_failing {
                failing.warn(*replica, "a member cannot be sent entries");
            }
        }
    }

    /// Members that are not reached, and those that two processes claim to be.
    pub(crate) fn troubled(&self) -> Vec<(ReplicaId, Option<Failing>, Option<Twin>)> {
        let all = self.lock();
        let recent = |twin: &Twin| twin.seen.elapsed() < WARNING_PAUSE;
        let trouble = all.iter().map(|(replica, contact)| {
            let failing = contact.failing.as_ref().or(contact.bulk_failing.as_ref());
            let failing = failing.filter(|failing| failing.is_told()).cloned();
            (*replica, failing, contact.twin.clone().filter(recent))
        });
        trouble.filter(|(_, failing, twin)| failing.is_some() || twin.is_some()).collect()
    }
}

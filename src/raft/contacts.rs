//! What is known of the other members: where each is reached, since when one is not, and whose data is gone.
//!
//! A membership has addresses, and a member may move. What counts is its data: a node that proves in its handshake that
//! it has the data of a member is that member, wherever it is. So a link tries the address that memberships list and the
//! one that the member itself told, and stays with the one that works.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::types::Address;
use crate::member::{NodeId, ReplicaId};
use crate::mutant::Mutant;
use crate::wire::{ADDR_BYTES_MAX, Hello};

/// Addresses of one member by the memberships of logs, which differ while a change goes from log to log.
const LISTED_MAX: usize = 4;
/// Members that one tells another of.
const HINTS_MAX: usize = 256;
/// A member that cannot be reached is warned of after that time.
const WARNED_AFTER: Duration = Duration::from_secs(2);
/// Pause between two warnings about one member.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Why a member is not reached.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub(crate) since: Instant,
    pub(crate) reason: String,
    /// The node there has other data than the member was added with.
    pub(crate) lost_data: bool,
    warned: Option<Instant>,
}

impl Failing {
    /// What is wrong with the member of this number, in a sentence's part.
    pub(crate) fn describe(&self, node: NodeId) -> String {
        format!(
            "node {node}, not reached for {} s: {}",
            self.since.elapsed().as_secs(),
            self.reason
        )
    }
}

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
    /// As another member says.
    hinted: Option<String>,
    /// What is tried first: where it was reached last, or says that it is now.
    reached: Option<String>,
    /// Which of the candidates is tried next.
    turn: usize,
    failing: Option<Failing>,
    /// Number of the process that was met last.
    session: Option<u128>,
    /// Connections of that process to this node.
    inbound: usize,
    twin: Option<Twin>,
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
}

/// `addr`, with the host of `from` if its own is unspecified.
fn on_host(addr: &str, from: &str) -> String {
    let unspecified = addr.parse().is_ok_and(|addr: SocketAddr| addr.ip().is_unspecified());
    match (unspecified, from.rsplit_once(':'), addr.rsplit_once(':')) {
        (true, Some((host, _)), Some((_, port))) => format!("{host}:{port}"),
        _ => addr.to_owned(),
    }
}

/// All members that this node has to do with.
#[derive(Debug, Default)]
pub(crate) struct Contacts(Mutex<BTreeMap<ReplicaId, Contact>>);

impl Contacts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Contact>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A membership lists the member at this address.
    pub(crate) fn list(&self, replica: ReplicaId, addr: &str) {
        let mut all = self.lock();
        let contact = all.entry(replica).or_default();
        if contact.listed.first().is_some_and(|first| first == addr) {
            return;
        }
        contact.listed.retain(|listed| listed != addr);
        contact.listed.insert(0, addr.to_owned());
        contact.listed.truncate(LISTED_MAX);
    }

    pub(super) fn forget(&self, gone: impl Fn(ReplicaId) -> bool) {
        self.lock().retain(|replica, _| !gone(*replica));
    }

    /// Where to dial next.
    pub(super) fn addr(&self, replica: ReplicaId) -> String {
        let all = self.lock();
        let Some(contact) = all.get(&replica) else { return String::new() };
        let candidates = contact.candidates();
        let at = contact.turn % candidates.len().max(1);
        candidates.get(at).copied().unwrap_or_default().to_owned()
    }

    /// How a dial of `addr` ended.
    pub(super) fn dialed(&self, replica: ReplicaId, addr: &str, failure: Option<String>) {
        let mut all = self.lock();
        let Some(contact) = all.get_mut(&replica) else { return };
        let Some(reason) = failure else {
            contact.reached = Some(addr.to_owned());
            contact.turn = 0;
            if contact.failing.take().is_some_and(|failing| failing.warned.is_some()) {
                tracing::info!(member = %replica, addr, "the member is reached again");
            }
            return;
        };
        // A member's links often dial at the same time: if each failure counted, they would pass over every other address.
        let candidates = contact.candidates();
        if candidates.get(contact.turn % candidates.len().max(1)) == Some(&addr) {
            contact.turn = contact.turn.wrapping_add(1);
        }
        let failing = contact.failing.get_or_insert_with(|| Failing {
            since: Instant::now(),
            reason: String::new(),
            lost_data: false,
            warned: None,
        });
        // That its data is gone says more than that nobody is at another address.
        if !failing.lost_data {
            failing.reason = reason;
        }
    }

    /// The node that answered at the member's address has other data than the member.
    pub(super) fn lost_data(&self, replica: ReplicaId, reason: &str) {
        let mut all = self.lock();
        let Some(contact) = all.get_mut(&replica) else { return };
        let warned = contact.failing.as_ref().and_then(|failing| failing.warned);
        let since = contact.failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
        let reason = reason.to_owned();
        contact.failing = Some(Failing { since, reason, lost_data: true, warned });
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
            contact.reached = Some(addr.to_owned());
        }
    }

    /// True if the member has said who it is with the number of its process.
    pub(crate) fn introduces_itself(&self, replica: ReplicaId) -> bool {
        self.lock().get(&replica).is_some_and(|contact| contact.session.is_some())
    }

    /// True if a membership names it.
    pub(super) fn knows(&self, replica: ReplicaId) -> bool {
        self.lock().contains_key(&replica)
    }

    /// The process of the member that this node has a connection of, if it is another than `session`.
    pub(crate) fn other_session(&self, replica: ReplicaId, session: u128) -> Option<u128> {
        let all = self.lock();
        let contact = all.get(&replica)?;
        contact.session.filter(|held| *held != session && contact.inbound > 0)
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

    /// Where the member's process may be.
    pub(super) fn places(&self, replica: ReplicaId) -> Vec<String> {
        let all = self.lock();
        let Some(contact) = all.get(&replica) else { return Vec::new() };
        let told = contact.told.iter().map(|told| told.peer.clone());
        let mut places: Vec<String> = told.chain(contact.reached.clone()).collect();
        places.dedup();
        places
    }

    /// The member said who it is, from the host `from`. What it calls an unspecified address is one on that host.
    pub(super) fn met(&self, replica: ReplicaId, hello: &Hello, from: &str) {
        let Some(intro) = &hello.intro else { return };
        let mut all = self.lock();
        let Some(contact) = all.get_mut(&replica) else { return };
        if contact.session.replace(intro.session) != Some(intro.session) {
            contact.inbound = 0;
        }
        if Mutant::MoveIgnored.is_active() {
            return;
        }
        let told = Address {
            peer: on_host(&intro.peer_addr, from),
            client: on_host(&intro.client_addr, from),
        };
        if contact.told.as_ref() != Some(&told) {
            // It is tried next, if the others do not work.
            contact.turn = 0;
            if contact.failing.is_some() {
                contact.reached = Some(told.peer.clone()).filter(|addr| !addr.is_empty());
            }
            contact.told = Some(told);
        }
    }

    /// Counts a connection of a member's process to this node.
    pub(super) fn came(&self, replica: ReplicaId, session: u128) {
        let mut all = self.lock();
        let contact = all.get_mut(&replica).filter(|contact| contact.session == Some(session));
        if let Some(contact) = contact {
            contact.inbound += 1;
        }
    }

    /// The end of a connection that `came`.
    pub(super) fn went(&self, replica: ReplicaId, session: u128) {
        let mut all = self.lock();
        let contact = all.get_mut(&replica).filter(|contact| contact.session == Some(session));
        if let Some(contact) = contact {
            contact.inbound = contact.inbound.saturating_sub(1);
        }
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
            let Some(failing) = &mut contact.failing else { continue };
            let lasts = failing.since.elapsed();
            let due =
                failing.warned.map_or(lasts >= WARNED_AFTER, |at| at.elapsed() >= WARNING_PAUSE);
            if due {
                failing.warned = Some(Instant::now());
                let reason = &failing.reason;
                tracing::warn!(member = %replica, ?lasts, reason, "a member cannot be reached");
            }
        }
    }

    /// Members that are not reached, and those that two processes claim to be.
    pub(crate) fn troubled(&self) -> Vec<(ReplicaId, Option<Failing>, Option<Twin>)> {
        let all = self.lock();
        let recent = |twin: &Twin| twin.seen.elapsed() < WARNING_PAUSE;
        let trouble = all.iter().map(|(replica, contact)| {
            let failing = contact
                .failing
                .clone()
                .filter(|f| f.lost_data || f.since.elapsed() >= WARNED_AFTER);
            (*replica, failing, contact.twin.clone().filter(recent))
        });
        trouble.filter(|(_, failing, twin)| failing.is_some() || twin.is_some()).collect()
    }
}

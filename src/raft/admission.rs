//! Which process of a member is let in: see [`Processes`](super::processes::Processes) for the rule.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::contacts::{Contacts, Seen, intro_address, source_of};
use super::peers::{Lane, Links, Peers};
use super::processes::{Look, Process, Processes, RIVAL_HOLDS, SILENCE_MAX, Validity};
use super::standing::TWIN;
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::wire::{Hello, Intro, Probed, probe};

/// How long a process may take to say that it is there.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks at who else may count, before a process that is to come in has to ask again. One look is enough unless others
/// come in meanwhile.
const LOOKS_MAX: usize = 3;

/// A member's connection to this node.
pub(crate) struct Visit {
    pub(crate) replica: ReplicaId,
    session: u128,
    validity: Arc<Validity>,
}

impl Visit {
    /// Whether what comes in still counts.
    ///
    /// # Errors
    /// The reason to end the connection: another process has the member's place, or two claim it.
    pub(crate) fn counts(&self) -> Result<(), String> {
        if self.validity.hear() {
            return Ok(());
        }
        Err(format!("another process says that it is node {}", self.replica.node))
    }

    /// The member says that its data has this generation now.
    pub(super) fn raised(&self, contacts: &Contacts, generation: u64) {
        contacts.raised(self.replica, self.session, generation);
    }
}

impl Peers {
    /// Lets a node in that has dialed this one, from `remote`.
    ///
    /// # Errors
    /// Another process with the same data may run: one of the two is a copy.
    pub(crate) async fn admit(&self, hello: &Hello, remote: &str) -> Result<Option<Visit>, String> {
        let Some(intro) = &hello.intro else { return Ok(None) };
        let own = self.identity.hello(0, 0);
        if intro.expects != 0 && intro.expects != own.incarnation {
            // The dialer will refuse when it learns who answers.
            self.standing.data_lost(&format!(
                "the cluster knows node {} with other data than it has now: remove it from the cluster, then add it \
                 again",
                own.node_id
            ));
        }
        let replica = ReplicaId { node: hello.node_id, incarnation: hello.incarnation };
        if !self.contacts.knows(replica) {
            return Ok(None);
        }
        let validity = self.let_in(replica, hello, intro, Seen::From(remote)).await?;
        self.retry_now(replica);
        Ok(Some(Visit { replica, session: intro.session, validity }))
    }

    /// Has a process count whose connection was let in before it was a member. None if it is none yet.
    ///
    /// # Errors
    /// Another process counts as the member: this one has to say hello again.
    pub(super) fn admit_listed(
        &self,
        hello: &Hello,
        remote: &str,
    ) -> Result<Option<Visit>, String> {
        let replica = ReplicaId { node: hello.node_id, incarnation: hello.incarnation };
        let listed = self.contacts.knows(replica) && !Mutant::UnlistedStays.is_active();
        let Some(intro) = hello.intro.as_ref().filter(|_| listed) else { return Ok(None) };
        self.contacts.generations.check(replica, intro)?;
        let Some(validity) = self.contacts.met(replica, hello, Seen::From(remote)) else {
            return Err(format!(
                "another process may be node {}, too: say hello again",
                replica.node
            ));
        };
        self.retry_now(replica);
        Ok(Some(Visit { replica, session: intro.session, validity }))
    }

    /// Lets a process count as `replica`, if no other one does.
    async fn let_in(
        &self,
        replica: ReplicaId,
        hello: &Hello,
        intro: &Intro,
        seen: Seen<'_>,
    ) -> Result<Arc<Validity>, String> {
        let session = intro.session;
        self.contacts.of_processes(replica, |processes| processes.was_heard(session));
        let mut ended = Vec::new();
        for _ in 0..LOOKS_MAX {
            for other in self.contacts.others(replica, session) {
                if let Some(addr) = self.may_run(replica, &other, intro, seen).await? {
                    self.refuse(replica, intro, seen, &addr)?;
                }
                ended.push(other.session);
            }
            self.contacts.generations.check(replica, intro)?;
            self.contacts.of_processes(replica, |processes| {
                ended.iter().for_each(|session| processes.ended(*session));
            });
            // Another one may have come in while the one before was looked for.
            if let Some(validity) = self.contacts.met(replica, hello, seen) {
                if !ended.is_empty() {
                    renew(&self.links, replica, None);
                }
                return Ok(validity);
            }
        }
        Err(format!("other processes say at the same time that they are node {}", replica.node))
    }

    /// Lets processes in that this node has found at other addresses, and that may be unable to dial it.
    pub(crate) async fn let_in_found(&self) {
        for (replica, addr) in self.contacts.take_found() {
            // Another process may be there by now.
            let Probed::Answered(hello) = self.probe(&addr).await else { continue };
            let Some(intro) = intro_of(&hello, replica) else { continue };
            if self.let_in(replica, &hello, intro, Seen::At(&addr)).await.is_ok() {
                self.retry_now(replica);
            }
        }
    }

    /// Where another process with the data of `replica` runs, as one comes that says `intro`; none if it has ended.
    ///
    /// # Errors
    /// That is not known yet.
    async fn may_run(
        &self,
        replica: ReplicaId,
        other: &Process,
        intro: &Intro,
        seen: Seen<'_>,
    ) -> Result<Option<String>, String> {
        if Mutant::TwinAdmitted.is_active() {
            return Ok(None);
        }
        let places: Vec<&str> = other.all_places().collect();
        if other.is_near && Mutant::NearRivalRuns.is_active() {
            return Ok(Some(places.join(" or ")));
        }
        let asking = places.iter().map(|addr| self.probe(addr));
        let answers = futures_util::future::join_all(asking).await;
        let (told, source) =
            (intro_address(intro, seen.addr()).peer, source_of(intro, seen.addr()));
        let mut silent = places.is_empty();
        for (addr, answer) in places.iter().copied().zip(answers) {
            match answer {
                Probed::Answered(hello) if session_of(&hello, replica) == Some(other.session) => {
                    self.contacts
                        .of_processes(replica, |processes| processes.was_heard(other.session));
                    return Ok(Some(addr.to_owned()));
                }
                // Another one has its place.
                Probed::Answered(_) | Probed::Nobody => {}
                Probed::Silent => silent |= !other.may_be_silent_at(addr, &told, &source),
            }
        }
        if other.is_near {
            // It may have been stopped right after.
            return Err(format!(
                "another process said a moment ago that it is node {}, and does not answer now: whether it has ended is \
                 known in {} s at the latest",
                replica.node,
                RIVAL_HOLDS.as_secs()
            ));
        }
        if !silent || Mutant::SilentCountsAsEnded.is_active() {
            return Ok(None);
        }
        let places = places.join(" and ");
        let look = |processes: &mut Processes| processes.was_silent(other.session);
        match self.contacts.of_processes(replica, look) {
            None | Some(Look::Ended) => Ok(None),
            Some(Look::Runs) => Ok(Some(format!("{places}, where it does not answer but sends"))),
            Some(Look::Unknown) => Err(format!(
                "node {} was at {places} before, where nobody answers: that process may still run; this is known in {} s \
                 at the latest",
                replica.node,
                SILENCE_MAX.as_secs()
            )),
        }
    }

    /// Refuses a process because another one with the same data answers at `addr`.
    fn refuse(
        &self,
        replica: ReplicaId,
        intro: &Intro,
        seen: Seen<'_>,
        addr: &str,
    ) -> Result<(), String> {
        let told = intro_address(intro, seen.addr()).peer;
        let (node, took_part) = (replica.node, intro.took_part);
        let reason = match took_part {
            false => format!(
                "{TWIN}: node {node} runs at {addr}, and says that it is at {told} too; stop the copy"
            ),
            true => format!(
                "{TWIN}: node {node} runs at {addr} and at {told}, and both have taken part in the cluster: neither \
                 counts until one of them is stopped. What either has acknowledged the other may lack: if you do not \
                 know which one is the copy, stop both, remove the node, and add it again with an empty data directory"
            ),
        };
        let source = source_of(intro, seen.addr());
        let (session, places, source) = (intro.session, vec![told], Some(source));
        let process = Process { session, places, source, is_near: true, is_connected: false };
        let both =
            self.contacts.of_processes(replica, |processes| processes.refuse(process, took_part));
        self.contacts.twin(replica, &reason);
        if both == Some(true) {
            renew(&self.links, replica, None);
        }
        Err(reason)
    }

    async fn probe(&self, addr: &str) -> Probed {
        let hello = self.own_hello(0, 0);
        probe(&self.transport, addr, &hello, &self.limits, PROBE_TIMEOUT).await
    }

    /// True if the process that counts as `replica` answers at `addr`.
    pub(super) async fn is_at(&self, replica: ReplicaId, addr: &str) -> bool {
        let Probed::Answered(hello) = self.probe(addr).await else { return false };
        let session = session_of(&hello, replica);
        session.is_some() && session == self.contacts.session(replica)
    }
}

/// What a node says of itself that is `replica`.
fn intro_of(hello: &Hello, replica: ReplicaId) -> Option<&Intro> {
    let is_it = hello.node_id == replica.node && hello.incarnation == replica.incarnation;
    hello.intro.as_ref().filter(|_| is_it)
}

/// The session of a node that is `replica`.
fn session_of(hello: &Hello, replica: ReplicaId) -> Option<u128> {
    intro_of(hello, replica).map(|intro| intro.session)
}

/// Ends the connections to a member, whose process is another now, and begins to make others; `but` is just being made.
fn renew(links: &Links, replica: ReplicaId, but: Option<Lane>) {
    let links = links.lock().unwrap_or_else(PoisonError::into_inner);
    let others = links.iter().filter(|((id, lane), _)| *id == replica && Some(*lane) != but);
    others.for_each(|(_, link)| link.renew());
}

/// Decides about a process with the data of `replica` that answers at `addr`.
pub(super) fn meet(
    contacts: &Contacts,
    links: &Weak<Links>,
    (replica, lane): (ReplicaId, Lane),
    hello: &Hello,
    addr: &str,
) -> Result<(), String> {
    let session = session_of(hello, replica).unwrap_or_default();
    let others = contacts.others(replica, session);
    // A process that has the place of another one proves that the other has ended.
    let alone = others.iter().all(|other| other.is_replaced_at(addr));
    if alone || Mutant::TwinAdmitted.is_active() {
        let checked =
            hello.intro.iter().try_for_each(|intro| contacts.generations.check(replica, intro));
        if let Err(reason) = checked {
            if lane == Lane::Control {
                contacts.lost_data(replica, addr, &reason);
            }
            // In other words than a refusal by the other end, which would be about this node.
            return Err(format!("the node at {addr} does not count: {reason}"));
        }
        for other in &others {
            contacts.of_processes(replica, |processes| processes.ended(other.session));
        }
        if contacts.met(replica, hello, Seen::At(addr)).is_some() {
            if let Some(links) = links.upgrade().filter(|_| !others.is_empty()) {
                renew(&links, replica, Some(lane));
            }
            return Ok(());
        }
    }
    contacts.found(replica, addr);
    Err(format!(
        "another process may be node {}, too: this one is talked to once the other is known to have ended",
        replica.node
    ))
}

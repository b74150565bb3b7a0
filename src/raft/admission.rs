//! Which process of a member is let in: see [`Processes`](super::processes::Processes) for the rule.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::contacts::{Contacts, intro_address};
use super::peers::{Lane, Links, Peers};
use super::processes::{Process, SILENCE_MAX};
use super::standing::TWIN;
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::wire::{Hello, Probed, probe};

/// How long a process may take to say that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A member's connection to this node.
pub(crate) struct Visit {
    pub(crate) replica: ReplicaId,
    counts: Arc<AtomicBool>,
}

impl Visit {
    /// Whether what comes in still counts.
    ///
    /// # Errors
    /// The reason to end the connection: another process has the member's place, or two claim it.
    pub(crate) fn counts(&self) -> Result<(), String> {
        if self.counts.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(format!("another process says that it is node {}", self.replica.node))
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
        self.let_in(replica, hello, intro.session, remote).await?;
        self.retry_now(replica);
        let counts = self.contacts.validity(replica);
        Ok(counts.map(|counts| Visit { replica, counts }))
    }

    /// Lets a process count as `replica`, if no other one does.
    async fn let_in(
        &self,
        replica: ReplicaId,
        hello: &Hello,
        session: u128,
        from: &str,
    ) -> Result<(), String> {
        self.contacts.of_processes(replica, |processes| processes.was_heard(session));
        let mut alone = true;
        for other in self.contacts.others(replica, session) {
            if let Some(addr) = self.may_run(replica, &other).await? {
                self.refuse(replica, hello, from, &addr)?;
            }
            self.contacts.of_processes(replica, |processes| processes.ended(other.session));
            alone = false;
        }
        let replaced = self.contacts.met(replica, hello, from);
        if replaced || !alone {
            renew(&self.links, replica, None);
        }
        Ok(())
    }

    /// Lets processes in that this node has found at other addresses, and that may be unable to dial it.
    pub(crate) async fn let_in_found(&self) {
        for (replica, hello, addr) in self.contacts.take_found() {
            let session = session_of(&hello, replica).unwrap_or_default();
            if self.let_in(replica, &hello, session, &addr).await.is_ok() {
                self.retry_now(replica);
            }
        }
    }

    /// Where another process with the data of `replica` runs; none if it has ended.
    ///
    /// # Errors
    /// That is not known yet.
    async fn may_run(&self, replica: ReplicaId, other: &Process) -> Result<Option<String>, String> {
        if Mutant::TwinAdmitted.is_active() {
            return Ok(None);
        }
        if other.is_near {
            return Ok(Some(other.places.join(" or ")));
        }
        let asking = other.places.iter().map(|addr| self.probe(addr));
        let answers = futures_util::future::join_all(asking).await;
        let mut silent = other.places.is_empty();
        for (addr, answer) in other.places.iter().zip(answers) {
            match answer {
                Probed::Answered(hello) if session_of(&hello, replica) == Some(other.session) => {
                    self.contacts
                        .of_processes(replica, |processes| processes.was_heard(other.session));
                    return Ok(Some(addr.clone()));
                }
                // Another one has its place.
                Probed::Answered(_) | Probed::Nobody => {}
                Probed::Silent => silent = true,
            }
        }
        let over = self
            .contacts
            .of_processes(replica, |processes| !silent || processes.was_silent(other.session));
        if over.unwrap_or(true) || Mutant::SilentCountsAsEnded.is_active() {
            return Ok(None);
        }
        Err(format!(
            "node {} was at {} before, where nobody answers: that process may still run; this is known in {} s at the \
             latest",
            replica.node,
            other.places.join(" and "),
            SILENCE_MAX.as_secs()
        ))
    }

    /// Refuses a process because another one with the same data answers at `addr`.
    fn refuse(
        &self,
        replica: ReplicaId,
        hello: &Hello,
        remote: &str,
        addr: &str,
    ) -> Result<(), String> {
        let Some(intro) = &hello.intro else { return Ok(()) };
        let told = &intro_address(intro, remote).peer;
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
        let mut places = vec![told.to_owned(), on_host_of(remote, told)];
        places.dedup();
        let process = Process { session: intro.session, places, is_near: true };
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

/// The port of `addr` on the host that a connection came from: a copy may tell the address of the original.
fn on_host_of(remote: &str, addr: &str) -> String {
    match (remote.rsplit_once(':'), addr.rsplit_once(':')) {
        (Some((host, _)), Some((_, port))) => format!("{host}:{port}"),
        _ => addr.to_owned(),
    }
}

/// The session of a node that is `replica`.
fn session_of(hello: &Hello, replica: ReplicaId) -> Option<u128> {
    let is_it = hello.node_id == replica.node && hello.incarnation == replica.incarnation;
    hello.intro.as_ref().filter(|_| is_it).map(|intro| intro.session)
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
    for other in contacts.others(replica, session) {
        // A process that has the place of another one proves that the other has ended.
        if !other.places.iter().any(|place| place == addr) && !Mutant::TwinAdmitted.is_active() {
            contacts.found(replica, hello, addr);
            return Err(format!(
                "another process may be node {}, too: this one is talked to once the other is known to have ended",
                replica.node
            ));
        }
    }
    for other in contacts.others(replica, session) {
        contacts.of_processes(replica, |processes| processes.ended(other.session));
    }
    if contacts.met(replica, hello, addr)
        && let Some(links) = links.upgrade()
    {
        renew(&links, replica, Some(lane));
    }
    Ok(())
}

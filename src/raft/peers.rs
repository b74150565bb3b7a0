//! Links to the other nodes, shared by all logs: two connections to each, so that a heartbeat or a vote
//! does not wait behind megabytes of entries, of its own log or another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::contacts::Contacts;
use super::space::PeerSpace;
use super::standing::{Standing, TWIN};
use crate::member::{NodeId, ReplicaId};
use crate::mutant::Mutant;
use crate::wire::{Hello, HelloCheck, Link, LinkError, Place, Transport, WireLimits};

/// Pause before a node that was not reached, or was not ready, is asked again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a process may take to say that it is there, before another one with its data counts.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Who this node says it is, and whom it accepts.
pub(crate) trait Identity: Send + Sync + 'static {
    /// Our hello to `target`, or to any node that asks if 0. `expects` is the incarnation that the target is taken to have, 0
    /// if that is not known.
    fn hello(&self, target: NodeId, expects: u128) -> Hello;
    /// Whether the node behind `hello` may talk to us. What is learned from it is durable on return.
    ///
    /// # Errors
    /// The reason to refuse, for the other end's operator.
    fn check(&self, hello: &Hello) -> Result<(), String>;
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Small requests that must not wait: heartbeats, votes, reads, administration.
    Control,
    /// Entries and checkpoints.
    Bulk,
}

/// Links by replica and lane.
pub(crate) struct Peers {
    transport: Arc<dyn Transport>,
    identity: Arc<dyn Identity>,
    limits: WireLimits,
    links: Mutex<BTreeMap<(ReplicaId, Lane), Link>>,
    /// What they say of their disks.
    spaces: Mutex<BTreeMap<ReplicaId, Arc<PeerSpace>>>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) standing: Arc<Standing>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// Where a member is, for its links.
struct Whereabouts {
    replica: ReplicaId,
    contacts: Arc<Contacts>,
    standing: Arc<Standing>,
}

impl Place for Whereabouts {
    fn addr(&self) -> String {
        self.contacts.addr(self.replica)
    }

    fn dialed(&self, addr: &str, ended: Result<(), &LinkError>) {
        match ended {
            Ok(()) => self.standing.accepted(),
            Err(LinkError::Refused { reason, .. }) if reason.starts_with(TWIN) => {
                self.standing.twin(reason);
            }
            Err(_) => {}
        }
        self.contacts.dialed(self.replica, addr, ended.err().map(ToString::to_string));
    }
}

/// A member's connection to this node, while it lasts.
pub(crate) struct Visit {
    contacts: Arc<Contacts>,
    pub(crate) replica: ReplicaId,
    session: u128,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.contacts.went(self.replica, self.session);
    }
}

impl Peers {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        identity: Arc<dyn Identity>,
        limits: WireLimits,
    ) -> Self {
        let (links, spaces, contacts, standing) = Default::default();
        Self { transport, identity, limits, links, spaces, contacts, standing }
    }

    /// The link to `replica`, which a membership lists at `addr`. It may have moved; a node that lost its data does not
    /// get what is meant for the one that it was.
    pub(crate) fn link(&self, replica: ReplicaId, addr: &str, lane: Lane) -> Link {
        self.contacts.list(replica, addr);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.entry((replica, lane)).or_insert_with(|| self.new_member_link(replica)).clone()
    }

    fn new_member_link(&self, replica: ReplicaId) -> Link {
        let (contacts, standing) = (self.contacts.clone(), self.standing.clone());
        let place = Whereabouts { replica, contacts: contacts.clone(), standing };
        let expected = replica.incarnation;
        self.new_link(replica.node, expected, Arc::new(place), move |hello| {
            if hello.incarnation == expected || Mutant::WipedNodeAccepted.is_active() {
                contacts.met(replica, hello, &contacts.addr(replica));
                return Ok(());
            }
            let reason = format!(
                "node {} was a member with another data directory; its data is gone, and with it what it had \
                 acknowledged and voted: remove it from the cluster, then add it again",
                hello.node_id
            );
            contacts.lost_data(replica, &reason);
            Err(reason)
        })
    }

    /// Lets a node in that has dialed this one, from `remote`.
    ///
    /// # Errors
    /// Another process with the same data is connected, and answers: one of the two is a copy.
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
        if let Some(other) = self.contacts.other_session(replica, intro.session)
            && let Some(addr) = self.answers(replica, other).await
        {
            let reason = format!(
                "{TWIN}: node {} runs at {addr}, and says that it is at {} too; stop the copy",
                replica.node, intro.peer_addr
            );
            self.contacts.twin(replica, &reason);
            return Err(reason);
        }
        self.contacts.met(replica, hello, remote);
        self.retry_now(replica);
        self.contacts.came(replica, intro.session);
        Ok(Some(Visit { contacts: self.contacts.clone(), replica, session: intro.session }))
    }

    /// Where the process answers that this node has a connection with; it may have ended meanwhile.
    async fn answers(&self, replica: ReplicaId, session: u128) -> Option<String> {
        if Mutant::TwinAdmitted.is_active() {
            return None;
        }
        for addr in self.contacts.places(replica) {
            if self.session_at(replica, &addr).await == Some(session) {
                return Some(addr);
            }
        }
        None
    }

    /// The process of `replica` that answers at `addr`, if one does soon; otherwise it counts as gone.
    pub(super) async fn session_at(&self, replica: ReplicaId, addr: &str) -> Option<u128> {
        let told = Arc::new(OnceLock::new());
        let seen = Arc::clone(&told);
        let place = Arc::new(addr.to_owned());
        let link = self.new_link(replica.node, replica.incarnation, place, move |hello| {
            // A link dials once before it is connected.
            let _ = seen.set((hello.incarnation, hello.intro.as_ref().map(|intro| intro.session)));
            Ok(())
        });
        let connected = tokio::time::timeout(PROBE_TIMEOUT, link.connect()).await;
        link.close();
        connected.ok()?.ok()?;
        let (incarnation, session) = *told.get()?;
        session.filter(|_| incarnation == replica.incarnation)
    }

    /// Has the links to a member dial now: it has just been heard of.
    fn retry_now(&self, replica: ReplicaId) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter(|((id, _), _)| *id == replica).for_each(|(_, link)| link.retry_now());
    }

    /// Has a member dialed that this node does not reach, to find out whether it can.
    pub(super) fn look_for(&self, replica: ReplicaId) {
        self.retry_now(replica);
    }

    /// What `replica` says about its disk.
    pub(super) fn space(&self, replica: ReplicaId) -> Arc<PeerSpace> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(spaces.entry(replica).or_default())
    }

    /// Asks the node at `addr` which data it has.
    ///
    /// # Errors
    /// It is not reached, is not `node`, or belongs to another cluster.
    pub(crate) async fn identify(&self, node: NodeId, addr: &str) -> Result<ReplicaId, LinkError> {
        let told = Arc::new(OnceLock::new());
        let seen = Arc::clone(&told);
        let link = self.new_link(node, 0, Arc::new(addr.to_owned()), move |hello| {
            // A second dial of one link does not come before this one is done with.
            let _ = seen.set(ReplicaId { node, incarnation: hello.incarnation });
            Ok(())
        });
        let connected = link.connect().await;
        link.close();
        connected?;
        told.get().copied().ok_or_else(|| LinkError::Unreachable {
            addr: addr.to_owned(),
            detail: "it did not say who it is".to_owned(),
        })
    }

    fn new_link(
        &self,
        node: NodeId,
        expects: u128,
        place: Arc<dyn Place>,
        expected: impl Fn(&Hello) -> Result<(), String> + Send + Sync + 'static,
    ) -> Link {
        let identity = self.identity.clone();
        let hello = Arc::new(move || identity.hello(node, expects));
        let identity = self.identity.clone();
        let check: HelloCheck = Arc::new(move |hello: &Hello| {
            if hello.node_id != node {
                return Err(format!("expected node {node}, and node {} answered", hello.node_id));
            }
            expected(hello)?;
            identity.check(hello)
        });
        Link::new(self.transport.clone(), place, hello, check, self.limits.clone())
    }

    /// Lets go of a node that was removed.
    pub(crate) fn forget(&self, node: NodeId) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.retain(|replica, _| replica.node != node);
        drop(spaces);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        self.contacts.forget(|replica| replica.node == node);
        links.retain(|(replica, _), link| {
            let stays = replica.node != node;
            if !stays {
                link.close();
            }
            stays
        });
    }

    pub(crate) fn close(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for link in std::mem::take(&mut *links).into_values() {
            link.close();
        }
    }
}

//! Links to the other nodes, shared by all logs: two connections to each, so that a heartbeat or a vote
//! does not wait behind megabytes of entries, of its own log or another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::admission::meet;
use super::contacts::Contacts;
use super::generations::{Generations, OUTDATED};
use super::space::PeerSpace;
use super::standing::{Standing, TWIN};
use crate::format::superblock::Newest;
use crate::member::{NodeId, ReplicaId};
use crate::mutant::Mutant;
use crate::seam::Transport;
use crate::wire::{Hello, HelloCheck, Link, LinkError, Place, WireLimits};

/// Pause before a node that was not reached, or was not ready, is asked again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

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

type LinkMap = BTreeMap<(ReplicaId, Lane), Link>;
pub(super) type Links = Mutex<LinkMap>;

/// Links by replica and lane.
pub(crate) struct Peers {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) identity: Arc<dyn Identity>,
    pub(super) limits: WireLimits,
    pub(super) links: Arc<Links>,
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
    lane: Lane,
    contacts: Arc<Contacts>,
    standing: Arc<Standing>,
}

impl Place for Whereabouts {
    fn addr(&self) -> String {
        self.contacts.addr(self.replica)
    }

    fn dialed(&self, addr: &str, ended: Result<(), &LinkError>) {
        match ended {
            Ok(()) => {
                self.standing.accepted();
                self.contacts.generations.note_admitted_by(self.replica);
            }
            Err(LinkError::Refused { reason, .. }) if reason.starts_with(TWIN) => {
                self.standing.twin(reason);
            }
            Err(LinkError::Refused { reason, .. }) if reason.starts_with(OUTDATED) => {
                self.standing.outdated(reason);
            }
            Err(_) => {}
        }
        self.contacts.dialed(self.replica, self.lane, addr, ended.err());
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

    /// What it dials through.
    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The link to `replica`, which a membership lists at `addr`. It may have moved; a node that lost its data does not
    /// get what is meant for the one that it was.
    pub(crate) fn link(&self, replica: ReplicaId, addr: &str, lane: Lane) -> Link {
        let mut links = self.lock_links();
        // Under the lock: whoever lets go of it does not close what is handed out here.
        self.contacts.list(replica, addr);
        let link = links.entry((replica, lane));
        link.or_insert_with(|| self.new_member_link(replica, lane)).clone()
    }

    fn new_member_link(&self, replica: ReplicaId, lane: Lane) -> Link {
        let (contacts, standing) = (self.contacts.clone(), self.standing.clone());
        let place = Whereabouts { replica, lane, contacts: contacts.clone(), standing };
        let links = Arc::downgrade(&self.links);
        let expected = replica.incarnation;
        self.new_link(replica.node, expected, Arc::new(place), move |hello, addr| {
            if hello.incarnation == expected || Mutant::WipedNodeAccepted.is_active() {
                return meet(&contacts, &links, (replica, lane), hello, addr);
            }
            let reason = format!(
                "node {} was a member with another data directory; its data is gone, and with it what it had \
                 acknowledged and voted: remove it from the cluster, then add it again",
                hello.node_id
            );
            if lane == Lane::Control {
                contacts.lost_data(replica, addr, &reason);
            }
            Err(reason)
        })
    }

    pub(super) fn own_hello(&self, target: NodeId, expects: u128) -> Hello {
        with_standing(self.identity.hello(target, expects), &self.standing)
    }

    /// Has the links to a member dial now: it has just been heard of.
    pub(super) fn retry_now(&self, replica: ReplicaId) {
        let links = self.lock_links();
        links.iter().filter(|((id, _), _)| *id == replica).for_each(|(_, link)| link.retry_now());
    }

    fn lock_links(&self) -> MutexGuard<'_, LinkMap> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to connect to a member, unless this node is connected to it or waits before it tries again.
    pub(crate) fn poke(&self, replica: ReplicaId, addr: &str) {
        self.link(replica, addr, Lane::Control).poke();
        if self.contacts.bulk_fails(replica) {
            // Nobody may have entries for it now, and yet it should be known when they get through again.
            self.link(replica, addr, Lane::Bulk).poke();
        }
    }

    /// Another member tells of the newest data of members, and of this node's, which is `own`.
    pub(crate) fn hear_newest(&self, own: ReplicaId, told: Vec<(ReplicaId, Newest)>) {
        let of_own = told.iter().find(|(replica, _)| *replica == own).map(|(_, newest)| *newest);
        if let (Some(newest), Some(intro)) = (of_own, self.own_hello(0, 0).intro) {
            let known = Generations::default();
            known.note(own, newest);
            if let Err(reason) = known.check(own, &intro) {
                self.standing.outdated(&reason);
            }
        }
        self.contacts.hear_newest(told);
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
        let link = self.new_link(node, 0, Arc::new(addr.to_owned()), move |hello, _| {
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
        expected: impl Fn(&Hello, &str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Link {
        let (identity, standing) = (self.identity.clone(), self.standing.clone());
        let hello = Arc::new(move || with_standing(identity.hello(node, expects), &standing));
        let identity = self.identity.clone();
        let check: HelloCheck = Arc::new(move |hello: &Hello, addr: &str| {
            if hello.node_id != node {
                return Err(format!("expected node {node}, and node {} answered", hello.node_id));
            }
            expected(hello, addr)?;
            identity.check(hello)
        });
        Link::new(self.transport.clone(), place, hello, check, self.limits.clone())
    }

    /// Lets go of a node that was removed.
    pub(crate) fn forget(&self, node: NodeId) {
        self.let_go(self.lock_links(), |replica| replica.node == node);
    }

    /// Lets go of those that have been members of no log for a while; `members` are members of some.
    pub(crate) fn keep(&self, members: &BTreeSet<ReplicaId>) {
        let links = self.lock_links();
        let gone = self.contacts.gone(members);
        if !gone.is_empty() && !Mutant::RemovedMembersKept.is_active() {
            self.let_go(links, |replica| gone.contains(&replica));
        }
    }

    fn let_go(&self, mut links: MutexGuard<'_, LinkMap>, gone: impl Fn(ReplicaId) -> bool) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.retain(|replica, _| !gone(*replica));
        drop(spaces);
        self.contacts.forget(&gone);
        links.retain(|(replica, _), link| {
            let stays = !gone(*replica);
            if !stays {
                link.close();
            }
            stays
        });
    }

    pub(crate) fn close(&self) {
        let mut links = self.lock_links();
        for link in std::mem::take(&mut *links).into_values() {
            link.close();
        }
    }
}

fn with_standing(mut hello: Hello, standing: &Standing) -> Hello {
    if let Some(intro) = &mut hello.intro {
        intro.took_part = standing.took_part();
    }
    hello
}

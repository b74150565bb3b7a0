//! Links to the other nodes, shared by all logs: two connections to each, so that a heartbeat or a vote
//! does not wait behind megabytes of entries, of its own log or another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::space::PeerSpace;
use crate::member::{NodeId, ReplicaId};
use crate::mutant::Mutant;
use crate::wire::{Hello, HelloCheck, Link, LinkError, Transport, WireLimits};

/// Pause before a node that was not reached, or was not ready, is asked again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Who this node says it is, and whom it accepts.
pub(crate) trait Identity: Send + Sync + 'static {
    /// Our hello to `target`, or to whoever asks if 0.
    fn hello(&self, target: NodeId) -> Hello;
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
    links: Mutex<BTreeMap<(ReplicaId, Lane), (String, Link)>>,
    /// What they say of their disks.
    spaces: Mutex<BTreeMap<ReplicaId, Arc<PeerSpace>>>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Peers {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        identity: Arc<dyn Identity>,
        limits: WireLimits,
    ) -> Self {
        Self { transport, identity, limits, links: Mutex::default(), spaces: Mutex::default() }
    }

    /// The link to `replica` at `addr`; a changed address replaces it. A node that lost its data does not get what is
    /// meant for the one that it was.
    pub(crate) fn link(&self, replica: ReplicaId, addr: &str, lane: Lane) -> Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, link)) = links.get(&(replica, lane)) {
            if known == addr {
                return link.clone();
            }
            link.close();
        }
        let expected = replica.incarnation;
        let link = self.new_link(replica.node, addr, move |hello| {
            if hello.incarnation == expected || Mutant::WipedNodeAccepted.is_active() {
                return Ok(());
            }
            Err(format!(
                "node {} was a member with another data directory; its data is gone, and with it what it had \
                 acknowledged and voted: remove it from the cluster, then add it anew",
                hello.node_id
            ))
        });
        links.insert((replica, lane), (addr.to_owned(), link.clone()));
        link
    }

    /// What `replica` says of its disk.
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
        let link = self.new_link(node, addr, move |hello| {
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
        addr: &str,
        expected: impl Fn(&Hello) -> Result<(), String> + Send + Sync + 'static,
    ) -> Link {
        let identity = self.identity.clone();
        let hello = Arc::new(move || identity.hello(node));
        let identity = self.identity.clone();
        let check: HelloCheck = Arc::new(move |hello: &Hello| {
            if hello.node_id != node {
                return Err(format!("expected node {node}, and node {} answered", hello.node_id));
            }
            expected(hello)?;
            identity.check(hello)
        });
        Link::new(self.transport.clone(), addr.to_owned(), hello, check, self.limits.clone())
    }

    /// Lets go of a node that was removed.
    pub(crate) fn forget(&self, node: NodeId) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.retain(|replica, _| replica.node != node);
        drop(spaces);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|(replica, _), (_, link)| {
            let stays = replica.node != node;
            if !stays {
                link.close();
            }
            stays
        });
    }

    pub(crate) fn close(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, link) in std::mem::take(&mut *links).into_values() {
            link.close();
        }
    }
}

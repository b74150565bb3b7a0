//! Links to the other nodes, shared by all logs: two connections to each, so that a heartbeat or a vote
//! does not wait behind megabytes of entries, of its own log or another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::member::NodeId;
use crate::wire::{Hello, HelloCheck, Link, Transport, WireLimits};

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

/// Links by node and lane.
pub(crate) struct Peers {
    transport: Arc<dyn Transport>,
    identity: Arc<dyn Identity>,
    limits: WireLimits,
    links: Mutex<BTreeMap<(NodeId, Lane), (String, Link)>>,
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
        Self { transport, identity, limits, links: Mutex::new(BTreeMap::new()) }
    }

    /// The link to `node` at `addr`; a changed address replaces it.
    pub(crate) fn link(&self, node: NodeId, addr: &str, lane: Lane) -> Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, link)) = links.get(&(node, lane)) {
            if known == addr {
                return link.clone();
            }
            link.close();
        }
        let identity = self.identity.clone();
        let hello = Arc::new(move || identity.hello(node));
        let identity = self.identity.clone();
        let check: HelloCheck = Arc::new(move |hello: &Hello| {
            if hello.node_id != node {
                return Err(format!("expected node {node}, and node {} answered", hello.node_id));
            }
            identity.check(hello)
        });
        let link =
            Link::new(self.transport.clone(), addr.to_owned(), hello, check, self.limits.clone());
        links.insert((node, lane), (addr.to_owned(), link.clone()));
        link
    }

    /// Lets go of a node that was removed.
    pub(crate) fn forget(&self, node: NodeId) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in [Lane::Control, Lane::Bulk] {
            if let Some((_, link)) = links.remove(&(node, lane)) {
                link.close();
            }
        }
    }

    pub(crate) fn close(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, link) in std::mem::take(&mut *links).into_values() {
            link.close();
        }
    }
}

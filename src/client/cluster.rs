//! What a client knows of its cluster: nodes, logs, leaders. All of it may be out of date.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::ClientConfig;
use crate::member::{Member, MemberStatus, NodeId};
use crate::record::{LogId, LogName};
use crate::seam::Transport;
use crate::wire::{Hello, Link, Protocol, WireLimits};

/// Largest response that a client takes.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// Room for requests to one node beside the appends in flight.
const QUEUE_BYTES: usize = 128 << 20;
/// For dialing a node and its hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// One node, by the address that clients use.
#[derive(Clone)]
pub(super) struct NodeLink {
    pub(super) addr: Arc<str>,
    pub(super) link: Link,
}

/// What all clones of a client share.
pub(super) struct Cluster {
    pub(super) config: ClientConfig,
    /// Bytes of appends that may still begin.
    pub(super) room: Arc<Semaphore>,
    pub(super) searches: Searches,
    transport: Arc<dyn Transport>,
    directory: Mutex<Directory>,
}

#[derive(Default)]
struct Directory {
    nodes: BTreeMap<Arc<str>, NodeLink>,
    members: BTreeMap<NodeId, Member>,
    /// Where nodes have answered; memberships may list them elsewhere.
    places: BTreeMap<NodeId, Arc<str>>,
    logs: BTreeMap<LogName, LogId>,
    leaders: BTreeMap<LogId, NodeLink>,
    /// Where the next round over all nodes begins, so that no node gets all first attempts.
    turn: usize,
}

/// Searches for leaders: one at a time, and counted, so that one serves all who wait for it.
#[derive(Default)]
pub(super) struct Searches {
    turn: tokio::sync::Mutex<()>,
    finished: AtomicU64,
}

impl Searches {
    /// Waits until no search runs, and keeps others from beginning.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    pub(super) fn finish(&self, turn: tokio::sync::MutexGuard<'_, ()>) {
        self.finished.fetch_add(1, Ordering::Release);
        drop(turn);
    }
}

impl Cluster {
    pub(super) fn new(transport: Arc<dyn Transport>, config: ClientConfig) -> Self {
        let room = usize::try_from(config.inflight_max).unwrap_or(usize::MAX);
        let room = Arc::new(Semaphore::new(room.min(u32::MAX as usize)));
        let searches = Searches::default();
        let cluster = Self { config, room, searches, transport, directory: Mutex::default() };
        for addr in cluster.config.nodes.clone() {
            cluster.node(&addr);
        }
        cluster
    }

    /// The node at this address.
    pub(super) fn node(&self, addr: &str) -> NodeLink {
        let mut directory = self.directory();
        if let Some(node) = directory.nodes.get(addr) {
            return node.clone();
        }
        let node = NodeLink { addr: Arc::from(addr), link: self.link(addr) };
        directory.nodes.insert(Arc::clone(&node.addr), node.clone());
        node
    }

    fn link(&self, addr: &str) -> Link {
        let hello = Hello {
            protocol: Protocol::Client,
            cluster: 0,
            node_id: 0,
            incarnation: 0,
            target: 0,
            intro: None,
        };
        let inflight = usize::try_from(self.config.inflight_max).unwrap_or(usize::MAX);
        let limits = WireLimits {
            frame_bytes_max: FRAME_BYTES_MAX,
            queue_bytes_max: inflight.saturating_add(QUEUE_BYTES),
            queued: None,
            incoming: None,
            connections_max: 0,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        };
        let transport = Arc::clone(&self.transport);
        let hello = Arc::new(move || hello.clone());
        Link::new(transport, Arc::new(addr.to_owned()), hello, Arc::new(|_, _| Ok(())), limits)
    }

    /// All nodes, beginning with another one each time.
    pub(super) fn nodes(&self) -> Vec<NodeLink> {
        let mut directory = self.directory();
        let mut nodes: Vec<_> = directory.nodes.values().cloned().collect();
        if !nodes.is_empty() {
            directory.turn = (directory.turn + 1) % nodes.len();
            nodes.rotate_left(directory.turn);
        }
        nodes
    }

    /// The members, or the configured addresses if none are known.
    pub(super) fn members(&self) -> Vec<Member> {
        let members: Vec<_> = self.directory().members.values().cloned().collect();
        if !members.is_empty() {
            return members;
        }
        let nodes = self.config.nodes.iter();
        nodes.map(|addr| Member::new(0, "").with_client_addr(addr)).collect()
    }

    /// The node of this number, if it is known and serves clients.
    pub(super) fn member_node(&self, id: NodeId) -> Option<NodeLink> {
        let member = self.directory().members.get(&id).cloned();
        self.place_of(&member.unwrap_or_else(|| Member::new(id, "")))
    }

    /// Where a member is asked: where it has answered, or else where it is listed; none if it serves no clients.
    pub(super) fn place_of(&self, member: &Member) -> Option<NodeLink> {
        let answered = {
            let directory = self.directory();
            directory.places.get(&member.id).and_then(|addr| directory.nodes.get(addr)).cloned()
        };
        let listed = Some(&member.client_addr).filter(|addr| !addr.is_empty());
        answered.or_else(|| listed.map(|addr| self.node(addr)))
    }

    /// A node has answered.
    pub(super) fn learn_place(&self, id: NodeId, node: &NodeLink) {
        let mut directory = self.directory();
        directory.places.retain(|other, addr| *other == id || *addr != node.addr);
        if directory.places.get(&id) != Some(&node.addr) {
            directory.places.insert(id, Arc::clone(&node.addr));
        }
    }

    /// A node did not answer.
    pub(super) fn forget_place(&self, node: &NodeLink) {
        self.directory().places.retain(|_, addr| *addr != node.addr);
    }

    /// Replaces what is known of the members. Connections to nodes that left are closed once unused.
    pub(super) fn learn_members(&self, members: &[MemberStatus]) {
        if members.is_empty() {
            return;
        }
        let members: Vec<_> = members.iter().map(|status| status.member.clone()).collect();
        for member in members.iter().filter(|member| !member.client_addr.is_empty()) {
            self.node(&member.client_addr);
        }
        let mut directory = self.directory();
        directory.nodes.retain(|addr, _| {
            let addr: &str = addr;
            members.iter().any(|member| member.client_addr == addr)
                || self.config.nodes.iter().any(|node| node == addr)
        });
        directory.members = members.into_iter().map(|member| (member.id, member)).collect();
    }

    pub(super) fn learn_logs(&self, logs: &[(LogName, LogId)]) {
        self.directory().logs.extend(logs.iter().cloned());
    }

    pub(super) fn log_id(&self, name: &LogName) -> Option<LogId> {
        self.directory().logs.get(name).copied()
    }

    /// The log may have been deleted, and made anew under another number.
    pub(super) fn forget_log(&self, name: &LogName) {
        let mut directory = self.directory();
        if let Some(id) = directory.logs.remove(name) {
            directory.leaders.remove(&id);
        }
    }

    pub(super) fn leader(&self, log: LogId) -> Option<NodeLink> {
        self.directory().leaders.get(&log).cloned()
    }

    pub(super) fn learn_leader(&self, log: LogId, node: &NodeLink) {
        let mut directory = self.directory();
        if directory.leaders.get(&log).is_none_or(|known| known.addr != node.addr) {
            directory.leaders.insert(log, node.clone());
        }
    }

    pub(super) fn forget_leader(&self, log: LogId) {
        self.directory().leaders.remove(&log);
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

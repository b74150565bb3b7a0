//! Who this node is, and which other nodes it talks to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{StorageError, with_sources};
use crate::log::DataDir;
use crate::member::NodeId;
use crate::mutant::Mutant;
use crate::raft::Identity;
use crate::wire::{Hello, Protocol};

/// The node's superblock and the members that it knows.
pub(crate) struct NodeIdentity {
    node_id: NodeId,
    dir: Arc<DataDir>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    members: BTreeSet<NodeId>,
    /// Incarnations seen before any member was known.
    seen: BTreeMap<NodeId, u128>,
}

/// Nodes of unknown standing that are remembered; a bound against strangers.
const SEEN_MAX: usize = 1024;

impl NodeIdentity {
    pub(crate) fn new(node_id: NodeId, dir: Arc<DataDir>) -> Self {
        Self { node_id, dir, known: Mutex::default() }
    }

    pub(crate) fn cluster(&self) -> u128 {
        self.dir.cluster()
    }

    /// Gives a new cluster its id, unless this node has one. Durable on return.
    pub(crate) fn found_cluster(&self, random: u128) -> Result<(), StorageError> {
        if self.dir.cluster() != 0 {
            return Ok(());
        }
        self.dir.set_cluster(random)
    }

    /// Where `set_members` is to be told the history from.
    pub(crate) fn members_at(&self) -> u64 {
        self.dir.members_at()
    }

    /// Takes note of the members: remembers the incarnations of founders that were seen, durably. What is
    /// remembered of nodes that were removed is forgotten, so that they may come back with an empty
    /// directory. What a node said before it was added counts for founders only: it may have been removed,
    /// and have lost its data before it was added. `history` has the committed memberships from
    /// `members_at` on, with their indexes: a node may have been removed and added again while this one was
    /// down.
    pub(crate) fn set_members(
        &self,
        members: BTreeSet<NodeId>,
        history: &[(u64, BTreeSet<NodeId>)],
    ) -> Result<(), StorageError> {
        let mut known = self.known();
        let founding = known.members.is_empty() && self.dir.members_at() == 0;
        if let Some((last, _)) = history.last() {
            let left = |node: &NodeId| history.iter().any(|(_, members)| !members.contains(node));
            let gone: Vec<NodeId> = self.dir.peers().into_iter().filter(left).collect();
            self.dir.forget_peers(&gone, last + 1)?;
        }
        if founding {
            for (node, incarnation) in &known.seen {
                if members.contains(node) && self.dir.peer(*node).is_none() {
                    self.dir.set_peer(*node, *incarnation)?;
                }
            }
        }
        known.seen.clear();
        known.members = members;
        Ok(())
    }

    /// True if the incarnation of a node is known.
    pub(crate) fn has_met(&self, node: NodeId) -> bool {
        self.dir.peer(node).is_some()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, known: &mut Known, hello: &Hello) -> Result<(), StorageError> {
        if self.dir.cluster() == 0 && hello.cluster != 0 {
            self.dir.set_cluster(hello.cluster)?;
            tracing::info!(cluster = format!("{:032x}", hello.cluster), "joined a cluster");
        }
        if self.dir.peer(hello.node_id).is_none() {
            if known.members.contains(&hello.node_id) {
                self.dir.set_peer(hello.node_id, hello.incarnation)?;
            } else if known.members.is_empty() && known.seen.len() < SEEN_MAX {
                known.seen.insert(hello.node_id, hello.incarnation);
            }
        }
        Ok(())
    }
}

impl Identity for NodeIdentity {
    fn hello(&self, target: NodeId) -> Hello {
        Hello {
            protocol: Protocol::Peer,
            cluster: self.dir.cluster(),
            node_id: self.node_id,
            incarnation: self.dir.incarnation(),
            target,
        }
    }

    fn check(&self, hello: &Hello) -> Result<(), String> {
        let ours = self.dir.cluster();
        if hello.node_id == self.node_id || hello.node_id == 0 {
            return Err(format!("node id {} is taken", hello.node_id));
        }
        if hello.target != 0 && hello.target != self.node_id {
            return Err(format!("this is node {}, not node {}", self.node_id, hello.target));
        }
        if ours != 0 && hello.cluster != 0 && ours != hello.cluster {
            return Err(format!(
                "node {} belongs to cluster {:032x}, and this is cluster {ours:032x}",
                hello.node_id, hello.cluster
            ));
        }
        // Held over both, so that of two nodes with one id only the first is accepted.
        let mut known = self.known();
        let seen = self.dir.peer(hello.node_id);
        if seen.is_some_and(|seen| seen != hello.incarnation)
            && !Mutant::WipedNodeAccepted.is_active()
        {
            return Err(format!(
                "node {} was a member with another data directory; its data is gone, and with it \
                 what it had acknowledged and voted: remove it from the cluster, then add it anew",
                hello.node_id
            ));
        }
        self.learn(&mut known, hello).map_err(|error| with_sources(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::segment::sim_disk::SimDisk;

    fn identity(disk: &SimDisk) -> NodeIdentity {
        let dir = DataDir::open(disk.shared(), Path::new("/data"), 1).expect("it opens");
        NodeIdentity::new(1, Arc::new(dir))
    }

    fn hello(node_id: NodeId, incarnation: u128) -> Hello {
        Hello { protocol: Protocol::Peer, cluster: 9, node_id, incarnation, target: 1 }
    }

    fn ids(ids: &[NodeId]) -> BTreeSet<NodeId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_wiped_node_is_refused_until_it_was_removed_and_added_anew() {
        let disk = SimDisk::new();
        let node = identity(&disk);
        node.set_members(ids(&[1, 2, 3]), &[(0, ids(&[1, 2, 3]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("a member");
        assert!(node.check(&hello(3, 34)).is_err(), "its data is gone");
        // Both changes come at once.
        let history = [(5, ids(&[1, 2])), (7, ids(&[1, 2, 3]))];
        node.set_members(ids(&[1, 2, 3]), &history).expect("a healthy disk");
        node.check(&hello(3, 34)).expect("it was added anew");
        assert!(node.check(&hello(3, 33)).is_err(), "this is the one that was removed");
    }

    #[test]
    fn a_removed_node_that_still_says_hello_does_not_stand_for_the_one_that_is_added() {
        let disk = SimDisk::new();
        let node = identity(&disk);
        node.set_members(ids(&[1, 2, 3]), &[(0, ids(&[1, 2, 3]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("a member");
        node.set_members(ids(&[1, 2]), &[(5, ids(&[1, 2]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("it has not heard of its removal");
        // Then it loses its data and is added anew.
        node.set_members(ids(&[1, 2, 3]), &[(7, ids(&[1, 2, 3]))]).expect("a healthy disk");
        node.check(&hello(3, 34)).expect("it was added anew");
        assert!(node.check(&hello(3, 33)).is_err(), "this is the one that was removed");
    }

    #[test]
    fn what_a_stranger_said_does_not_stand_for_the_node_that_is_added_under_its_number() {
        let disk = SimDisk::new();
        let node = identity(&disk);
        node.set_members(ids(&[1, 2]), &[(0, ids(&[1, 2]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("removed before this node was a member");
        node.set_members(ids(&[1, 2, 3]), &[(7, ids(&[1, 2, 3]))]).expect("a healthy disk");
        node.check(&hello(3, 34)).expect("it was added with an empty directory");
        assert!(node.check(&hello(3, 33)).is_err(), "this is the one that was removed");
    }

    #[test]
    fn what_a_founder_said_before_the_cluster_was_founded_counts() {
        let disk = SimDisk::new();
        let node = identity(&disk);
        node.check(&hello(3, 33)).expect("nothing is known of it");
        node.set_members(ids(&[1, 2, 3]), &[(0, ids(&[1, 2, 3]))]).expect("a healthy disk");
        assert!(node.has_met(3));
        assert!(node.check(&hello(3, 34)).is_err(), "its data is gone");
    }

    #[test]
    fn a_removed_node_that_kept_its_data_comes_back_as_itself() {
        let disk = SimDisk::new();
        let node = identity(&disk);
        node.set_members(ids(&[1, 2, 3]), &[(0, ids(&[1, 2, 3]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("a member");
        node.set_members(ids(&[1, 2]), &[(5, ids(&[1, 2]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("it has not heard of its removal");
        node.set_members(ids(&[1, 2, 3]), &[(7, ids(&[1, 2, 3]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("it was added again");
        assert!(node.check(&hello(3, 34)).is_err(), "its data is gone");
    }

    #[test]
    fn a_node_that_was_down_meanwhile_hears_of_it_at_its_next_start() {
        let disk = SimDisk::new();
        let node = identity(&disk);
        node.set_members(ids(&[1, 2, 3]), &[(0, ids(&[1, 2, 3]))]).expect("a healthy disk");
        node.check(&hello(3, 33)).expect("a member");
        node.check(&hello(2, 22)).expect("a member");
        drop(node);
        let node = identity(&disk);
        assert_eq!(node.members_at(), 1);
        assert!(node.check(&hello(3, 34)).is_err(), "nothing is known of a removal");
        let history = [(5, ids(&[1, 2])), (7, ids(&[1, 2, 3]))];
        node.set_members(ids(&[1, 2, 3]), &history).expect("a healthy disk");
        node.check(&hello(3, 34)).expect("it was added anew");
        assert!(node.check(&hello(2, 23)).is_err(), "this one was never removed");
    }
}

//! Who this node is, and which other nodes it talks to.

use std::sync::Arc;

use crate::error::{StorageError, with_sources};
use crate::log::DataDir;
use crate::member::{Member, NodeId, ReplicaId};
use crate::raft::Identity;
use crate::wire::{Hello, Intro, Protocol};

/// What the node's superblock says. Whether another node has the data that it had when it was added is for those who
/// ask something of it: see `Peers`.
pub(crate) struct NodeIdentity {
    member: Member,
    dir: Arc<DataDir>,
    /// Random number of this process: two with the same data differ in it.
    session: u128,
    /// Generation of the data when this process began.
    began: u64,
}

impl NodeIdentity {
    /// After the run has begun.
    pub(crate) fn new(member: Member, dir: Arc<DataDir>, session: u128) -> Self {
        let began = dir.generation();
        Self { member, dir, session, began }
    }

    /// This node, with the data that it has.
    pub(crate) fn replica(&self) -> ReplicaId {
        ReplicaId { node: self.member.id, incarnation: self.dir.incarnation() }
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
}

impl Identity for NodeIdentity {
    fn hello(&self, target: NodeId, expects: u128) -> Hello {
        let Member { id, peer_addr, client_addr } = self.member.clone();
        Hello {
            protocol: Protocol::Peer,
            cluster: self.dir.cluster(),
            node_id: id,
            incarnation: self.dir.incarnation(),
            target,
            intro: Some(Intro {
                session: self.session,
                peer_addr,
                client_addr,
                expects,
                took_part: false,
                began: self.began,
                generation: self.dir.generation(),
            }),
        }
    }

    fn check(&self, hello: &Hello) -> Result<(), String> {
        let ours = self.dir.cluster();
        if hello.node_id == self.member.id || hello.node_id == 0 {
            return Err(format!("node id {} is taken", hello.node_id));
        }
        if hello.target != 0 && hello.target != self.member.id {
            return Err(format!("this is node {}, not node {}", self.member.id, hello.target));
        }
        if ours != 0 && hello.cluster != 0 && ours != hello.cluster {
            return Err(format!(
                "node {} belongs to cluster {:032x}, and this is cluster {ours:032x}",
                hello.node_id, hello.cluster
            ));
        }
        if ours == 0 && hello.cluster != 0 {
            self.dir.set_cluster(hello.cluster).map_err(|error| with_sources(&error))?;
            tracing::info!(cluster = format!("{:032x}", hello.cluster), "joined a cluster");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::seam::disk::sim::SimDisk;

    fn hello(node_id: NodeId, cluster: u128, target: NodeId) -> Hello {
        Hello { protocol: Protocol::Peer, cluster, node_id, incarnation: 33, target, intro: None }
    }

    #[test]
    fn a_node_joins_the_first_cluster_that_it_hears_of_and_talks_to_no_other() {
        let disk = SimDisk::new();
        let open = || {
            let dir = DataDir::open(disk.shared(), &disk, Path::new("/data"), 1).expect("it opens");
            NodeIdentity::new(Member::new(1, "node1:1"), Arc::new(dir), 7)
        };
        let node = open();
        node.check(&hello(2, 0, 1)).expect("it belongs to none, either");
        assert_eq!(node.cluster(), 0);
        node.check(&hello(2, 9, 1)).expect("a cluster");
        assert!(node.check(&hello(3, 8, 1)).is_err(), "another cluster");
        assert!(node.check(&hello(1, 9, 1)).is_err(), "it has this node's number");
        assert!(node.check(&hello(3, 9, 2)).is_err(), "it looks for another node");
        drop(node);
        assert_eq!(open().cluster(), 9);
    }
}

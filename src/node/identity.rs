//! Who this node is, and which other nodes it talks to.

use std::sync::Arc;

use crate::error::{StorageError, with_sources};
use crate::log::DataDir;
use crate::member::{NodeId, ReplicaId};
use crate::raft::Identity;
use crate::wire::{Hello, Protocol};

/// What the node's superblock says. Whether another node has the data that it had when it was added is for those who
/// ask something of it: see `Peers`.
pub(crate) struct NodeIdentity {
    node_id: NodeId,
    dir: Arc<DataDir>,
}

impl NodeIdentity {
    pub(crate) fn new(node_id: NodeId, dir: Arc<DataDir>) -> Self {
        Self { node_id, dir }
    }

    /// This node, with the data that it has.
    pub(crate) fn replica(&self) -> ReplicaId {
        ReplicaId { node: self.node_id, incarnation: self.dir.incarnation() }
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
    use crate::segment::sim_disk::SimDisk;

    fn hello(node_id: NodeId, cluster: u128, target: NodeId) -> Hello {
        Hello { protocol: Protocol::Peer, cluster, node_id, incarnation: 33, target }
    }

    #[test]
    fn a_node_joins_the_first_cluster_that_it_hears_of_and_talks_to_no_other() {
        let disk = SimDisk::new();
        let open = || {
            let dir = DataDir::open(disk.shared(), Path::new("/data"), 1).expect("it opens");
            NodeIdentity::new(1, Arc::new(dir))
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

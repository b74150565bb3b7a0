//! A network that lets one connection through to a member, and blocks the one for entries.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::moved::steady;
use super::*;
use crate::problem::ProblemKind;
use crate::raft::Lane;
use crate::seam::{Acceptor, BoxFuture, Duplex};

/// Once it is told to, lets only the first dial of `node2:1` through.
#[derive(Debug, Clone, Default)]
struct OneConnection {
    net: MemoryTransport,
    blocks: Arc<AtomicBool>,
    dialed: Arc<AtomicUsize>,
}

impl Transport for OneConnection {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let blocks = addr == "node2:1" && self.blocks.load(Ordering::Relaxed);
        if blocks && self.dialed.fetch_add(1, Ordering::Relaxed) > 0 {
            return Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) });
        }
        self.net.dial(addr)
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.net.bind(addr)
    }
}

#[test]
fn a_member_that_only_entries_do_not_get_to_counts_as_reached_and_is_told_of() {
    let transport = OneConnection::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let first = Running::try_start(&transport, &disks[0], 1, steady).expect("it opens");
    let others = [(1, 2), (2, 3)].map(|(at, id): (usize, NodeId)| {
        Running::try_start(&transport.net, &disks[at], id, steady).expect("it opens")
    });
    let mut nodes: Vec<Running> = [first].into_iter().chain(others).collect();
    nodes[0].bootstrap(nodes.iter().map(|running| running.node.member()).collect());
    let second = nodes.remove(1);
    let id = second.replica().id;
    second.kill();
    let contacts = &nodes[0].node.inner.peers.contacts;
    nodes[0].until("the member to be missed", || contacts.failing(id));
    transport.blocks.store(true, Ordering::Relaxed);
    let disk = disks[1].crash(&CrashPolicy::KeepAll);
    let second = Running::try_start(&transport.net, &disk, 2, steady).expect("it opens");
    let link = |lane| nodes[0].node.inner.peers.link(id, "node2:1", lane);
    nodes[0].run(async {
        while link(Lane::Control).connect().await.is_err() {
            transport.dialed.store(0, Ordering::Relaxed);
            // paced: the next attempt at a link that backs off.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    nodes[0].run(async {
        while link(Lane::Bulk).connect().await.is_ok() {
            link(Lane::Bulk).renew();
            // paced: as above.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let begun = Instant::now();
    let told = nodes[0].until("what is wrong", || {
        let all = nodes[0].node.problems();
        all.into_iter().find(|problem| problem.kind == ProblemKind::PeerUnreachable)
    });
    assert_eq!(told.peer, Some(2), "{told}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "one failure is no problem");
    assert!(contacts.failing(id).is_none(), "{:?}", contacts.failing(id));
    assert!(contacts.reached(id).is_some());
    // Nobody has entries for it, and yet it is noticed when they get through again.
    transport.blocks.store(false, Ordering::Relaxed);
    nodes[0].until("no problem", || nodes[0].node.problems().is_empty().then_some(()));
    second.kill();
    nodes.into_iter().for_each(Running::kill);
}

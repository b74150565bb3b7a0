//! Which process of a member is let in, where nobody listens.

use std::collections::BTreeMap;

use super::*;
use crate::raft::admission::meet;
use crate::raft::processes::{Process, Processes, RIVAL_HOLDS};
use crate::raft::standing::TWIN;
use crate::wire::Intro;

fn peers() -> Peers {
    let limits = WireLimits {
        frame_bytes_max: 1 << 20,
        queue_bytes_max: 1 << 20,
        queued: None,
        connections_max: 1,
        handshake_timeout: Duration::from_secs(1),
    };
    let peers = Peers::new(Arc::new(MemoryTransport::default()), Arc::new(Anyone), limits);
    peers.contacts.list(replica(2), "two:1");
    peers
}

/// The hello of a process of node 2.
fn hello(session: u128) -> Hello {
    let intro = Intro {
        session,
        peer_addr: "two:1".to_owned(),
        client_addr: String::new(),
        expects: 0,
        took_part: false,
    };
    let (cluster, node_id, incarnation, intro) = (1, 2, 1, Some(intro));
    Hello { protocol: Protocol::Peer, cluster, node_id, incarnation, target: 1, intro }
}

async fn admit(peers: &Peers, session: u128, remote: &str) -> Result<(), String> {
    peers.admit(&hello(session), remote).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_right_after_two_were_stopped_is_not_told_that_it_is_a_copy() {
    let peers = peers();
    admit(&peers, 1, "two:100").await.expect("the first");
    let places = vec!["two:1".to_owned(), "copy:1".to_owned()];
    let rival = Process { session: 2, places, is_near: true };
    for _ in 0..2 {
        let refuse = |processes: &mut Processes| processes.refuse(rival.clone(), true);
        peers.contacts.of_processes(replica(2), refuse);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let told = admit(&peers, 3, "two:101").await.expect_err("the rival was there a moment ago");
    assert!(!told.starts_with(TWIN), "{told}");
    tokio::time::advance(RIVAL_HOLDS).await;
    admit(&peers, 3, "two:102").await.expect("both have ended");
    assert_eq!(peers.contacts.session(replica(2)), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_tells_the_address_of_the_original_does_not_end_where_the_original_answers() {
    let peers = peers();
    admit(&peers, 1, "copy:100").await.expect("the first");
    let meet = |session| {
        let links = std::sync::Weak::new();
        meet(&peers.contacts, &links, (replica(2), Lane::Control), &hello(session), "two:1")
    };
    meet(2).expect_err("the held one may run on the host that it dialed from");
    assert_eq!(peers.contacts.session(replica(2)), Some(1));

    let places = vec!["two:1".to_owned(), "other:1".to_owned()];
    let rival = Process { session: 3, places, is_near: true };
    for _ in 0..2 {
        let refuse = |processes: &mut Processes| processes.refuse(rival.clone(), true);
        peers.contacts.of_processes(replica(2), refuse);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    meet(1).expect_err("the rival may run");
    assert_eq!(peers.contacts.others(replica(2), 1).len(), 1, "the rival was forgotten");
}

#[tokio::test]
async fn no_move_is_no_change_of_members() {
    let leader = group(&SimDisk::new(), &config()).await;
    leader.initialize(&[alone()]).await.expect("it is new");
    until("it to lead", || leader.is_leader()).await;
    let patience = Duration::from_secs(5);
    let settled = leader.settled(patience).await.expect("it leads");
    let before = leader.log.last_id();
    leader.set_addresses(settled, BTreeMap::new(), patience).await.expect("nothing to do");
    assert_eq!(leader.log.last_id(), before);
}

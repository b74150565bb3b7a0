//! Which process of a member is let in, where nobody listens.

use std::collections::BTreeMap;
use std::io;

use tokio::time::Instant;

use super::*;
use crate::raft::admission::{PROBE_TIMEOUT, Visit, meet};
use crate::raft::processes::{Process, Processes, RIVAL_HOLDS, SILENCE_MAX};
use crate::raft::standing::TWIN;
use crate::seam::{Acceptor, BoxFuture, Duplex, Transport};
use crate::wire::{Frame, Intro, LinkError, Outbound, Service, serve};

fn limits() -> WireLimits {
    WireLimits {
        frame_bytes_max: 1 << 20,
        queue_bytes_max: 1 << 20,
        queued: None,
        incoming: None,
        connections_max: 8,
        handshake_timeout: Duration::from_secs(1),
    }
}

fn peers_on(transport: impl Transport) -> Peers {
    let peers = Peers::new(Arc::new(transport), Arc::new(Anyone), limits());
    peers.contacts.list(replica(2), "two:1");
    peers
}

fn peers() -> Peers {
    peers_on(MemoryTransport::default())
}

/// A network that drops what nobody takes, and in which nobody can be dialed.
#[derive(Debug)]
struct Drops;

impl Transport for Drops {
    fn dial(&self, _addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        Box::pin(std::future::pending())
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        MemoryTransport::default().bind(addr)
    }
}

/// The hello of a process of node 2.
fn hello(session: u128) -> Hello {
    let intro = Intro {
        session,
        peer_addr: "two:1".to_owned(),
        client_addr: String::new(),
        expects: 0,
        took_part: false,
        began: session as u64,
        generation: session as u64,
    };
    let (cluster, node_id, incarnation, intro) = (1, 2, 1, Some(intro));
    Hello { protocol: Protocol::Peer, cluster, node_id, incarnation, target: 1, intro }
}

/// Says who it is, and no more.
struct Answers(Hello);

impl Service for Answers {
    type Session = ();

    async fn open(&self, _hello: Hello, _remote: &str) -> Result<(Hello, ()), String> {
        Ok((self.0.clone(), ()))
    }

    fn handle(&self, _session: &mut (), _frame: Frame, _out: &Outbound) -> Result<(), String> {
        Ok(())
    }
}

async fn admit(peers: &Peers, session: u128, remote: &str) -> Result<Visit, String> {
    peers.admit(&hello(session), remote).await.map(|visit| visit.expect("it is a member"))
}

fn rival(session: u128, host: &str) -> Process {
    let (places, source) = (vec!["two:1".to_owned()], Some(format!("{host}:1")));
    Process { session, places, source, is_near: true, is_connected: false }
}

/// Has a rival come again and again.
async fn refuse(peers: &Peers, rival: &Process) {
    for _ in 0..2 {
        let refuse = |processes: &mut Processes| processes.refuse(rival.clone(), true);
        peers.contacts.of_processes(replica(2), refuse);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_right_after_two_were_stopped_is_not_told_that_it_is_a_copy() {
    let peers = peers();
    admit(&peers, 1, "two:100").await.expect("the first");
    refuse(&peers, &rival(2, "copy")).await;
    let told = admit(&peers, 3, "two:101").await.err().expect("the rival was there a moment ago");
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

    refuse(&peers, &rival(3, "other")).await;
    meet(1).expect_err("the rival may run");
    assert_eq!(peers.contacts.others(replica(2), 1).len(), 1, "the rival was forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_restarted_where_nobody_can_be_dialed_is_let_in_once_its_connections_have_ended()
 {
    let peers = peers_on(Drops);
    let visit = admit(&peers, 1, "nat:100").await.expect("the first");
    for _ in 0..20 {
        let told = admit(&peers, 2, "nat:101").await.err().expect("the first may run");
        assert!(visit.counts().is_ok() && !told.is_empty());
    }
    let begun = Instant::now();
    drop(visit);
    admit(&peers, 2, "nat:102").await.expect("the same place, and nothing is left of the first");
    assert!(begun.elapsed() <= PROBE_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_from_another_host_where_packets_are_dropped_waits_for_a_bounded_time()
{
    let peers = peers_on(Drops);
    drop(admit(&peers, 1, "two:100").await.expect("the first"));
    let begun = Instant::now();
    while let Err(told) = admit(&peers, 2, "elsewhere:101").await {
        assert!(told.contains("may still run"), "{told}");
    }
    let waited = begun.elapsed();
    assert!(waited >= SILENCE_MAX && waited <= SILENCE_MAX + 2 * PROBE_TIMEOUT, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_cannot_be_dialed_and_goes_on_sending_is_not_replaced() {
    let peers = peers_on(Drops);
    let visit = admit(&peers, 1, "nat:100").await.expect("the first");
    let mut told = String::new();
    for _ in 0..20 {
        visit.counts().expect("it is the only one");
        told = admit(&peers, 2, "nat:101").await.err().expect("the first runs");
    }
    assert!(told.starts_with(TWIN), "{told}");
    assert_eq!(peers.contacts.session(replica(2)), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_a_process_that_is_gone_said_where_it_was_found_warns_of_nobody() {
    let transport = MemoryTransport::default();
    let peers = peers_on(transport.clone());
    admit(&peers, 1, "two:100").await.expect("the first");
    // Process 2 was found at its address, and has gone again; process 1 answers there.
    let acceptor = transport.bind("two:1").await.expect("a new address");
    tokio::spawn(serve(acceptor, Arc::new(Answers(hello(1))), limits(), std::future::pending()));
    peers.contacts.found(replica(2), "two:1");
    peers.let_in_found().await;
    assert!(peers.contacts.troubled().is_empty(), "{:?}", peers.contacts.troubled());
    assert_eq!(peers.contacts.session(replica(2)), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_from_before_its_node_was_a_member_ends_with_its_process() {
    let peers = peers();
    let stranger = Hello { node_id: 3, ..hello(1) };
    assert!(peers.admit(&stranger, "three:100").await.expect("anyone may ask").is_none());
    let listed = || peers.admit_listed(&stranger, "three:100");
    assert!(listed().expect("it is no member").is_none());
    let third = ReplicaId { node: 3, incarnation: 1 };
    peers.contacts.list(third, "three:1");
    let visit = listed().expect("nobody else is").expect("it is a member");
    visit.counts().expect("it counts");
    let next = Hello { node_id: 3, ..hello(2) };
    peers.admit(&next, "three:101").await.expect("nobody answers where the first was");
    visit.counts().expect_err("another process has its place");
    listed().err().expect("it must say hello again, and be judged");
}

#[tokio::test(start_paused = true)]
async fn the_newest_address_of_a_member_is_named_when_it_is_not_reached() {
    let peers = peers();
    peers.contacts.list(replica(2), "moved:1");
    let failed = |addr: &str| {
        let (addr, detail) = (addr.to_owned(), "nobody answers".to_owned());
        let error = LinkError::Unreachable { addr: addr.clone(), detail };
        peers.contacts.dialed(replica(2), Lane::Control, &addr, Some(&error));
    };
    let named = || peers.contacts.failing(replica(2)).expect("it is not reached").reason;
    failed("two:1");
    assert!(named().contains("two:1"), "the only one that was tried: {}", named());
    failed("moved:1");
    failed("two:1");
    assert!(named().contains("moved:1"), "{}", named());
    peers.contacts.list(replica(2), "again:1");
    failed("again:1");
    failed("moved:1");
    failed("two:1");
    assert!(named().contains("again:1"), "{}", named());
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

//! A node whose own copy of a log has stopped, or cannot be opened: its clients go on with the leader elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorumlog::simulation::{Damage, Fault, OpKind, Ops, Rule, SimDisk, When};
use quorumlog::{NodeId, Role};

use crate::client::{Client, ROUTE, SEND, bodies, send_fields};
use crate::cluster::{eventually, meanwhile, name};
use crate::nodes::{Brokers, Setup};
use crate::topics::{create, delete};

/// The other nodes need an election, at 1.2 s the latest, and this one then asks them.
const OUT_OF_SERVICE_MAX: Duration = Duration::from_secs(6);
const CLUSTER_INFO: i32 = 106;

async fn three(logs: usize) -> (Brokers, BTreeMap<NodeId, SimDisk>) {
    three_with(Setup { logs, ..Setup::default() }).await
}

async fn three_with(setup: Setup) -> (Brokers, BTreeMap<NodeId, SimDisk>) {
    let disks: BTreeMap<_, _> = (1..=3).map(|id| (id, SimDisk::with_seed(id))).collect();
    let brokers = Brokers::start_with(Setup { disks: disks.clone(), ..setup }).await;
    // Where the broker wants it.
    eventually("the first node to lead", async || (brokers.leader().await == 1).then_some(()))
        .await;
    (brokers, disks)
}

/// The files of a node's log.
fn files(brokers: &Brokers, disk: &SimDisk, id: NodeId, log: &str) -> Vec<PathBuf> {
    let number = brokers.node(id).logs().into_iter().find(|info| info.name.as_str() == log);
    let dir = format!("logs/{:016x}/", number.expect("the cluster has it").id.0);
    let mut paths: Vec<_> = disk.contents().into_keys().collect();
    paths.retain(|path| path.to_string_lossy().contains(&dir));
    paths
}

/// From now on a log's files on this disk cannot be written.
fn break_log(brokers: &Brokers, disk: &SimDisk, id: NodeId, log: &str) {
    for path in files(brokers, disk, id, log) {
        for kind in [OpKind::Write, OpKind::Flush, OpKind::Allocate] {
            let (ops, path) = (Ops::Kind(kind), path.to_string_lossy().into_owned());
            disk.inject(Rule { ops, path, when: When::From(0), fault: Fault::Eio });
        }
    }
}

/// The nodes that a name server leads clients to, by log.
async fn route(brokers: &Brokers, id: NodeId, topic: &str) -> Option<Vec<Option<NodeId>>> {
    let mut client = brokers.name_server(id).await;
    let route = client.call(ROUTE, &[("topic", topic)], b"").await;
    let brokers_of = |route: serde_json::Value| {
        let datas = route["brokerDatas"].as_array().expect("a list").clone();
        let addrs = datas.into_iter().map(|broker| broker["brokerAddrs"]["0"].clone());
        addrs.map(|addr| brokers.node_at(addr.as_str().expect("an address"))).collect()
    };
    (route.code == 0).then(|| brokers_of(route.json()))
}

/// Begins to send a message, whatever becomes of it.
async fn start_send(client: &mut Client, body: &str) {
    client.ask(SEND, &send_fields("T", "0", ""), body.as_bytes()).await;
}

/// Sends through this node until it is done, and how long that took.
async fn sends_again(brokers: &Brokers, id: NodeId, body: &str) -> Duration {
    let since = Instant::now();
    eventually("a send to be taken", async || {
        let mut client = brokers.client(id).await;
        start_send(&mut client, body).await;
        let answer = client.answer_or_end().await;
        answer.filter(|answer| answer.code == 0)
    })
    .await;
    since.elapsed()
}

/// The log has stopped on node 1; others lead it. Whoever is connected to node 1 does not notice.
async fn clients_go_on(brokers: &Brokers, since: Instant) -> Duration {
    sends_again(brokers, 1, "after").await;
    let out_of_service = since.elapsed();
    assert!(out_of_service < OUT_OF_SERVICE_MAX, "{out_of_service:?}");
    let leader = eventually("the leader to be known", async || {
        let status = brokers.node(1).statuses().into_iter().find(|row| row.log == "broker-0")?;
        assert_eq!(status.role, Role::Stopped);
        status.leader
    })
    .await;
    assert_ne!(leader.id, 1);
    let mut client = brokers.client(1).await;
    let pulled = bodies(&client.pull("T", 0, 0).await.done());
    assert!(pulled.contains(&"after".to_owned()), "{pulled:?}");
    // A send takes no longer than elsewhere: a second was waited, and then it was refused.
    let asked = Instant::now();
    client.send("T", 0, "more").await.done();
    assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
    assert_eq!(route(brokers, 1, "T").await.expect("a route")[0], Some(leader.id));
    let info = brokers.name_server(1).await.call(CLUSTER_INFO, &[], b"").await.done().json();
    let addr = &info["brokerAddrTable"]["broker-0"]["brokerAddrs"]["0"];
    assert_eq!(brokers.node_at(addr.as_str().expect("an address")), Some(leader.id));
    out_of_service
}

/// Its route led to itself for good, and each send there got code 14 after a second.
#[tokio::test]
async fn clients_of_a_leader_whose_disk_fails_go_on_with_the_next_leader() {
    let (brokers, disks) = three(1).await;
    brokers.client(1).await.send("T", 0, "before").await.done();
    break_log(&brokers, &disks[&1], 1, "broker-0");
    let since = Instant::now();
    // What comes of the first one nobody knows.
    let mut client = brokers.client(1).await;
    start_send(&mut client, "lost").await;
    let out_of_service = clients_go_on(&brokers, since).await;
    eprintln!("out of service for {out_of_service:?}");
    // A topic that is made now is in its routes, too.
    brokers.client(2).await.send("New", 0, "first").await.done();
    let leader = brokers.leader().await;
    let led = route(&brokers, 1, "New").await.expect("another node knows the topic");
    assert_eq!(led[0], Some(leader));
}

#[tokio::test]
async fn a_consumer_that_waits_at_a_node_whose_copy_has_stopped_gets_the_next_message() {
    let (brokers, disks) = three(1).await;
    brokers.client(1).await.send("T", 0, "before").await.done();
    break_log(&brokers, &disks[&1], 1, "broker-0");
    let mut client = brokers.client(1).await;
    start_send(&mut client, "lost").await;
    sends_again(&brokers, 1, "after").await;
    let mut consumer = brokers.client(1).await;
    let next = consumer.pull("T", 0, 0).await.done().number("maxOffset");
    consumer.start_pull("T", 0, next, 15_000, "*").await;
    // Longer than a follower waits for a leader that it does not hear.
    meanwhile(Duration::from_millis(3500)).await;
    brokers.client(2).await.send("T", 0, "next").await.done();
    let pulled = consumer.answer().await;
    assert_eq!((pulled.code, bodies(&pulled)), (0, vec!["next".to_owned()]));
}

#[tokio::test]
async fn clients_of_a_node_that_cannot_open_its_copy_go_on_with_the_leader() {
    let (brokers, disks) = three(2).await;
    brokers.client(1).await.send("T", 0, "before").await.done();
    let manifests = files(&brokers, &disks[&1], 1, "broker-0");
    let manifest = manifests.iter().find(|path| path.ends_with(Path::new("MANIFEST")));
    let manifest = manifest.expect("it has one").clone();
    brokers.kill(1);
    assert!(disks[&1].damage(&manifest, &Damage::ZeroSector(0)), "nothing to damage");
    brokers.open(1).await;
    clients_go_on(&brokers, Instant::now()).await;
}

/// Has a node's copy of a log stop.
async fn stop_log(brokers: &Brokers, disk: &SimDisk, id: NodeId, log: &str) {
    break_log(brokers, disk, id, log);
    let number = usize::from(log == "broker-1");
    eventually("the log to stop", async || {
        let other = brokers.others(id)[0];
        let mut client = Client::connect(brokers.broker_addr_of(other, number)).await;
        create(&mut client, &format!("%RETRY%{log}")).await;
        let stopped = |row: &quorumlog::Status| row.log == log && row.role == Role::Stopped;
        brokers.node(id).statuses().iter().any(stopped).then_some(())
    })
    .await;
}

/// Topics are decided in the home log. A node whose copy of that has stopped, and that led another log, had that one know
/// of no new topic for as long as it led.
#[tokio::test]
async fn a_node_whose_copy_of_the_home_log_has_stopped_leads_no_other_log() {
    let setup = Setup { logs: 2, auto_create: false, ..Setup::default() };
    let (brokers, disks) = three_with(setup).await;
    eventually("leaders that are spread", async || (brokers.leader_of(1).await == 2).then_some(()))
        .await;
    stop_log(&brokers, &disks[&2], 2, "broker-0").await;
    create(&mut brokers.client(3).await, "New").await.done();
    let taken = eventually("another leader, which knows the topic", async || {
        let leader = brokers.leader_of(1).await;
        let mut client = Client::connect(brokers.broker_addr_of(leader, 1)).await;
        let mut fields = send_fields("New", "0", "").to_vec();
        fields.retain(|(name, _)| *name != "n");
        let sent = client.call(SEND, &fields, b"x").await;
        (sent.code == 0).then_some(leader)
    })
    .await;
    assert_ne!(taken, 2);
    // Nobody hands it back, not even if an administrator asks for it.
    meanwhile(Duration::from_secs(3)).await;
    let leader = brokers.leader_of(1).await;
    assert_ne!(leader, 2);
    let admin = brokers.node(leader).log(&name("broker-1")).expect("it is open").admin();
    let refused = admin.transfer_leadership(2).await.expect_err("a log has stopped there");
    assert!(refused.to_string().contains("another log has stopped there"), "{refused}");
    // Until that node is well again.
    brokers.kill(2);
    disks[&2].clear_rules();
    brokers.open(2).await;
    eventually("the lead to be handed back", async || {
        (brokers.leader_of(1).await == 2).then_some(())
    })
    .await;
}

/// It answered that the log had not followed: its own copy never would.
#[tokio::test]
async fn topics_are_made_and_deleted_through_a_node_on_which_a_log_has_stopped() {
    let (brokers, disks) = three(2).await;
    stop_log(&brokers, &disks[&1], 1, "broker-1").await;
    for (number, topic) in [(0, "A"), (1, "B")] {
        let mut client = Client::connect(brokers.broker_addr_of(1, number)).await;
        create(&mut client, topic).await.done();
        // The other nodes hear of it a moment later.
        eventually("it to be made", async || route(&brokers, 3, topic).await.map(drop)).await;
        delete(&mut client, topic).await.done();
        eventually("it to be gone", async || {
            route(&brokers, 3, topic).await.is_none().then_some(())
        })
        .await;
    }
}

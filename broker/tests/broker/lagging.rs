//! A node whose copy of a log lags, though it hears the leader: its clients go on with the leader that there is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorumlog::NodeId;
use quorumlog::simulation::SimDisk;

use crate::client::{QUERY_OFFSET, ROUTE, UPDATE_OFFSET, bodies};
use crate::cluster::{eventually, name};
use crate::nodes::{Brokers, Setup};

const CLUSTER_INFO: i32 = 106;
const RESERVE: u64 = 64 << 20;
/// Much less than the reserve, and more than is written in these tests.
const LEFT: u64 = 16 << 20;
/// The leader is heard at once, others are asked four times a second, and a second behind is late.
const OUT_OF_SERVICE_MAX: Duration = Duration::from_secs(3);

/// Three nodes. Node 1, whose disk is short, lags: it takes no more of the log, and does not know where node 3's broker is.
async fn with_node_1_behind() -> (Brokers, SimDisk) {
    let disks: BTreeMap<NodeId, _> = (1..=3).map(|id| (id, SimDisk::with_seed(id))).collect();
    let setup = Setup { disks: disks.clone(), disk_reserve: RESERVE, ..Setup::default() };
    let brokers = Brokers::start_with(setup).await;
    eventually("the first node to lead", async || (brokers.leader().await == 1).then_some(()))
        .await;
    brokers.client(1).await.send("T", 0, "before").await.done();
    disks[&1].set_space(Some(LEFT));
    eventually("node 2 to lead", async || {
        let leader = brokers.leader().await;
        if leader == 3 {
            transfer(&brokers, 3, 2).await;
        }
        (leader == 2).then_some(())
    })
    .await;
    let body = "x".repeat(16 << 10);
    let mut client = brokers.client(2).await;
    for _ in 0..40 {
        client.send("T", 1, &body).await.done();
    }
    (brokers, disks[&1].clone())
}

async fn transfer(brokers: &Brokers, from: NodeId, to: NodeId) {
    let log = brokers.node(from).log(&name("broker-0")).expect("it is open");
    // Whether it was done shows in who leads.
    let _ = log.admin().transfer_leadership(to).await;
}

/// The node that a name server leads clients of the topic to.
async fn led_to(brokers: &Brokers, id: NodeId, topic: &str) -> Option<NodeId> {
    let route = brokers.name_server(id).await.call(ROUTE, &[("topic", topic)], b"").await;
    if route.code != 0 {
        return None;
    }
    brokers.node_at(route.json()["brokerDatas"][0]["brokerAddrs"]["0"].as_str()?)
}

/// Applied by node 1, and committed by node 2.
fn ends(brokers: &Brokers) -> (u64, u64) {
    let of = |id: NodeId| {
        let statuses = brokers.node(id).statuses();
        statuses.into_iter().find(|row| row.log == "broker-0").expect("its copy is open")
    };
    (of(1).applied, of(2).committed)
}

/// It named itself, and answered each of them that the service is not available, for as long as its disk was short.
#[tokio::test]
async fn clients_of_a_node_that_lags_on_a_short_disk_go_on_with_the_next_leader() {
    let (brokers, disk) = with_node_1_behind().await;
    transfer(&brokers, 2, 3).await;
    eventually("node 3 to lead", async || (brokers.leader().await == 3).then_some(())).await;
    let since = Instant::now();
    let (applied, committed) = ends(&brokers);
    assert!(applied + 8 < committed, "it does not lag: {applied} of {committed}");
    eventually("a send through node 1", async || {
        let sent = brokers.client(1).await.send("T", 0, "after").await;
        (sent.code == 0).then_some(())
    })
    .await;
    assert!(since.elapsed() < OUT_OF_SERVICE_MAX, "{:?}", since.elapsed());
    assert_eq!(led_to(&brokers, 1, "T").await, Some(3));
    let mut client = brokers.client(1).await;
    let pulled = bodies(&client.pull("T", 0, 0).await.done());
    assert!(pulled.contains(&"after".to_owned()), "{pulled:?}");
    let of = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
    let fields = [&of[..], &[("commitOffset", "1")]].concat();
    client.call(UPDATE_OFFSET, &fields, b"").await.done();
    assert_eq!(client.call(QUERY_OFFSET, &of, b"").await.done().number("offset"), 1);
    let info = brokers.name_server(1).await.call(CLUSTER_INFO, &[], b"").await.done().json();
    let addr = &info["brokerAddrTable"]["broker-0"]["brokerAddrs"]["0"];
    assert_eq!(brokers.node_at(addr.as_str().expect("an address")), Some(3));
    let (applied, committed) = ends(&brokers);
    assert!(applied + 8 < committed, "it does not lag: {applied} of {committed}");
    // With space it follows, and leads again.
    disk.set_space(None);
    eventually("it to lead again", async || (brokers.leader().await == 1).then_some(())).await;
    brokers.client(1).await.send("T", 0, "last").await.done();
    eventually("its route to lead to it", async || {
        (led_to(&brokers, 1, "T").await == Some(1)).then_some(())
    })
    .await;
}

/// It knew the leader, and not the topics that were made since: their producers found no route.
#[tokio::test]
async fn the_name_server_of_a_node_that_lags_tells_of_topics_that_it_has_not_heard_of() {
    let (brokers, _disk) = with_node_1_behind().await;
    brokers.client(2).await.send("New", 0, "first").await.done();
    let since = Instant::now();
    eventually("a route", async || (led_to(&brokers, 1, "New").await == Some(2)).then_some(()))
        .await;
    assert!(since.elapsed() < OUT_OF_SERVICE_MAX, "{:?}", since.elapsed());
    let (applied, committed) = ends(&brokers);
    assert!(applied + 8 < committed, "it does not lag: {applied} of {committed}");
}

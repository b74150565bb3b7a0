//! Routes: what a client learns first, and keeps to for half a minute.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorumlog::NodeId;

use crate::client::{Frame, ROUTE};
use crate::cluster::eventually;
use crate::nodes::{Brokers, Setup};

const CLUSTER_INFO: i32 = 106;
const TOPIC_NOT_EXIST: i64 = 17;
/// What a route waits for leaders, or a little less.
const PATIENCE: Duration = Duration::from_secs(1);

/// The nodes that a route of this node leads to, and how long it took.
async fn route(brokers: &Brokers, id: NodeId) -> (BTreeSet<Option<NodeId>>, Duration) {
    let mut client = brokers.name_server(id).await;
    let asked = Instant::now();
    let route = client.call(ROUTE, &[("topic", "TBW102")], b"").await.done().json();
    let took = asked.elapsed();
    let datas = route["brokerDatas"].as_array().expect("a list");
    let addrs = datas.iter().map(|broker| broker["brokerAddrs"]["0"].as_str());
    (addrs.map(|addr| brokers.node_at(addr.expect("an address"))).collect(), took)
}

fn all() -> BTreeSet<Option<NodeId>> {
    (1..=3).map(Some).collect()
}

#[tokio::test]
async fn the_first_routes_of_a_cluster_that_has_just_started_lead_to_all_its_nodes() {
    let brokers = Brokers::found(Setup { logs: 3, ..Setup::default() }).await;
    for id in brokers.ids() {
        let (nodes, took) = route(&brokers, id).await;
        // Whoever finds no leaders in time, as on a machine that does much else, is told what there is.
        assert!(nodes == all() || took >= PATIENCE, "node {id} named {nodes:?} after {took:?}");
    }
}

#[tokio::test]
async fn the_first_routes_after_all_nodes_were_down_lead_to_all_of_them() {
    let brokers = Brokers::start_with(Setup { logs: 3, ..Setup::default() }).await;
    brokers.ids().into_iter().for_each(|id| brokers.kill(id));
    for id in 1..=3 {
        brokers.open(id).await;
    }
    for id in brokers.ids() {
        let (nodes, took) = route(&brokers, id).await;
        assert!(nodes == all() || took >= PATIENCE, "node {id} named {nodes:?} after {took:?}");
    }
}

#[tokio::test]
async fn routes_do_not_wait_for_a_node_that_was_lost() {
    let brokers = Brokers::start_with(Setup { logs: 3, ..Setup::default() }).await;
    eventually("leaders that are spread", async || {
        let (nodes, took) = route(&brokers, 3).await;
        (nodes == all() && took < PATIENCE).then_some(())
    })
    .await;
    brokers.kill(2);
    let (_, took) = route(&brokers, 3).await;
    assert!(took < PATIENCE, "it waited for {took:?}");
}

/// What a node says of the brokers of a new topic, or of the cluster.
async fn asked(brokers: &Brokers, id: NodeId, code: i32) -> Frame {
    brokers.name_server(id).await.call(code, &[("topic", "TBW102")], b"").await
}

/// A client that is refused a route keeps the one that it has. One that is told of leaders that are gone waits for each.
#[tokio::test]
async fn a_node_that_has_heard_of_no_leader_for_long_names_none() {
    let brokers = Brokers::start_with(Setup { logs: 2, ..Setup::default() }).await;
    eventually("leaders that are spread", async || {
        (brokers.leader_of(0).await == 1 && brokers.leader_of(1).await == 2).then_some(())
    })
    .await;
    brokers.kill(2);
    brokers.kill(1);
    assert_eq!(asked(&brokers, 3, ROUTE).await.code, 0, "an election may be under way");
    let refused = eventually("a refusal", async || {
        let answer = asked(&brokers, 3, ROUTE).await;
        (answer.code != 0).then_some(answer)
    });
    assert_eq!(refused.await.code, TOPIC_NOT_EXIST);
    // The tools ask each log's broker: this one says what is wrong.
    let info = asked(&brokers, 3, CLUSTER_INFO).await.done().json();
    for log in ["broker-0", "broker-1"] {
        let addr = info["brokerAddrTable"][log]["brokerAddrs"]["0"].as_str();
        assert_eq!(brokers.node_at(addr.expect("an address")), Some(3));
    }
    brokers.open(1).await;
    eventually("a route to all logs", async || {
        let answer = asked(&brokers, 3, ROUTE).await;
        let all = || answer.json()["brokerDatas"].as_array().is_some_and(|all| all.len() == 2);
        (answer.code == 0 && all()).then_some(())
    })
    .await;
}

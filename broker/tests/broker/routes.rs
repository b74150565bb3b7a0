//! Routes: what a client learns first, and keeps to for half a minute.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorumlog::NodeId;

use crate::client::ROUTE;
use crate::cluster::eventually;
use crate::nodes::{Brokers, Setup};

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

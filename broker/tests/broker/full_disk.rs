//! P8: a full disk refuses messages and nothing else. Consumers go on, on one full node and on all, through failover and restart.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorumlog::NodeId;
use quorumlog::simulation::SimDisk;

use crate::client::{QUERY_OFFSET, ROUTE, UPDATE_OFFSET, bodies};
use crate::cluster::{eventually, meanwhile};
use crate::nodes::{Brokers, Setup};

const SERVICE_NOT_AVAILABLE: i64 = 14;
const RESERVE: u64 = 64 << 20;
/// Much less than the reserve, and not nothing.
const LEFT: u64 = 3 << 20;

struct FullDisks {
    brokers: Brokers,
    disks: BTreeMap<NodeId, SimDisk>,
    committed: i64,
}

impl FullDisks {
    /// Three nodes with space, and the messages that consumers are to get whatever happens.
    async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    async fn start_with(setup: Setup) -> Self {
        let disks: BTreeMap<_, _> = (1..=3).map(|id| (id, SimDisk::with_seed(id))).collect();
        let setup = Setup { disks: disks.clone(), disk_reserve: RESERVE, ..setup };
        let brokers = Brokers::start_with(setup).await;
        let mut client = brokers.client(brokers.leader().await).await;
        for body in ["0", "1", "2"] {
            client.send("T", 0, body).await.done();
        }
        Self { brokers, disks, committed: 0 }
    }

    fn set_space(&self, ids: &[NodeId], space: Option<u64>) {
        ids.iter().for_each(|id| self.disks[id].set_space(space));
    }

    /// What the leader answers to a send, at once, once it answers `code`.
    async fn sends_get(&self, code: i64) {
        let sent = eventually("sends to be answered as they should", async || {
            let mut client = self.brokers.client(self.brokers.leader().await).await;
            let begun = Instant::now();
            let answer = client.send("T", 0, "more").await;
            let taken = begun.elapsed();
            (answer.code == code).then_some((answer, taken))
        });
        let (answer, taken) = sent.await;
        assert!(taken < Duration::from_secs(1), "{taken:?}: {answer:?}");
        if code != 0 {
            assert!(answer.remark.contains("disk"), "{answer:?}");
        }
    }

    /// A consumer pulls, commits an offset and waits for it, and locks and unlocks a queue.
    async fn consume(&mut self) {
        self.committed += 1;
        let mut client = self.brokers.client(self.brokers.leader().await).await;
        let pulled = bodies(&client.pull("T", 0, 0).await.done());
        assert!(
            pulled.starts_with(&["0".to_owned(), "1".to_owned(), "2".to_owned()]),
            "{pulled:?}"
        );
        let of = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
        let offset = self.committed.to_string();
        let fields = [&of[..], &[("commitOffset", &offset)]].concat();
        client.call(UPDATE_OFFSET, &fields, b"").await.done();
        let answer = client.call(QUERY_OFFSET, &of, b"").await.done();
        assert_eq!(answer.number("offset"), self.committed);
        let queue = r#"{"topic":"T","brokerName":"broker-0","queueId":0}"#;
        let body = format!(r#"{{"consumerGroup":"g","clientId":"c","mqSet":[{queue}]}}"#);
        let locked = client.call(41, &[], body.as_bytes()).await.done().json();
        let held = &locked["lockOKMQSet"];
        assert_eq!(held.as_array().map(Vec::len), Some(1), "{locked}");
        client.call(42, &[], body.as_bytes()).await.done();
    }

    async fn restart(&self, ids: &[NodeId]) {
        ids.iter()
            .filter(|id| self.brokers.ids().contains(id))
            .for_each(|id| self.brokers.kill(*id));
        for id in ids {
            self.brokers.open(*id).await;
        }
    }
}

#[tokio::test]
async fn consumers_go_on_while_all_disks_are_full_through_failover_and_restart() {
    let mut cluster = FullDisks::start().await;
    cluster.set_space(&[1, 2, 3], Some(LEFT));
    cluster.sends_get(SERVICE_NOT_AVAILABLE).await;
    cluster.consume().await;
    let gone = cluster.brokers.leader().await;
    cluster.brokers.kill(gone);
    cluster.consume().await;
    cluster.sends_get(SERVICE_NOT_AVAILABLE).await;
    cluster.restart(&[1, 2, 3]).await;
    cluster.consume().await;
    cluster.sends_get(SERVICE_NOT_AVAILABLE).await;
    cluster.set_space(&[1, 2, 3], None);
    cluster.sends_get(0).await;
    cluster.consume().await;
}

#[tokio::test]
async fn consumers_go_on_with_the_full_disk_that_is_left_for_a_majority() {
    let mut cluster = FullDisks::start().await;
    let leader = cluster.brokers.leader().await;
    let [full, other] = cluster.brokers.others(leader)[..] else { panic!("three nodes") };
    cluster.set_space(&[full], Some(LEFT));
    // It stays behind once it has noticed, within a second: the other two hold what is sent.
    meanwhile(Duration::from_millis(1500)).await;
    cluster.sends_get(0).await;
    cluster.consume().await;
    // Without one of the two its disk is needed.
    cluster.brokers.kill(leader);
    cluster.sends_get(SERVICE_NOT_AVAILABLE).await;
    cluster.consume().await;
    cluster.restart(&[full, other]).await;
    cluster.consume().await;
    cluster.sends_get(SERVICE_NOT_AVAILABLE).await;
    cluster.brokers.open(leader).await;
    cluster.sends_get(0).await;
    cluster.consume().await;
}

#[tokio::test]
async fn a_leader_whose_disk_is_full_hands_over_to_a_node_with_space() {
    let mut cluster = FullDisks::start().await;
    let full = cluster.brokers.leader().await;
    cluster.set_space(&[full], Some(LEFT));
    eventually("another leader", async || (cluster.brokers.leader().await != full).then_some(()))
        .await;
    eventually("the full node to know who serves", async || {
        let mut names = cluster.brokers.name_server(full).await;
        let route = names.call(ROUTE, &[("topic", "T")], b"").await;
        let route = (route.code == 0).then(|| route.json())?;
        let told = &route["brokerDatas"][0]["brokerAddrs"]["0"];
        (cluster.brokers.node_at(told.as_str()?) != Some(full)).then_some(())
    })
    .await;
    cluster.sends_get(0).await;
    cluster.consume().await;
    assert_ne!(cluster.brokers.leader().await, full, "the lead went back to a full disk");
    cluster.set_space(&[full], None);
    eventually("it to lead again", async || (cluster.brokers.leader().await == full).then_some(()))
        .await;
    cluster.sends_get(0).await;
    cluster.consume().await;
}

#[tokio::test]
async fn a_flood_of_locks_leaves_most_of_the_reserve() {
    // No checkpoints: what they take is not what is looked at.
    let setup = Setup { segment_size: 16 << 20, ..Setup::default() };
    let mut cluster = FullDisks::start_with(setup).await;
    let left = 16 << 20;
    cluster.set_space(&[1, 2, 3], Some(left));
    cluster.sends_get(SERVICE_NOT_AVAILABLE).await;
    let leader = cluster.brokers.leader().await;
    let mut client = cluster.brokers.client(leader).await;
    let queues: Vec<_> = (0..4)
        .map(|id| format!(r#"{{"topic":"T","brokerName":"broker-0","queueId":{id}}}"#))
        .collect();
    let mut refused = 0;
    for number in 0..8_000 {
        let id = format!("{number:0>200}");
        let body =
            format!(r#"{{"consumerGroup":"{id}","clientId":"c","mqSet":[{}]}}"#, queues.join(","));
        let answer = client.call(41, &[], body.as_bytes()).await;
        let full = answer.code == SERVICE_NOT_AVAILABLE && answer.remark.contains("disk");
        refused += usize::from(full);
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "nothing bounds what locks use of the reserve");
    let free = cluster.disks[&leader].shared().free_space("/".as_ref()).expect("known");
    assert!(free > left / 2, "{free} bytes are left of {left}");
    // The next second has its own part of it.
    meanwhile(Duration::from_secs(1)).await;
    cluster.consume().await;
}

//! Clocks that jump, and nodes whose clocks differ: nothing is lost or early, and nothing waits for a wrong clock.

use std::time::Instant;

use quorumlog::NodeId;
use quorumlog::simulation::SimDisk;
use serde_json::json;

use crate::client::{Client, bodies, stored_times};
use crate::cluster::{eventually, name};
use crate::nodes::{Brokers, Setup};

const HOUR_MS: i64 = 3_600_000;
/// One second, and two hours.
const LEVEL_1: &str = "DELAY\u{1}1\u{2}";
const LEVEL_18: &str = "DELAY\u{1}18\u{2}";

/// Three nodes whose clocks can be set.
struct Clocks {
    brokers: Brokers,
    disks: Vec<(NodeId, SimDisk)>,
}

impl Clocks {
    async fn start() -> Self {
        let begun = Instant::now();
        let disks: Vec<_> = (1..=3).map(|id| (id, SimDisk::with_seed(id))).collect();
        for (_, disk) in &disks {
            disk.set_clock(move || 1_700_000_000_000 + begun.elapsed().as_millis() as u64);
        }
        let brokers = Brokers::start_with(Setup {
            disks: disks.iter().cloned().collect(),
            ..Setup::default()
        })
        .await;
        Self { brokers, disks }
    }

    fn step(&self, id: NodeId, milliseconds: i64) {
        let disk = self.disks.iter().find(|(of, _)| *of == id);
        disk.expect("a node of this cluster").1.step_clock(milliseconds);
    }

    async fn leader(&self) -> (NodeId, Client) {
        let leader = self.brokers.leader().await;
        (leader, self.brokers.client(leader).await)
    }

    /// Ends all nodes, sets their clocks forward or back, and starts them again.
    async fn restart(&self, milliseconds: i64) {
        for id in 1..=3 {
            self.brokers.kill(id);
            self.step(id, milliseconds);
        }
        for id in 1..=3 {
            self.brokers.open(id).await;
        }
    }

    /// Waits until a queue's messages are these.
    async fn holds(&self, topic: &str, expected: &[&str]) {
        eventually("the queue to have its messages", async || {
            let (_, mut client) = self.leader().await;
            (bodies(&client.pull(topic, 0, 0).await) == expected).then_some(())
        })
        .await;
    }

    /// Records of the log.
    async fn records(&self) -> u64 {
        let leader = self.brokers.leader().await;
        let log = self.brokers.node(leader).log(&name("broker-0")).expect("the log");
        log.status().end
    }
}

#[tokio::test]
async fn a_message_stored_while_the_leaders_clock_was_ahead_delays_nothing_after_it_is_right() {
    let clocks = Clocks::start().await;
    let (leader, mut client) = clocks.leader().await;
    client.send("T", 0, "before").await.done();
    clocks.step(leader, HOUR_MS);
    client.send("T", 0, "ahead").await.done();
    client.send_with("T", 0, "waits", LEVEL_1).await.done();
    clocks.step(leader, -HOUR_MS);
    client.send_with("T", 0, "after", LEVEL_1).await.done();
    clocks.holds("T", &["before", "ahead", "waits", "after"]).await;
    let first = crate::client::messages(&client.pull("T", 0, 0).await.body).remove(0);
    let physical = first.physical.to_string();
    let fields = [("offset", physical.as_str()), ("group", "g"), ("delayLevel", "1")];
    client.call(36, &fields, b"").await.done();
    clocks.holds("%RETRY%g", &["before"]).await;
    client.send_with("U", 0, "for the next leader", LEVEL_1).await.done();
    clocks.brokers.kill(leader);
    clocks.holds("U", &["for the next leader"]).await;
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_delivers_nothing_early() {
    let clocks = Clocks::start().await;
    let (leader, mut client) = clocks.leader().await;
    client.send_with("T", 0, "in two hours", LEVEL_18).await.done();
    clocks.step(leader, 3 * HOUR_MS);
    client.send_with("T", 0, "in a second", LEVEL_1).await.done();
    clocks.holds("T", &["in a second"]).await;
}

#[tokio::test]
async fn what_comes_after_a_wrong_time_is_due_by_its_own_even_after_a_restart() {
    let clocks = Clocks::start().await;
    let (leader, mut client) = clocks.leader().await;
    clocks.step(leader, HOUR_MS);
    client.send("T", 0, "ahead").await.done();
    clocks.step(leader, -HOUR_MS);
    client.send_with("T", 0, "after", LEVEL_18).await.done();
    clocks.restart(2 * HOUR_MS).await;
    clocks.holds("T", &["ahead", "after"]).await;
}

#[tokio::test]
async fn delayed_messages_that_are_due_at_once_take_few_records() {
    let clocks = Clocks::start().await;
    let (_, mut client) = clocks.leader().await;
    let sent: Vec<_> = (0..300).map(|n| format!("{n}")).collect();
    for body in &sent {
        client.send_with("T", 0, body, LEVEL_18).await.done();
    }
    let before = clocks.records().await;
    clocks.restart(2 * HOUR_MS).await;
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let more = eventually("messages", async || {
            let (_, mut client) = clocks.leader().await;
            let answer = client.pull("T", 0, got.len() as i64).await;
            (answer.code == 0).then(|| bodies(&answer))
        });
        got.extend(more.await);
    }
    assert_eq!(got, sent, "in order, and each once");
    let records = clocks.records().await - before;
    assert!(records < 50, "{records} records for 300 messages");
}

#[tokio::test]
async fn times_of_storing_never_go_back_however_slow_the_leaders_clock_is() {
    let clocks = Clocks::start().await;
    for round in 0..3 {
        let (leader, mut client) = clocks.leader().await;
        client.send("T", 0, "before").await.done();
        clocks.step(leader, -HOUR_MS);
        client.send("T", 0, "after").await.done();
        client.call(36, &[("offset", "0"), ("group", "g")], b"").await;
        if round < 2 {
            clocks.brokers.kill(leader);
            // The next leader's is slower still.
            clocks.brokers.ids().into_iter().for_each(|id| clocks.step(id, -3 * HOUR_MS));
            eventually("another leader", async || {
                let next = clocks.brokers.leader().await;
                (next != leader).then_some(())
            })
            .await;
            clocks.brokers.open(leader).await;
        }
    }
    let (_, mut client) = clocks.leader().await;
    let times = stored_times(&client.pull("T", 0, 0).await);
    assert_eq!(times.len(), 6);
    assert!(times.is_sorted(), "{times:?}");
    // A time is found by halving, which needs their order.
    for (offset, time) in times.iter().enumerate() {
        let time = time.to_string();
        let fields = [("topic", "T"), ("queueId", "0"), ("timestamp", time.as_str())];
        let found = client.call(29, &fields, b"").await.done().number("offset");
        assert!(found <= offset as i64, "{found}: {times:?}");
    }
}

#[tokio::test]
async fn a_lock_is_neither_lost_nor_kept_by_a_jump_of_the_clock() {
    let clocks = Clocks::start().await;
    let (leader, mut client) = clocks.leader().await;
    let body = |id: &str| {
        let queue = json!({ "brokerName": "broker-0", "topic": "T", "queueId": 0 });
        json!({ "consumerGroup": "g", "clientId": id, "mqSet": [queue] }).to_string()
    };
    let mut lock = async |id: &str| {
        let answer = client.call(41, &[], body(id).as_bytes()).await.done().json();
        answer["lockOKMQSet"].as_array().expect("a list").len()
    };
    assert_eq!(lock("a").await, 1);
    clocks.step(leader, HOUR_MS);
    assert_eq!(lock("b").await, 0, "its lease has not passed");
    assert_eq!(lock("a").await, 1);
    clocks.brokers.kill(leader);
    let (_, mut client) = clocks.leader().await;
    let answer = client.call(41, &[], body("b").as_bytes()).await.done().json();
    assert_eq!(answer["lockOKMQSet"], json!([]), "nor has it for a leader with another clock");
}

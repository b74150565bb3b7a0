//! Requests that wait hold little, and keep nobody from anything.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, HEARTBEAT, PULL, bodies};
use crate::cluster::within;
use crate::nodes::{Brokers, Setup};

/// A pull that waits, of a queue's end, with so many bytes that mean nothing.
async fn padded_pull(client: &mut Client, from: &str, padding: &str) {
    let fields = [
        ("consumerGroup", "readers"),
        ("topic", "T"),
        ("queueId", "0"),
        ("queueOffset", from),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("suspendTimeoutMillis", "60000"),
        ("subscription", "*"),
        ("padding", padding),
    ];
    client.ask(PULL, &fields, b"").await;
}

async fn heartbeat(client: &mut Client) {
    let beat = json!({ "clientID": "c", "consumerDataSet": [{ "groupName": "readers" }] });
    client.ask(HEARTBEAT, &[], beat.to_string().as_bytes()).await;
}

#[tokio::test]
async fn pulls_that_wait_hold_nothing_that_others_need() {
    let tune = |broker: &mut quorumlog_broker::BrokerConfig| broker.request_bytes_max = 1 << 20;
    let brokers = Brokers::start_with(Setup { tune, ..Setup::default() }).await;
    let leader = brokers.leader().await;
    let follower = brokers.others(leader)[0];
    brokers.client(leader).await.send("T", 0, "first").await.done();
    let padding = "x".repeat(32 << 10);
    for id in [leader, follower] {
        // An honest consumer waits, too.
        let mut honest = brokers.client(id).await;
        padded_pull(&mut honest, "1", "").await;
        let mut others = Vec::new();
        for _ in 0..4 {
            let mut other = brokers.client(id).await;
            for _ in 0..32 {
                padded_pull(&mut other, "1", &padding).await;
            }
            others.push(other);
        }
        // Behind all of them, so that they have come once it is answered.
        for client in others.iter_mut().chain([&mut honest]) {
            heartbeat(client).await;
            let beats = within("an answer to a heartbeat", client.answers(1)).await;
            assert_eq!(beats[0].code, 0, "{beats:?}");
        }
        drop(others);
    }
}

#[tokio::test]
async fn more_pulls_than_may_wait_are_refused_and_all_else_goes_on() {
    let tune = |broker: &mut quorumlog_broker::BrokerConfig| broker.waiting_bytes_max = 32 << 10;
    let brokers = Brokers::start_with(Setup { tune, ..Setup::default() }).await;
    let leader = brokers.leader().await;
    for id in [leader, brokers.others(leader)[0]] {
        let mut many = brokers.client(id).await;
        many.send("T", 0, "x").await.done();
        let end = many.call(30, &[("topic", "T"), ("queueId", "0")], b"").await.done();
        let end = end.fields["offset"].clone();
        for _ in 0..40 {
            padded_pull(&mut many, &end, "").await;
        }
        heartbeat(&mut many).await;
        // About a half finds no room, and is told so at once: its clients wait three seconds then.
        let mut refused = 0;
        while within("an answer", many.answers(1)).await[0].code == 2 {
            refused += 1;
        }
        assert!((20..=30).contains(&refused), "{refused} of 40 refused");
        // Somebody who waits for nothing yet may wait.
        let mut other = brokers.client(id).await;
        let since = Instant::now();
        other.start_pull("T", 0, end.parse().expect("a number"), 300, "*").await;
        assert_eq!(other.answer().await.code, 19);
        assert!(since.elapsed() >= Duration::from_millis(300), "it did not wait");
        // What is there already is given however many wait.
        assert_eq!(bodies(&other.pull("T", 0, 0).await.done())[0], "x");
        drop(many);
    }
}

//! Reads, subscriptions and administration.

use super::*;
use crate::error::{AdminError, ReadError};
use crate::member::Role;
use crate::record::LogId;

/// The scripted nodes add a record that names them.
fn answered_by(records: &[Record]) -> Option<u64> {
    records.last().map(|record| record.term)
}

#[tokio::test]
async fn reads_go_to_the_leader_or_to_the_node_that_is_named() {
    let cluster = ScriptedCluster::start().await;
    for payload in ["a", "b", "c"] {
        cluster.commit(payload);
    }
    let log = cluster.log().await;
    let records = log.read(2, 1000).await.expect("read");
    assert_eq!(answered_by(&records), Some(1));
    assert_eq!(records[0], Record::new(2, 1, "b".into()));
    let records = log.read_from(3, 0, 1000).await.expect("read");
    assert_eq!(answered_by(&records), Some(3));
    let error = log.read_from(9, 0, 1000).await.expect_err("no such node");
    assert!(error.to_string().contains("no node 9"), "{error}");
    let unknown = cluster.client().await.log(&name("other"));
    let error = unknown.read(0, 1000).await.expect_err("no such log");
    assert!(matches!(&error, ReadError::UnknownLog { name } if name == "other"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_read_from_a_dead_leader_waits_for_the_next_one() {
    let mut cluster = ScriptedCluster::start().await;
    cluster.commit("a");
    let log = cluster.log().await;
    log.read(0, 1000).await.expect("read");
    cluster.kill(1).await;
    let elect = async {
        // paced: on the paused clock, which jumps
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.state().leader = Some(2);
    };
    let (records, ()) = tokio::join!(log.read(0, 1000), elect);
    assert_eq!(answered_by(&records.expect("read")), Some(2));
    assert_eq!(log.status().await.expect("status").node_id, 2);
    let error = log.read_from(1, 0, 1000).await.expect_err("node 1 is dead");
    assert!(matches!(error, ReadError::Unreachable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_goes_on_on_another_node_without_loss_or_repetition() {
    let mut cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    for i in 0..30 {
        cluster.commit(&format!("{i}"));
    }
    // Every connection breaks after some records, and once the node is gone for good.
    cluster.state().cut_after = Some(7);
    let mut subscription = log.subscribe(Start::Begin);
    for i in 0..60 {
        let record = subscription.next().await.expect("open").expect("record");
        assert_eq!(record.payload, format!("{i}"));
        if i % 10 == 5 {
            // Another one goes on where this one is.
            subscription = log.subscribe(subscription.position());
        }
        if i == 20 {
            cluster.kill(1).await;
            cluster.state().leader = Some(2);
        }
        if i >= 29 {
            cluster.commit(&format!("{}", i + 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_from_now_on_sees_nothing_older_even_if_it_moves() {
    let mut cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    cluster.commit("old");
    let mut subscription = log.subscribe(Start::Committed);
    // Opened, but nothing came yet.
    let early = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await;
    assert!(early.is_err(), "{early:?}");
    cluster.kill(1).await;
    cluster.state().leader = Some(3);
    cluster.commit("while it moved");
    let record = subscription.next().await.expect("open").expect("record");
    assert_eq!(record.payload, "while it moved");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_when_its_start_was_trimmed_or_its_log_is_gone() {
    let cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    cluster.commit("a");
    cluster.state().begin = 2;
    let mut subscription = log.subscribe(Start::At(1));
    let error = subscription.next().await.expect("open").expect_err("trimmed");
    assert!(matches!(error, ReadError::Trimmed { requested: 1, begin: 2 }), "{error}");
    assert!(subscription.next().await.is_none());

    cluster.state().begin = 0;
    cluster.state().cut_after = Some(0);
    let mut subscription = log.subscribe(Start::At(1));
    cluster.state().logs.clear();
    let error = subscription.next().await.expect("open").expect_err("deleted");
    assert!(matches!(&error, ReadError::UnknownLog { name } if name == "orders"), "{error}");
    assert!(subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_says_when_nobody_can_be_reached_and_goes_on_later() {
    let mut cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    let mut subscription = log.subscribe(Start::Begin);
    cluster.commit("a");
    assert_eq!(subscription.next().await.expect("open").expect("record").payload, "a");
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    let error = subscription.next().await.expect("open").expect_err("all are dead");
    assert!(matches!(error, ReadError::Unreachable { .. }), "{error}");
    cluster.start_node(3).await;
    cluster.commit("b");
    assert_eq!(subscription.next().await.expect("open").expect("record").payload, "b");
}

#[tokio::test(start_paused = true)]
async fn statuses_come_from_every_node_and_say_why_one_does_not_answer() {
    let mut cluster = ScriptedCluster::start().await;
    let client = cluster.client().await;
    cluster.kill(3).await;
    let statuses = client.statuses().await;
    let ids: Vec<_> = statuses.iter().map(|(member, _)| member.id).collect();
    assert_eq!(ids, [1, 2, 3]);
    let first = statuses[0].1.as_ref().expect("node 1 answers");
    assert_eq!((first[0].log_id, first[1].log.as_str()), (0, "orders"));
    assert_eq!(first[1].role, Role::Leader);
    let error = statuses[2].1.as_ref().expect_err("node 3 is dead");
    assert!(matches!(error, AdminError::Unreachable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn lists_and_errors_of_administration_come_through() {
    let cluster = ScriptedCluster::start().await;
    let client = cluster.client().await;
    let logs = client.logs().await.expect("logs");
    assert_eq!((logs.len(), logs[0].id, logs[0].name.as_str()), (1, LogId(5), "orders"));
    assert_eq!(client.members().await.expect("members").len(), 3);
    let error = client.create_log(&name("orders")).await.expect_err("exists");
    assert!(matches!(error, AdminError::LogExists { .. }), "{error}");
    let error = client.promote(3).await.expect_err("invalid");
    assert!(error.to_string().contains("Promote { node: 3 }"), "{error}");
    let error = client.transfer_leadership(Some(&name("x")), 2).await.expect_err("no such log");
    assert!(matches!(&error, AdminError::UnknownLog { name } if name == "x"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn connecting_fails_in_time_with_what_was_tried() {
    let cluster = ScriptedCluster::start().await;
    let transport = Arc::new(cluster.transport.clone());
    let config = ClientConfig::new(["node:8", "node:9"]);
    let error = Client::connect_over(transport.clone(), config).await.expect_err("nobody");
    assert!(error.to_string().contains("node:"), "{error}");
    let config = ClientConfig::new(Vec::<String>::new());
    let error = Client::connect_over(transport, config).await.expect_err("no nodes");
    assert!(error.to_string().contains("no nodes are configured"), "{error}");
}

//! Several logs on the same nodes.

mod cluster;

use std::collections::BTreeSet;

use cluster::{Cluster, LOG, Setup, eventually, name, read_all, texts, within};
use quorumlog::{AdminError, CommitLog, NodeId, Role};

/// The log on the node that leads it.
async fn led(cluster: &Cluster, log: &str) -> CommitLog {
    eventually("a leader of the log", async || {
        let logs = cluster.ids().into_iter().filter_map(|id| cluster.node(id).log(&name(log)));
        logs.into_iter().find(|log| log.status().role == Role::Leader)
    })
    .await
}

/// Waits until all nodes have committed the same of a log, and gives it.
async fn contents(cluster: &Cluster, log: &str) -> Vec<String> {
    let logs: Vec<CommitLog> = cluster
        .ids()
        .iter()
        .map(|id| cluster.node(*id).log(&name(log)).expect("it exists"))
        .collect();
    eventually("all nodes to hold the same", async || {
        let marks: Vec<_> = logs.iter().map(CommitLog::watermarks).collect();
        marks.iter().all(|m| (m.committed, m.end) == (marks[0].end, marks[0].end)).then_some(())
    })
    .await;
    let first = read_all(&logs[0], logs[0].watermarks().begin).await;
    for log in &logs[1..] {
        assert_eq!(read_all(log, log.watermarks().begin).await, first);
    }
    texts(&first)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_log_has_its_own_records_positions_and_leader() {
    let cluster = Setup::new(3).steady().start().await;
    let names = ["a", "b", "c"];
    for log in names {
        cluster.create_log(log).await;
    }
    // Leaders apart, as a broker would have them.
    for (to, log) in (1..).zip(names) {
        let leader = led(&cluster, log).await;
        if leader.status().node_id != to {
            let admin = leader.admin();
            within("a transfer", admin.transfer_leadership(to)).await.expect("all nodes run");
        }
        eventually("the leader to change", async || {
            (led(&cluster, log).await.status().node_id == to).then_some(())
        })
        .await;
    }
    for number in 0..10 {
        for log in names {
            let payload = format!("{log} {number}");
            led(&cluster, log).await.append(payload).await.expect("all nodes run");
        }
    }
    for log in names {
        let expected: Vec<_> = (0..10).map(|number| format!("{log} {number}")).collect();
        assert_eq!(contents(&cluster, log).await, expected);
    }
    // The loss of a node stops none of them.
    cluster.kill(1);
    for log in names {
        eventually("an append after the loss", async || {
            led(&cluster, log).await.append("after").await.ok()
        })
        .await;
        assert!(contents(&cluster, log).await.len() >= 11);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_made_listed_and_deleted_while_others_are_in_use() {
    let cluster = Setup::new(3).steady().start().await;
    let listed = |id: NodeId| -> BTreeSet<String> {
        cluster.node(id).logs().iter().map(|log| log.name.to_string()).collect()
    };
    cluster.create_log("short-lived").await;
    let error = cluster.node(2).create_log(&name("short-lived")).await.expect_err("it exists");
    assert!(matches!(error, AdminError::LogExists { .. }), "{error}");
    let first = led(&cluster, "short-lived").await;
    first.append("old").await.expect("all nodes run");
    let first_id = first.id();
    drop(first);
    for id in cluster.ids() {
        assert_eq!(listed(id), BTreeSet::from([LOG.to_owned(), "short-lived".to_owned()]));
    }
    within("a deletion", cluster.node(3).delete_log(&name("short-lived"))).await.expect("all run");
    eventually("all nodes to forget it", async || {
        cluster.ids().iter().all(|id| !listed(*id).contains("short-lived")).then_some(())
    })
    .await;
    let error = cluster.node(1).delete_log(&name("short-lived")).await.expect_err("it is gone");
    assert!(matches!(error, AdminError::UnknownLog { .. }), "{error}");
    // One of the same name is another log.
    cluster.create_log("short-lived").await;
    let second = led(&cluster, "short-lived").await;
    assert_ne!(second.id(), first_id);
    second.append("new").await.expect("all nodes run");
    assert_eq!(contents(&cluster, "short-lived").await, ["new"]);
    cluster.append("meanwhile").await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_down_learns_of_new_and_deleted_logs_when_it_returns() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.create_log("deleted").await;
    cluster.stop(3).await;
    within("a deletion", cluster.node(1).delete_log(&name("deleted"))).await.expect("two run");
    cluster.create_log("made").await;
    led(&cluster, "made").await.append("while 3 was down").await.expect("two run");
    cluster.start(3).await;
    eventually("node 3 to catch up", async || {
        let node = cluster.node(3);
        (node.log(&name("made")).is_some() && node.log(&name("deleted")).is_none()).then_some(())
    })
    .await;
    assert_eq!(contents(&cluster, "made").await, ["while 3 was down"]);
}

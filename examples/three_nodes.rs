//! Three nodes in one process: a majority commits, and goes on when the leader stops.
//!
//! Run it with `cargo run --example three_nodes`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use quorumlog::{CommitLog, Config, LogName, Node};

/// The log on the node that leads it, once these agree on one.
async fn leader(nodes: &[Node], name: &LogName) -> Result<CommitLog, Box<dyn Error>> {
    let log = nodes[0].log(name).ok_or("no such log")?;
    let mut status = log.watch_status();
    loop {
        if let Some(leader) = status.current().leader
            && let Some(node) = nodes.iter().find(|node| node.member().id == leader.id)
        {
            return node.log(name).ok_or_else(|| "the leader has no such log".into());
        }
        status.changed().await.ok_or("the log was closed")?;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let data = directory.path().join(id.to_string());
        nodes.push(Node::open(Config::new(id, data).with_listen("127.0.0.1:0")).await?);
    }
    // Once, on one of them, with the addresses that they really listen on.
    nodes[0].bootstrap(nodes.iter().map(Node::member)).await?;
    let name = LogName::new("orders")?;
    nodes[0].create_log(&name).await?;

    let log = leader(&nodes, &name).await?;
    let first = log.append("held by a majority").await?;
    let old = log.status().node_id;
    println!("node {old} leads; appended at {} in term {}", first.index, first.term);

    // A shutdown hands leadership over first.
    let at = nodes.iter().position(|node| node.member().id == old).ok_or("no such node")?;
    nodes.remove(at).shutdown().await?;
    let second = loop {
        match leader(&nodes, &name).await?.append("by the two that are left").await {
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            result => break result?,
        }
    };
    println!("node {old} is gone; appended at {} in term {}", second.index, second.term);
    assert!(second.index > first.index && second.term > first.term);

    // Behind a barrier every node shows what was acknowledged.
    for node in &nodes {
        let log = node.log(&name).ok_or("no such log")?;
        log.read_barrier().await?;
        let records = log.read(first.index, 1 << 20).await?;
        assert_eq!(records.len(), 2);
        println!("node {} holds {} records", node.member().id, records.len());
    }
    for node in &nodes {
        node.shutdown().await?;
    }
    Ok(())
}

//! One node in a program: append, read, and find everything again after a restart.
//!
//! Run it with `cargo run --example embed_one_node`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use quorumlog::{Config, LogName, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");

    let node = Node::open(config.clone()).await?;
    node.bootstrap([node.member()]).await?;
    let log = node.create_log(&LogName::new("orders")?).await?;
    let first = log.append("one coffee").await?;
    let batch = log.append_batch(vec!["two teas".into(), "one cake".into()]).await?;
    println!("appended at {} and at {} to {}", first.index, batch.index, batch.last_index());
    node.shutdown().await?;

    // The same directory again: the node knows its cluster and its logs.
    let node = Node::open(config).await?;
    let log = node.log(&LogName::new("orders")?).ok_or("the log is gone")?;
    log.read_barrier().await?;
    let records = log.read(first.index, 1 << 20).await?;
    for record in &records {
        println!("read {}: {}", record.index, String::from_utf8_lossy(&record.payload));
    }
    assert_eq!(records.len(), 3);
    node.shutdown().await?;
    Ok(())
}

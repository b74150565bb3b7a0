//! A replicated key-value store: each node builds the same map from the committed records.
//!
//! Run it with `cargo run --example replicated_kv`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read, Write};

use bytes::Bytes;
use quorumlog::{ApplyError, Config, LogName, Node, NodeBuilder, Record, StateMachine};

/// Commands are `key=value`, and the answer to each is the value that was there before.
#[derive(Default)]
struct Map(BTreeMap<String, String>);

impl StateMachine for Map {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        let command = String::from_utf8_lossy(&record.payload);
        // Every node sees the same record, so every node skips the same nonsense.
        let Some((key, value)) = command.split_once('=') else { return Ok(Bytes::new()) };
        let before = self.0.insert(key.to_owned(), value.to_owned());
        Ok(before.unwrap_or_default().into())
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|(key, value)| writeln!(out, "{key}={value}"))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut text = String::new();
        from.read_to_string(&mut text)?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        self.0 = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Ok(())
    }
}

fn builder(config: Config) -> NodeBuilder {
    Node::builder(config).state_machines(|log| {
        (log.as_str() == "settings").then(|| Box::<Map>::default() as Box<dyn StateMachine>)
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");

    let node = builder(config.clone()).open().await?;
    node.bootstrap([node.member()]).await?;
    let log = node.create_log(&LogName::new("settings")?).await?;
    let before = log.propose("color=red").await?.response;
    assert_eq!(before, "");
    let before = log.propose("color=blue").await?.response;
    println!("color was {}", String::from_utf8_lossy(&before));
    assert_eq!(before, "red");
    // A restart goes on from here, and applies only what follows.
    let upto = log.admin().checkpoint().await?;
    println!("checkpoint of all below {upto}");
    node.shutdown().await?;

    let node = builder(config).open().await?;
    let log = node.log(&LogName::new("settings")?).ok_or("the log is gone")?;
    log.read_barrier().await?;
    let before = log.propose("color=green").await?.response;
    println!("after a restart color was {}", String::from_utf8_lossy(&before));
    assert_eq!(before, "blue");
    node.shutdown().await?;
    Ok(())
}

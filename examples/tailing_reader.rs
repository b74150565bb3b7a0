//! A reader that follows a log: first what is there, then each record as it is committed.
//!
//! Run it with `cargo run --example tailing_reader`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use quorumlog::{Config, LogName, Node, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
    let node = Node::open(config).await?;
    node.bootstrap([node.member()]).await?;
    let log = node.create_log(&LogName::new("events")?).await?;
    for number in 0..5 {
        log.append(format!("early {number}")).await?;
    }

    let mut tail = log.subscribe(Start::Begin);
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        // Keep `record.index + 1` somewhere, and `Start::At` goes on from there after a restart.
        while let Some(record) = tail.next().await {
            let record = record?;
            let text = String::from_utf8_lossy(&record.payload).into_owned();
            println!("{}: {text}", record.index);
            seen.push(text);
            if seen.len() == 10 {
                break;
            }
        }
        Ok::<_, quorumlog::ReadError>(seen)
    });

    // Many appends on their way at once: `submit` admits one, and its ticket tells of the commit.
    let mut tickets = Vec::new();
    for number in 0..5 {
        tickets.push(log.submit(format!("late {number}")).await?);
    }
    for ticket in tickets {
        ticket.await?;
    }

    let seen = reader.await??;
    assert_eq!(seen.first().map(String::as_str), Some("early 0"));
    assert_eq!(seen.last().map(String::as_str), Some("late 4"));
    node.shutdown().await?;
    Ok(())
}

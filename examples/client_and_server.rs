//! A node that serves clients over TCP, and a client: append, follow the log, and go on where a reader stopped.
//!
//! Run it with `cargo run --example client_and_server --features client,server`. The client would run in another process;
//! here both are in one, so that the example needs nothing else.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use quorumlog::client::{Client, ClientConfig};
use quorumlog::seam::{TcpTransport, Transport as _};
use quorumlog::server::{self, ServerConfig};
use quorumlog::{Config, LogName, Node, Outcome, Start};
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    // Clients are told this address, so the listener comes first: port 0 takes a free one.
    let acceptor = TcpTransport.bind_for_clients("127.0.0.1:0").await?;
    let addr = acceptor.local_addr();
    let mut config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
    config.client_advertise = Some(addr.clone());
    let node = Node::open(config).await?;
    node.bootstrap([node.member()]).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        // An error means that the sender is gone, which is the same.
        let _ = stopped.await;
    };
    let serving =
        tokio::spawn(server::run(node.clone(), acceptor, ServerConfig::default(), shutdown));

    // In a cluster you would name several nodes: the client finds the others, and the leader of each log.
    let client = Client::connect(ClientConfig::new([addr])).await?;
    let name = LogName::new("orders")?;
    client.create_log(&name).await?;
    let log = client.log(&name);
    for order in ["one coffee", "two teas", "one cake"] {
        match log.append(order).await {
            Ok(appended) => println!("{order}: at index {}", appended.index),
            // Every error says whether the append may have happened.
            Err(error) if error.outcome() == Outcome::NotAppended => {
                println!("{order}: not appended, retry freely: {error}");
            }
            Err(error) => println!("{order}: it may be in the log: {error}"),
        }
    }

    let mut reader = log.subscribe(Start::Begin);
    let first = reader.next().await.ok_or("the log ended")??;
    println!("read {:?}", first.payload);
    // Keep the position, and another reader goes on from there.
    let mut next = log.subscribe(reader.position());
    let second = next.next().await.ok_or("the log ended")??;
    println!("read {:?}", second.payload);
    assert_eq!((&first.payload[..], &second.payload[..]), (&b"one coffee"[..], &b"two teas"[..]));

    drop(stop);
    serving.await?;
    node.shutdown().await?;
    Ok(())
}

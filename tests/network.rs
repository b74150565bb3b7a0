//! The faulty network of the other tests does what it says.

mod cluster;

use std::time::Duration;

use cluster::faulty_transport::Network;
use cluster::{meanwhile, within};
use quorumlog::NodeId;
use quorumlog::seam::Duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connection that node 1 dialed to node 2: its end, and the other.
async fn connect(network: &Network) -> (Box<dyn Duplex>, Box<dyn Duplex>) {
    let mut acceptor =
        network.transport(2).bind(&Network::address(2)).await.expect("a port is free");
    assert_eq!(acceptor.local_addr(), Network::address(2));
    let dialer = network.transport(1);
    let dial = tokio::spawn(async move { dialer.dial(&Network::address(2)).await });
    let (there, _) = acceptor.accept().await.expect("it is dialed");
    (dial.await.expect("no panic").expect("it listens"), there)
}

/// Sends a byte, and waits until it arrives.
async fn passes(from: &mut Box<dyn Duplex>, to: &mut Box<dyn Duplex>) {
    let mut byte = [0];
    from.write_all(b"x").await.expect("the connection is open");
    within("a byte", to.read_exact(&mut byte)).await.expect("the connection is open");
}

/// Sends a byte, and sees that it does not arrive, or not soon.
async fn is_held(from: &mut Box<dyn Duplex>, to: &mut Box<dyn Duplex>) {
    let mut byte = [0];
    tokio::select! {
        biased;
        sent = async { from.write_all(b"x").await?; to.read_exact(&mut byte).await } => {
            panic!("the link is cut, and it gave {sent:?}");
        }
        () = meanwhile(Duration::from_millis(200)) => {}
    }
}

#[tokio::test]
async fn a_cut_link_holds_back_one_direction_until_it_is_mended() {
    let network = Network::default();
    let (mut here, mut there) = connect(&network).await;
    passes(&mut here, &mut there).await;
    passes(&mut there, &mut here).await;
    network.cut(2, 1);
    passes(&mut here, &mut there).await;
    is_held(&mut there, &mut here).await;
    network.mend(1, 2);
    let mut byte = [0];
    within("the byte held back", here.read_exact(&mut byte)).await.expect("it was sent");
    network.split(&[1], &[2]);
    is_held(&mut here, &mut there).await;
    network.heal();
    passes(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_dial_over_a_cut_link_waits_and_one_to_nobody_fails() {
    let network = Network::default();
    network.cut(1, 2);
    let connected = connect(&network);
    let healed = async {
        meanwhile(Duration::from_millis(50)).await;
        network.heal();
    };
    let ((mut here, mut there), ()) =
        within("a dial", futures_util::future::join(connected, healed)).await;
    passes(&mut here, &mut there).await;
    let nobody: NodeId = 7;
    assert!(network.transport(1).dial(&Network::address(nobody)).await.is_err());
}

#[tokio::test]
async fn a_reset_ends_a_connection_at_both_ends_and_not_the_next_one() {
    let network = Network::default();
    let (mut here, mut there) = connect(&network).await;
    network.reset(2, 1);
    let mut byte = [0];
    assert!(here.read(&mut byte).await.is_err());
    assert!(here.write(b"x").await.is_err());
    drop(here);
    assert!(matches!(within("the end", there.read(&mut byte)).await, Ok(0) | Err(_)));
    let (mut here, mut there) = connect(&network).await;
    passes(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_reset_can_fall_between_two_bytes() {
    let network = Network::default();
    let (mut here, mut there) = connect(&network).await;
    network.reset_after(1, 2, 5);
    assert!(here.write_all(b"0123456789").await.is_err());
    drop(here);
    let mut got = Vec::new();
    within("the end", there.read_to_end(&mut got)).await.expect("an orderly end");
    assert_eq!(got, b"01234");
}

//! How much one connection does before others have their turn.

use tokio::io::AsyncWriteExt as _;

use super::super::hello::dial;
use super::*;
use crate::format::frame::{FrameHeader, HEADER_BYTES};

#[tokio::test(start_paused = true)]
async fn a_connection_with_many_frames_lets_others_have_their_turn() {
    const FRAMES: usize = 1500;
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let io = Box::new(transport.connect("node:1").expect("connect"));
    let mut connection =
        dial(io, &hello(Protocol::Peer, 7), |_| Ok(()), &LIMITS).await.expect("hello");
    let header = FrameHeader {
        protocol: Protocol::Peer,
        kind: NUMBERS,
        log: 0,
        correlation: 1,
        head_bytes: 0,
        body_bytes: 0,
    };
    let frames: Vec<u8> = header.encode(b"", &[]).repeat(FRAMES);
    assert_eq!(frames.len(), FRAMES * HEADER_BYTES);
    connection.writer.write_all(&frames).await.expect("all fits");
    let (mut before, mut most) = (0, 0);
    while before < FRAMES {
        tokio::task::yield_now().await;
        let now = server.service.handled.borrow().len();
        most = most.max(now - before);
        before = now;
    }
    assert!(most <= 64, "{most} frames in one turn");
    server.stop().await;
}

//! Streams and their credit.

use super::*;

#[tokio::test]
async fn a_stream_is_never_ahead_of_its_receiver_by_more_than_the_capacity() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    link.connect().await.expect("connect");
    let mut stream = link.open_stream(request(NUMBERS, b""), 8).expect("open");
    for expected in 0..100_u64 {
        let frame = stream.recv().await.expect("frame");
        assert_eq!(frame.head, expected.to_le_bytes().as_slice());
        let granted: u64 = server
            .service
            .handled
            .borrow()
            .iter()
            .filter(|frame| frame.kind == kind::CREDIT)
            .map(|frame| u64::from(credit_of(frame).expect("credit")))
            .sum();
        assert!(granted <= expected + 1 + 8, "{granted} frames granted at {expected}");
    }
    echo(&link, "requests pass by").await.expect("answer");
    drop(stream);
    let mut handled = server.service.handled.subscribe();
    handled
        .wait_for(|handled| handled.iter().any(|frame| frame.kind == kind::CANCEL))
        .await
        .expect("the service lives");
    assert_eq!(link.waiting_count(), 0);
}

#[tokio::test]
async fn a_sender_that_passes_its_credit_is_cut_off() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    link.connect().await.expect("connect");
    let mut stream = link.open_stream(request(FLOOD, &5_u32.to_le_bytes()), 4).expect("open");
    let error = loop {
        if let Err(error) = stream.recv().await {
            break error.to_string();
        }
    };
    assert!(error.contains("more than its credit"), "{error}");
}

#[tokio::test]
async fn a_stream_ends_with_the_reason_when_its_connection_breaks() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    link.connect().await.expect("connect");
    let mut stream = link.open_stream(request(NUMBERS, b""), 2).expect("open");
    stream.recv().await.expect("frame");
    server.stop().await;
    let error = loop {
        if let Err(error) = stream.recv().await {
            break error;
        }
    };
    assert!(matches!(error, LinkError::Broken { .. }), "{error}");
}

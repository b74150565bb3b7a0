//! Bad input and bad peers: each costs its own connection and nothing else.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::hello::{HandshakeError, dial};
use super::super::reader::FrameReader;
use super::*;
use crate::format::frame::{FrameHeader, HEADER_BYTES};

fn header(kind: u8, head: &[u8], body_bytes: u32) -> [u8; HEADER_BYTES] {
    let head_bytes = u32::try_from(head.len()).expect("short");
    let protocol = Protocol::Peer;
    FrameHeader { protocol, kind, log: 0, correlation: 1, head_bytes, body_bytes }.encode(head, &[])
}

/// Sends raw bytes after a good handshake, and returns the reason of the goodbye.
async fn goodbye_to(transport: &MemoryTransport, bytes: &[u8]) -> String {
    let io = Box::new(transport.connect("node:1").expect("connect"));
    let connection = dial(io, &hello(Protocol::Peer, 7), |_| Ok(()), &LIMITS).await.expect("hello");
    let (mut reader, mut writer) = (connection.reader, connection.writer);
    writer.write_all(bytes).await.expect("write");
    let frame = reader.next().await.expect("readable").expect("a goodbye");
    assert_eq!(frame.kind, kind::REFUSE);
    String::from_utf8(frame.head.to_vec()).expect("text")
}

#[tokio::test(start_paused = true)]
async fn bad_frames_close_their_connection_with_a_reason_and_no_other() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let good = link(&transport, "node:1");
    echo(&good, "before").await.expect("answer");

    let reason = goodbye_to(&transport, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert!(reason.contains("do not begin a frame"), "{reason}");
    let reason = goodbye_to(&transport, &header(ECHO, b"", u32::MAX)).await;
    assert!(reason.contains("the limit is 4194304"), "{reason}");
    let mut damaged = header(ECHO, b"head", 0).to_vec();
    damaged.extend_from_slice(b"heat");
    let reason = goodbye_to(&transport, &damaged).await;
    assert!(reason.contains("CRC"), "{reason}");
    let reason = goodbye_to(&transport, &header(BAD, b"", 0)).await;
    assert!(reason.contains("this kind is bad"), "{reason}");
    // Slow loris: a frame begins and never ends.
    let reason = goodbye_to(&transport, &header(ECHO, b"", 100)).await;
    assert!(reason.contains("not complete within 30s"), "{reason}");

    echo(&good, "after").await.expect("answer");
}

async fn closed(mut io: DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.expect("closed in order");
    bytes
}

#[tokio::test(start_paused = true)]
async fn who_does_not_say_hello_is_closed() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let silent = transport.connect("node:1").expect("connect");
    let began = tokio::time::Instant::now();
    assert_eq!(closed(silent).await, b"");
    assert_eq!(began.elapsed(), LIMITS.handshake_timeout);

    let mut garbage = transport.connect("node:1").expect("connect");
    garbage.write_all(&[0xAA; 5000]).await.expect("write");
    assert!(String::from_utf8_lossy(&closed(garbage).await).contains("do not begin a frame"));

    let mut impatient = transport.connect("node:1").expect("connect");
    impatient.write_all(&header(ECHO, b"", 0)).await.expect("write");
    assert!(String::from_utf8_lossy(&closed(impatient).await).contains("before hello"));

    let mut large = transport.connect("node:1").expect("connect");
    large.write_all(&header(kind::HELLO, b"", 5000)).await.expect("write");
    assert!(String::from_utf8_lossy(&closed(large).await).contains("the limit is 4096"));
}

#[tokio::test]
async fn over_the_connection_limit_the_reason_is_given_and_a_free_place_is_taken() {
    let transport: Arc<dyn Transport> = Arc::new(TcpTransport);
    let limits = WireLimits { connections_max: 2, ..LIMITS };
    let server = Server::start(&*transport, "127.0.0.1:0", limits).await;
    let link = || link_as(Arc::clone(&transport), &server.addr, hello(Protocol::Client, 7), LIMITS);
    let (first, second, third) = (link(), link(), link());
    echo(&first, "1").await.expect("answer");
    echo(&second, "2").await.expect("answer");
    let error = third.connect().await.expect_err("no place");
    assert!(
        matches!(&error, LinkError::Refused { reason, .. } if reason.contains("2 connections")),
        "{error}"
    );
    first.close();
    while echo(&third, "3").await.is_err() {
        tokio::task::yield_now().await;
    }
    echo(&second, "2").await.expect("the others never noticed");
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_cluster_and_a_wrong_node_are_refused_with_the_reason() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let stranger = link_as(Arc::new(transport.clone()), "node:1", hello(Protocol::Peer, 8), LIMITS);
    let error = stranger.connect().await.expect_err("wrong cluster");
    assert!(
        matches!(&error, LinkError::Refused { reason, .. } if reason == "this is cluster 7, not 8"),
        "{error}"
    );

    let io = Box::new(transport.connect("node:1").expect("connect"));
    let check = |_: &Hello| Err("not the node that I want".to_owned());
    let error = dial(io, &hello(Protocol::Peer, 7), check, &LIMITS).await.err();
    assert!(
        matches!(error, Some(HandshakeError::Refused(reason)) if reason == "not the node that I want")
    );
}

#[tokio::test]
async fn protocols_do_not_mix_on_one_connection() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let client = FrameHeader {
        protocol: Protocol::Client,
        kind: ECHO,
        log: 0,
        correlation: 1,
        head_bytes: 0,
        body_bytes: 0,
    };
    let reason = goodbye_to(&transport, &client.encode(b"", &[])).await;
    assert!(reason.contains("other protocol"), "{reason}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off_at_the_byte_limit() {
    let transport = MemoryTransport::default();
    let limits = WireLimits { queue_bytes_max: 1 << 20, ..LIMITS };
    let server = Server::start(&transport, "node:1", limits).await;
    let io = Box::new(transport.connect("node:1").expect("connect"));
    let connection = dial(io, &hello(Protocol::Peer, 7), |_| Ok(()), &LIMITS).await.expect("hello");
    let (_reader, mut writer) = (connection.reader, connection.writer);
    let head = 1_000_000_u32.to_le_bytes();
    writer.write_all(&header(FLOOD, &head, 0)).await.expect("write");
    writer.write_all(&head).await.expect("write");
    let mut flooded = server.service.flooded.subscribe();
    let sent = flooded.wait_for(Option::is_some).await.expect("the service lives");
    assert!(sent.is_some_and(|sent| (900..1100).contains(&sent)), "{sent:?} KiB were queued");
    drop(sent);
    echo(&link(&transport, "node:1"), "the others go on").await.expect("answer");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_reading_is_cut_off_in_time() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let io = Box::new(transport.connect("node:1").expect("connect"));
    let connection = dial(io, &hello(Protocol::Peer, 7), |_| Ok(()), &LIMITS).await.expect("hello");
    let (_reader, mut writer) = (connection.reader, connection.writer);
    let head = 1_000_u32.to_le_bytes();
    writer.write_all(&header(FLOOD, &head, 0)).await.expect("write");
    writer.write_all(&head).await.expect("write");
    writer.write_all(&header(HOLD, b"", 0)).await.expect("write");
    server.service.handled(2).await;
    let out = server.service.held.lock().expect("lock")[0].0.clone();
    // This end is not silent, so only the writes can tell.
    let chatter = tokio::spawn(async move {
        while writer.write_all(&header(kind::PONG, b"", 0)).await.is_ok() {
            // paced: on the paused clock, which jumps
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let began = tokio::time::Instant::now();
    out.closed().await;
    assert!(began.elapsed() <= Duration::from_secs(31), "{:?}", began.elapsed());
    chatter.await.expect("ends when the connection does");
}

#[tokio::test]
async fn room_in_a_queue_can_be_waited_for() {
    let out = Outbound::new(Protocol::Client, 1000, 1 << 20);
    let first = out.reserve(800).await.expect("room");
    let second = tokio::spawn({
        let out = out.clone();
        async move { out.reserve(800).await.is_some() }
    });
    let frame = OutFrame { body: vec![Bytes::from(vec![1; 900])], ..request(ECHO, b"") };
    assert!(first.send(frame), "a reserved frame is always taken");
    assert!(!second.is_finished());
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let writer = tokio::spawn(async move { out.write_to(ours).await });
    let mut reader = FrameReader::new(theirs, 1 << 20);
    let frame = reader.next().await.expect("readable").expect("a frame");
    assert_eq!(frame.body.len(), 900);
    assert!(second.await.expect("no panic"));
    writer.abort();
}

#[tokio::test]
async fn a_client_that_takes_nothing_leaves_room_for_those_that_do() {
    let queued = Queued::new(1000);
    let connection = || Outbound::new(Protocol::Client, 1 << 20, 1 << 20).counted(Some(&queued));
    let (slow, other) = (connection(), connection());
    let held = slow.reserve(900).await.expect("it is open");
    let next = slow.reserve(200);
    assert!(futures_util::FutureExt::now_or_never(next).is_none(), "1,000 may be queued");
    let own = other.reserve(500).await.expect("nothing is queued to it");
    let further = tokio::spawn({
        let other = other.clone();
        async move { other.reserve(100).await.is_some() }
    });
    tokio::task::yield_now().await;
    assert!(!further.is_finished(), "1,400 are queued");
    // The slow one ends: what was queued to it counts no more, though somebody holds on to it.
    slow.close("it takes nothing");
    assert!(further.await.expect("no panic"));
    drop((held, own));
    assert!(other.reserve(1000).await.is_some());
}

/// A frame as a node of version 1 writes it.
fn old_frame(kind: u8, head: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, head, 0).to_vec();
    bytes[4] = 1;
    bytes.truncate(36);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes);
    crc.update(head);
    bytes.extend_from_slice(&crc.finalize().to_le_bytes());
    bytes.extend_from_slice(head);
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_version_is_refused_at_both_ends_with_both_versions() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let mut old = transport.connect("node:1").expect("connect");
    old.write_all(&old_frame(kind::HELLO, &[0; 52])).await.expect("write");
    let refusal = closed(old).await;
    let ours = Protocol::Peer.version();
    assert_eq!(refusal[4..6], [ours, kind::REFUSE], "a node of version 1 reads no further");
    let text = String::from_utf8_lossy(&refusal[HEADER_BYTES..]);
    assert!(text.contains("version 1") && text.contains(&format!("version {ours}")), "{text}");

    let mut listener = transport.bind("old:1").await.expect("bind");
    let refusing = tokio::spawn(async move {
        for _ in 0.. {
            let (mut io, _) = listener.accept().await.expect("it lives");
            let mut first = [0; HEADER_BYTES];
            io.read_exact(&mut first).await.expect("a hello");
            assert_eq!(first[4], ours);
            io.write_all(&old_frame(kind::REFUSE, b"another version?")).await.expect("write");
        }
    });
    let link = link(&transport, "old:1");
    let error = link.connect().await.expect_err("it is of version 1");
    let LinkError::OtherVersion { theirs, ours: said, .. } = error else { panic!("{error:?}") };
    assert_eq!((theirs, said), (1, ours));
    let (before, began) = (link.failures(), tokio::time::Instant::now());
    while link.failures() == before {
        link.poke();
        // paced: by the clock of the test.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(30), "it logs each dial");
    refusing.abort();
}

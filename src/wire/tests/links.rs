//! Requests, responses, and the connection below them.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::*;
use crate::seam::{Acceptor, BoxFuture, Duplex};

#[tokio::test]
async fn a_request_comes_back_with_its_body_in_memory_and_over_tcp() {
    let transports: [(Arc<dyn Transport>, &str); 2] =
        [(Arc::new(MemoryTransport::default()), "node:1"), (Arc::new(TcpTransport), "127.0.0.1:0")];
    for (transport, addr) in transports {
        let server = Server::start(&*transport, addr, LIMITS).await;
        let link = link_as(transport, &server.addr, hello(Protocol::Client, 7), LIMITS);
        for size in [0, 1, 255, 257, 20_000, 40_000, 70_000, 3 << 20] {
            let chunk: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            // More chunks than one vectored write takes, small and large ones mixed.
            let small = Bytes::from(vec![b's'; 100]);
            let mut body: Vec<Bytes> = (0..150).map(|_| small.clone()).collect();
            body.extend((0..100).map(|_| Bytes::from(vec![b'm'; 300])));
            body.push(Bytes::from(chunk));
            let log = LogId(9);
            let frame = OutFrame { kind: ECHO, log, body: body.clone(), ..request(ECHO, b"head") };
            let answer = link.request(frame, SOON).await.expect("answer");
            assert_eq!((answer.kind, answer.log, &answer.head[..]), (ECHO, log, &b"head"[..]));
            assert!(answer.body == body.concat(), "{size} bytes differ");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn pipelined_requests_arrive_in_order_and_are_answered_in_any() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    link.connect().await.expect("connect");
    let start = |i: u32| link.start(request(HOLD, &i.to_le_bytes())).expect("start");
    let pending: Vec<_> = (0..500).map(start).collect();
    server.service.handled(500).await;
    for (i, frame) in server.service.handled.borrow().iter().enumerate() {
        assert_eq!(credit_of(frame), Ok(i as u32));
    }
    server.service.release();
    for (i, pending) in pending.into_iter().enumerate() {
        assert_eq!(credit_of(&pending.await.expect("answer")), Ok(i as u32));
    }
}

#[tokio::test]
async fn who_is_answered_goes_on_while_other_answers_are_not_read_yet() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    link.connect().await.expect("connect");
    let waits = |_| {
        let (pending, link) = (link.start(request(HOLD, &[])).expect("start"), link.clone());
        tokio::spawn(async move { pending.await.map(|_| link.waiting_count()) })
    };
    let waiting: Vec<_> = (0..200).map(waits).collect();
    server.service.handled(200).await;
    server.service.release();
    let mut unread = Vec::new();
    for task in waiting {
        unread.push(task.await.expect("a task that waits").expect("answer"));
    }
    assert!(unread.iter().any(|&count| count >= 100), "{unread:?} of 200");
}

#[tokio::test(start_paused = true)]
async fn after_the_server_dies_the_link_fails_fast_and_comes_back_with_backoff() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    echo(&link, "first").await.expect("answer");
    let pending = link.start(request(HOLD, b"")).expect("start");
    server.service.handled(2).await;
    // paced: on the paused clock, which jumps
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.kill().await;
    let error = pending.await.expect_err("the server is dead");
    assert!(matches!(error, LinkError::Broken { .. }), "{error}");

    let mut dials = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        let before = Instant::now();
        let error = link.connect().await.expect_err("nobody listens");
        assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
        assert_eq!(before.elapsed(), Duration::ZERO, "an error must come at once");
        assert!(matches!(link.start(request(ECHO, b"")), Err(LinkError::Unreachable { .. })));
        dials = link.failures();
        tokio::time::advance(Duration::from_millis(5)).await;
    }
    assert!((6..=14).contains(&dials), "{dials} dials in 10 s");

    let server = Server::start(&transport, "node:1", LIMITS).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    echo(&link, "second").await.expect("answer");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_silent_is_found_out() {
    let transport = MemoryTransport::default();
    let mut acceptor = transport.bind("node:1").await.expect("bind");
    let silent = tokio::spawn(async move {
        let (io, _) = acceptor.accept().await.expect("accept");
        let open = async |theirs: Hello| Ok((Hello { node_id: 2, ..theirs }, ()));
        let (connection, ()) = hello::accept(io, open, &LIMITS).await.expect("handshake");
        std::future::pending::<()>().await;
        drop(connection);
    });
    let link = link(&transport, "node:1");
    let began = Instant::now();
    let error = link.request(request(ECHO, b""), Duration::from_secs(60)).await;
    assert!(matches!(error, Err(LinkError::Broken { .. })), "{error:?}");
    assert!(began.elapsed() <= Duration::from_secs(10), "{:?}", began.elapsed());
    silent.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_open() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    let pending = {
        link.connect().await.expect("connect");
        link.start(request(HOLD, b"late")).expect("start")
    };
    // paced: on the paused clock, which jumps
    tokio::time::sleep(Duration::from_secs(600)).await;
    server.service.release();
    assert_eq!(pending.await.expect("answer").head, "late");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out_and_is_forgotten() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    let error = link.request(request(HOLD, b""), SOON).await.expect_err("held");
    assert!(matches!(error, LinkError::Timeout { after: SOON, .. }), "{error}");
    assert_eq!(link.waiting_count(), 0);
    server.service.release();
    echo(&link, "the late answer did no harm").await.expect("answer");
}

#[tokio::test]
async fn a_full_queue_is_busy_and_breaks_nothing() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let limits = WireLimits { queue_bytes_max: 100_000, ..LIMITS };
    let link = link_as(Arc::new(transport), "node:1", hello(Protocol::Peer, 7), limits);
    link.connect().await.expect("connect");
    let mut pending = Vec::new();
    // Nothing is written meanwhile: this task does not yield.
    let error = loop {
        match link.start(request(ECHO, &[0; 1000])) {
            Ok(started) => pending.push(started),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LinkError::Busy { queued: 90_000..=100_000, .. }), "{error}");
    for pending in pending {
        pending.await.expect("answer");
    }
    echo(&link, "room again").await.expect("answer");
    server.stop().await;
}

#[tokio::test]
async fn a_frame_over_the_other_ends_limit_is_refused_here() {
    let transport = MemoryTransport::default();
    let limits = WireLimits { frame_bytes_max: 1000, ..LIMITS };
    let server = Server::start(&transport, "node:1", limits).await;
    let link = link(&transport, "node:1");
    let error = link.request(request(ECHO, &[0; 1001]), SOON).await.expect_err("too large");
    assert!(matches!(error, LinkError::TooLarge { size: 1001, limit: 1000, .. }), "{error}");
    echo(&link, "still open").await.expect("answer");
    server.stop().await;
}

#[tokio::test]
async fn closing_a_link_fails_what_waits_and_it_stays_closed() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    link.connect().await.expect("connect");
    let pending = link.start(request(HOLD, b"")).expect("start");
    link.close();
    assert!(matches!(pending.await, Err(LinkError::Broken { .. })));
    assert!(matches!(link.connect().await, Err(LinkError::Unreachable { .. })));
    server.stop().await;
}

#[tokio::test]
async fn shutting_down_delivers_what_is_queued_and_says_goodbye() {
    let transport = MemoryTransport::default();
    let server = Server::start(&transport, "node:1", LIMITS).await;
    let link = link(&transport, "node:1");
    link.connect().await.expect("connect");
    let answered = link.start(request(HOLD, b"answered")).expect("start");
    server.service.handled(1).await;
    server.service.release();
    let unanswered = link.start(request(HOLD, b"unanswered")).expect("start");
    server.service.handled(2).await;
    server.stop().await;
    assert_eq!(answered.await.expect("queued before the end").head, "answered");
    let error = unanswered.await.expect_err("never answered").to_string();
    assert!(error.contains("shuts down"), "{error}");
}

#[tokio::test]
async fn a_link_that_is_renewed_while_it_dials_dials_again() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let (itself, dials) = (Arc::new(OnceLock::<Link>::new()), Arc::new(AtomicUsize::new(0)));
    let (found, counted) = (Arc::clone(&itself), Arc::clone(&dials));
    let check: HelloCheck = Arc::new(move |_, _| {
        // The process that has just answered is replaced.
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            found.get().expect("it dials").renew();
        }
        Ok(())
    });
    let ours = hello(Protocol::Peer, 7);
    let place = Arc::new("node:1".to_owned());
    let link = Link::new(Arc::new(transport), place, Arc::new(move || ours.clone()), check, LIMITS);
    itself.get_or_init(|| link.clone());
    echo(&link, "who is there").await.expect("the next process");
    assert_eq!(dials.load(Ordering::Relaxed), 2);
}

/// Its first dials hang, as if what they send is lost.
#[derive(Debug)]
struct Lossy {
    inner: MemoryTransport,
    lost: AtomicUsize,
}

impl Transport for Lossy {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let less = |lost: usize| lost.checked_sub(1);
        if self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Box::pin(std::future::pending());
        }
        self.inner.dial(addr)
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.inner.bind(addr)
    }
}

/// A partition had just ended: the follower had connected to the leader, whose own dial waited for TCP to send its packet
/// again.
#[tokio::test(start_paused = true)]
async fn news_of_the_other_end_begins_a_hung_dial_again() {
    let transport = MemoryTransport::default();
    let _server = Server::start(&transport, "node:1", LIMITS).await;
    let lossy = Lossy { inner: transport, lost: AtomicUsize::new(2) };
    let (ours, place) = (hello(Protocol::Peer, 7), Arc::new("node:1".to_owned()));
    let check: HelloCheck = Arc::new(|_, _| Ok(()));
    let link = Link::new(Arc::new(lossy), place, Arc::new(move || ours.clone()), check, LIMITS);
    let began = Instant::now();
    let answered = echo(&link, "who is there");
    let news = async {
        // One piece of news each time, and the dial must be let through in spite of many.
        loop {
            tokio::time::advance(Duration::from_millis(10)).await;
            link.retry_now();
        }
    };
    let answered = tokio::select! {
        answered = answered => answered,
        () = news => unreachable!("it does not end"),
    };
    answered.expect("its dials are not lost any more");
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
}

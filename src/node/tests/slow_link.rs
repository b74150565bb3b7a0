//! A slow link between nodes.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use super::shaped::{Shape, ShapedTransport};
use super::*;

/// Takes so many bytes a second.
struct Slow {
    rate: Arc<AtomicUsize>,
    /// Nothing is taken before it ends.
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl Shape for Slow {
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        ready!(self.pause.as_mut().poll(cx));
        Poll::Ready(Ok(bytes.min(16 << 10)))
    }

    fn wrote(&mut self, bytes: usize) {
        // The number of bytes is small.
        let rate = self.rate.load(Ordering::Relaxed) as f64;
        let taken = Duration::from_secs_f64(bytes as f64 / rate);
        self.pause.as_mut().reset(Instant::now() + taken);
    }
}

/// Connections that take so many bytes a second each.
fn slow(rate: &Arc<AtomicUsize>) -> ShapedTransport {
    let rate = Arc::clone(rate);
    ShapedTransport::new(move || {
        // paced: a link of so many bytes a second is what is being tested
        let pause = Box::pin(tokio::time::sleep(Duration::ZERO));
        Slow { rate: Arc::clone(&rate), pause }
    })
}

#[test]
fn an_append_that_a_slow_link_takes_longer_for_than_a_request_may_take_is_committed() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let rate = Arc::new(AtomicUsize::new(usize::MAX >> 16));
    let nodes = three(&slow(&rate), &disks, |config| {
        config.raft.heartbeat_interval = Duration::from_millis(50);
        config.raft.election_timeout_min = Duration::from_millis(500);
        config.raft.election_timeout_max = Duration::from_millis(600);
        config.limits.append_timeout = PATIENCE;
    });
    let log = nodes[0].node.log(&name("orders")).expect("it leads it");
    // A request is sent again after 1.2 s at first, and this one takes 2 s.
    rate.store(512 << 10, Ordering::Relaxed);
    let payload = bytes::Bytes::from(vec![7; 1 << 20]);
    nodes[0].run(log.append(payload)).expect("it is slow, and it works");
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn appends_on_a_slow_link_do_not_keep_heartbeats_back() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let rate = Arc::new(AtomicUsize::new(usize::MAX >> 16));
    let nodes = three(&slow(&rate), &disks, |config| {
        config.raft.heartbeat_interval = Duration::from_millis(100);
        config.raft.election_timeout_min = Duration::from_millis(1000);
        config.raft.election_timeout_max = Duration::from_millis(1500);
    });
    let leader = &nodes[0];
    let log = leader.node.log(&name("orders")).expect("it leads it");
    let terms =
        || leader.node.statuses().iter().map(|s| (s.log.clone(), s.term)).collect::<Vec<_>>();
    let before = terms();
    // Each follower has about four seconds of it on its way.
    rate.store(1 << 20, Ordering::Relaxed);
    let payload = bytes::Bytes::from(vec![7; 256 << 10]);
    let tickets: Vec<_> =
        (0..16).map(|_| leader.run(log.submit(payload.clone())).expect("there is room")).collect();
    for ticket in tickets {
        leader.run(ticket).expect("it is slow, and it works");
    }
    assert_eq!(terms(), before, "there was an election");
    assert_eq!(leader.node.statuses().iter().filter(|s| s.role == Role::Leader).count(), 2);
    nodes.into_iter().for_each(Running::kill);
}

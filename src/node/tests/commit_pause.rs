//! How followers hear of commits.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use super::shaped::{Shape, ShapedTransport};
use super::*;

/// How long a leader waits for entries that tell of a commit, too.
const COMMIT_PAUSE: Duration = Duration::from_millis(1);

/// Counts writes, in one piece or several.
struct Counted(Arc<AtomicUsize>);

impl Shape for Counted {
    fn poll_room(&mut self, _cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes))
    }

    fn wrote(&mut self, _bytes: usize) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn calm(config: &mut Config) {
    config.raft.heartbeat_interval = Duration::from_millis(500);
    config.raft.election_timeout_min = Duration::from_millis(1500);
    config.raft.election_timeout_max = Duration::from_millis(3000);
}

#[test]
fn one_append_after_the_other_costs_about_one_request_a_follower_each() {
    const APPENDS: usize = 300;
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let transport = ShapedTransport::new(move || Counted(Arc::clone(&counted)));
    let nodes = three(&transport, &disks, calm);
    let log = nodes[0].node.log(&name("orders")).expect("it leads it");
    let before = writes.load(Ordering::Relaxed);
    let mut turns = vec![Instant::now()];
    nodes[0].run(async {
        for _ in 0..APPENDS {
            log.append(bytes::Bytes::from_static(b"one")).await.expect("a quorum is there");
            turns.push(Instant::now());
        }
    });
    let writes = writes.load(Ordering::Relaxed) - before;
    // Only where the next append is not through within the pause may a commit be told by itself: not for each.
    let late = turns.windows(3).filter(|turn| turn[2] - turn[0] >= COMMIT_PAUSE).count();
    let elapsed = turns[APPENDS] - turns[0];
    let heartbeats = APPENDS / 3 + 50 * elapsed.as_secs() as usize;
    let most = 2 * (APPENDS + late) + heartbeats;
    assert!(
        writes < most,
        "{writes} writes for {APPENDS} appends to two followers, {late} of them late"
    );
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_follower_hears_of_a_commit_that_nothing_follows_long_before_the_next_heartbeat() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let nodes = three(&MemoryTransport::default(), &disks, |config| {
        config.raft.heartbeat_interval = PATIENCE * 2;
        config.raft.election_timeout_min = PATIENCE * 4;
        config.raft.election_timeout_max = PATIENCE * 5;
    });
    let log = nodes[0].node.log(&name("orders")).expect("it leads it");
    for _ in 0..10 {
        let appended = nodes[0].run(log.append(bytes::Bytes::from_static(b"last")));
        let index = appended.expect("a quorum is there").index;
        for follower in &nodes[1..] {
            let held = follower.node.log(&name("orders")).expect("it holds it");
            follower.until("the commit", || (held.status().committed > index).then_some(()));
        }
    }
    nodes.into_iter().for_each(Running::kill);
}

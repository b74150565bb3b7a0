//! Checkpoints that are larger than what a connection takes, or than memory is to hold.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use super::shaped::{Shape, ShapedTransport};
use super::*;
use crate::record::Record;
use crate::state_machine::StateMachine;

const STATE_BYTES: u64 = 20 << 20;

/// Its state is how many records it was given, written out as many bytes that follow from that.
struct Inflated(Arc<AtomicU64>);

fn word(count: u64, at: u64) -> [u8; 8] {
    (count ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
}

impl StateMachine for Inflated {
    fn apply(&mut self, _record: &Record) -> Result<bytes::Bytes, crate::ApplyError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(bytes::Bytes::new())
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = self.0.load(Ordering::Relaxed);
        (0..STATE_BYTES / 8).try_for_each(|at| out.write_all(&word(count, at)))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut read = [0; 8];
        let mut count = 0;
        for at in 0..STATE_BYTES / 8 {
            from.read_exact(&mut read)?;
            count = if at == 0 { u64::from_le_bytes(read) } else { count };
            assert_eq!(read, word(count, at), "at {at}");
        }
        assert_eq!(from.read(&mut read)?, 0, "it ends");
        self.0.store(count, Ordering::Relaxed);
        Ok(())
    }
}

/// Breaks once it has taken so many bytes.
struct Breaking {
    bytes_each: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
    taken: usize,
}

impl Shape for Breaking {
    fn poll_room(&mut self, _cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        if self.taken > self.bytes_each.load(Ordering::Relaxed) {
            self.broken.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Ready(Ok(bytes))
    }

    fn wrote(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

fn start(
    transport: &(impl Transport + Clone),
    disk: &SimDisk,
    id: NodeId,
    count: &Arc<AtomicU64>,
) -> Running {
    let count = Arc::clone(count);
    let machine = move |_: &LogName| -> Option<Box<dyn StateMachine>> {
        Some(Box::new(Inflated(Arc::clone(&count))))
    };
    let change = |config: &mut Config| {
        // A checkpoint is restored where heartbeats are answered.
        config.raft.election_timeout_min = Duration::from_millis(1000);
        config.raft.election_timeout_max = Duration::from_millis(2000);
    };
    let build = |builder: NodeBuilder| builder.state_machines(machine);
    Running::try_build(transport, disk, id, change, build).expect("it opens")
}

#[test]
fn a_checkpoint_arrives_over_connections_that_each_break_before_they_took_all_of_it() {
    let bytes_each = Arc::new(AtomicUsize::new(usize::MAX));
    let broken: Arc<AtomicUsize> = Arc::default();
    let (each, count) = (Arc::clone(&bytes_each), Arc::clone(&broken));
    let transport = ShapedTransport::new(move || Breaking {
        bytes_each: Arc::clone(&each),
        broken: Arc::clone(&count),
        taken: 0,
    });
    let counts = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let disks = [SimDisk::new(), SimDisk::with_seed(2)];
    let first = start(&transport, &disks[0], 1, &counts[0]);
    first.bootstrap(vec![first.node.member()]);
    let log = first.run(first.node.create_log(&name("orders"))).expect("one node");
    while first.run(log.admin().trim(u64::MAX)).expect("one node") == 0 {
        first.run(log.append(vec![7; 40 << 10])).expect("one node");
    }
    bytes_each.store(6 << 20, Ordering::Relaxed);
    let second = start(&transport, &disks[1], 2, &counts[1]);
    first.run(first.node.admin().add_learner(second.node.member())).expect("both run");
    let copy = second.until("the log", || second.node.log(&name("orders")));
    second.until("the checkpoint, and what follows it", || {
        let (has, wanted) = (copy.status(), log.status());
        (has.begin > 0 && has.applied == wanted.applied).then_some(())
    });
    assert_eq!(counts[1].load(Ordering::Relaxed), counts[0].load(Ordering::Relaxed));
    let broken = broken.load(Ordering::Relaxed);
    assert!(broken >= 3, "{broken} connections broke");
    // A node that still hears from the leader may have begun to receive once more, or save its own state.
    second.until("what was received is kept or removed", || {
        let is_draft = |path: &Path| path.to_string_lossy().ends_with(".tmp");
        (!disks[1].contents().iter().any(|(path, _)| is_draft(path))).then_some(())
    });
    first.kill();
    second.kill();
}

//! Copies of a member's data directory, and members that are away while one runs.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::moved::{moved_node_on, problem, steady};
use super::*;
use crate::problem::ProblemKind;
use crate::seam::{Acceptor, BoxFuture, Duplex};

/// A node's network, which can be cut: then the node reaches nobody, and `node2:1` is reached by nobody.
#[derive(Debug, Clone, Default)]
struct Cable {
    net: MemoryTransport,
    /// Connections of the node with this cable are cut, too.
    own: bool,
    cut: Arc<AtomicBool>,
}

impl Transport for Cable {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let cable = self.clone();
        let concerned = self.own || addr == "node2:1";
        if concerned && self.cut.load(Ordering::Relaxed) {
            return Box::pin(async { Err(io::ErrorKind::TimedOut.into()) });
        }
        let io = self.net.dial(addr);
        Box::pin(async move {
            let io = io.await?;
            let cut = if concerned { cable.cut } else { Arc::default() };
            Ok(Box::new(Cord { io, cut }) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.net.bind(addr)
    }
}

/// A connection that breaks with the next byte once it is cut.
struct Cord {
    io: Box<dyn Duplex>,
    cut: Arc<AtomicBool>,
}

impl AsyncRead for Cord {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cord {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Three nodes with the log `orders`, led by the first.
struct Cluster {
    nodes: Vec<Running>,
    disks: [SimDisk; 3],
    cable: Cable,
}

impl Cluster {
    fn start() -> Self {
        let cable = Cable::default();
        let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
        let nodes: Vec<Running> = disks
            .iter()
            .zip(1..)
            .map(|(disk, id)| {
                let cable = Cable { own: id == 2, ..cable.clone() };
                Running::try_start(&cable, disk, id, steady).expect("it opens")
            })
            .collect();
        nodes[0].bootstrap(nodes.iter().map(|running| running.node.member()).collect());
        nodes[0].run(nodes[0].node.create_log(&name("orders"))).expect("all run");
        nodes[0].run(nodes[0].node.admin().transfer_leadership(1)).expect("all run");
        let second = nodes[1].replica().id;
        for running in [&nodes[0], &nodes[2]] {
            running.until("node 2 to have dialed", || session(running, second));
        }
        let inner = &nodes[1].node.inner;
        nodes[1].until("it to have taken part", || inner.is_admitted().then_some(()));
        Self { nodes, disks, cable }
    }

    /// Starts a copy of node 2 elsewhere.
    fn copy(&self) -> Running {
        let net = self.cable.net.clone();
        let uncut = Cable { net, ..Cable::default() };
        moved_node_on(&uncut, &self.disks[1].after_crash(&CrashPolicy::KeepAll), 2, None)
    }

    fn cut(&self, cut: bool) {
        self.cable.cut.store(cut, Ordering::Relaxed);
    }
}

/// The process that `running` takes for a member.
fn session(running: &Running, member: crate::member::ReplicaId) -> Option<u128> {
    running.node.inner.peers.contacts.session(member)
}

/// Waits until the node has this problem for this reason.
fn problem_that_says(running: &Running, kind: ProblemKind, reason: &str) {
    running.until(reason, || {
        let mut problems = running.node.problems().into_iter();
        problems.find(|problem| problem.kind == kind && problem.reason.contains(reason))
    });
}

#[test]
fn a_copy_is_kept_out_while_it_is_not_known_whether_the_member_runs() {
    let cluster = Cluster::start();
    let second = cluster.nodes[1].replica().id;
    let before = session(&cluster.nodes[0], second);
    cluster.cut(true);
    let copy = cluster.copy();
    let first = cluster.nodes[0].replica().id;
    copy.until("to be told to wait", || {
        let failing = copy.node.inner.peers.contacts.failing(first)?;
        failing.reason.contains("may still run").then_some(())
    });
    cluster.cut(false);
    let reason = copy.run(copy.node.retired());
    assert!(reason.contains("node2:1"), "{reason}");
    assert_eq!(session(&cluster.nodes[0], second), before, "the copy got in");
    copy.kill();
    cluster.nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_copy_that_came_in_while_the_member_was_away_is_found_and_neither_counts_until_one_is_gone() {
    let mut cluster = Cluster::start();
    let second = cluster.nodes[1].replica().id;
    let before = session(&cluster.nodes[0], second);
    cluster.cut(true);
    let copy = cluster.copy();
    let others = [0, 2];
    for at in others {
        let running = &cluster.nodes[at];
        running
            .until("the copy to get in", || (session(running, second)? != before?).then_some(()));
    }
    cluster.cut(false);
    let original = &cluster.nodes[1];
    for twin in [original, &copy] {
        // One that is refused before it is known that both have taken part is told so first.
        problem_that_says(twin, ProblemKind::Duplicate, "both have taken part");
    }
    for at in others {
        let seen = problem(&cluster.nodes[at], ProblemKind::PeerDuplicate);
        assert_eq!(seen.peer, Some(2), "{seen}");
    }
    // Neither counts: without node 3 there is no majority.
    cluster.nodes.pop().expect("three").kill();
    let first = &cluster.nodes[0];
    let log = first.node.log(&name("orders")).expect("it is open");
    let options = crate::record::AppendOptions {
        timeout: Some(Duration::from_secs(2)),
        ..Default::default()
    };
    first.run(log.append_with("one", options)).expect_err("one of three counts");
    // Once the copy is gone, what it acknowledged is missing in the original.
    copy.kill();
    problem_that_says(&cluster.nodes[1], ProblemKind::DataLost, "older copy");
    assert_ne!(session(first, second), before, "the original got in");
    cluster.nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_process_that_must_not_go_on_opens_no_further_log() {
    let cluster = Cluster::start();
    let copy = cluster.copy();
    copy.run(copy.node.retired());
    let opened = copy.run(copy.node.inner.open_group(name("late"), LogId(99), None, None, false));
    let opened = opened.expect("its files are sound");
    assert_eq!(opened.status().role, Role::Stopped, "{:?}", opened.status());
    copy.kill();
    cluster.nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_member_that_cannot_dial_the_others_is_let_in_where_it_is_found() {
    let mut cluster = Cluster::start();
    cluster.nodes.remove(1).kill();
    let cut = Arc::new(AtomicBool::new(true));
    let mute = Cable { net: cluster.cable.net.clone(), own: true, cut };
    let disk = cluster.disks[1].crash(&CrashPolicy::KeepAll);
    let second = moved_node_on(&mute, &disk, 2, None);
    let first = &cluster.nodes[0];
    first.run(first.node.admin().add_learner(second.node.member())).expect("a majority runs");
    let log = first.node.log(&name("orders")).expect("it is open");
    let end = first.run(log.append("one")).expect("a majority runs").index + 1;
    second.until("what it missed", || {
        (second.node.log(&name("orders"))?.watermarks().end >= end).then_some(())
    });
    second.kill();
    cluster.nodes.into_iter().for_each(Running::kill);
}

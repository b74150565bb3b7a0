//! How followers hear of commits.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::wire::{Acceptor, BoxFuture, Duplex};

/// Counts what those who dial write, in one piece or several.
#[derive(Debug, Clone, Default)]
struct CountingTransport {
    inner: MemoryTransport,
    writes: Arc<AtomicUsize>,
}

impl Transport for CountingTransport {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let (dialed, writes) = (self.inner.dial(addr), self.writes.clone());
        Box::pin(async move {
            Ok(Box::new(CountingStream { inner: dialed.await?, writes }) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.inner.bind(addr)
    }
}

struct CountingStream {
    inner: Box<dyn Duplex>,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
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
    let transport = CountingTransport::default();
    let nodes = three(&transport, &disks, calm);
    let log = nodes[0].node.log("orders").expect("it leads it");
    let before = transport.writes.load(Ordering::Relaxed);
    nodes[0].run(async {
        for _ in 0..APPENDS {
            log.append(bytes::Bytes::from_static(b"one")).await.expect("a quorum is there");
        }
    });
    let writes = transport.writes.load(Ordering::Relaxed) - before;
    // More than three an append if each commit is told by itself at once.
    assert!(3 * writes < 8 * APPENDS, "{writes} writes for {APPENDS} appends to two followers");
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
    let log = nodes[0].node.log("orders").expect("it leads it");
    for _ in 0..10 {
        let appended = nodes[0].run(log.append(bytes::Bytes::from_static(b"last")));
        let index = appended.expect("a quorum is there").index;
        for follower in &nodes[1..] {
            let held = follower.node.log("orders").expect("it holds it");
            follower.until("the commit", || (held.status().committed > index).then_some(()));
        }
    }
    nodes.into_iter().for_each(Running::kill);
}

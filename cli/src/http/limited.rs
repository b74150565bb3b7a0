//! A listener that limits how many connections there are and how long each lives, so that idle or slow clients cannot use up
//! the node's sockets or keep others waiting. It takes every new connection, and ends the one that was quiet the longest.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Bytes;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::door::Other;

/// How long one connection may be used; a scraper that keeps its connection opens another then.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long one may be quiet: one that brings no request, or does not take its answer.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// Takes the connections that the door hands on, and ends one when more than its bound are open.
pub(super) struct Limited {
    others: mpsc::Receiver<Other>,
    places: Arc<Places>,
}

/// The connections that are open.
#[derive(Default)]
struct Places {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last_number: u64,
    /// By number; one that has to end is not among them.
    connections: BTreeMap<u64, Slot>,
}

struct Slot {
    /// When it last brought or took a byte.
    active: Instant,
    waker: Option<Waker>,
}

impl Places {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. If there is none, the connection that was quiet the longest ends.
    fn take(&self) -> u64 {
        let mut open = self.open();
        while open.connections.len() >= self.max {
            let quietest = open.connections.iter().min_by_key(|(_, slot)| slot.active);
            let Some(number) = quietest.map(|(number, _)| *number) else { break };
            let waker = open.connections.remove(&number).and_then(|slot| slot.waker);
            waker.into_iter().for_each(Waker::wake);
        }
        open.last_number += 1;
        let number = open.last_number;
        open.connections.insert(number, Slot { active: Instant::now(), waker: None });
        number
    }
}

impl Limited {
    pub(super) fn new(others: mpsc::Receiver<Other>, connections_max: u32) -> Self {
        let places = Places { max: connections_max.max(1) as usize, open: Mutex::default() };
        Self { others, places: Arc::new(places) }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        let Some(Other { stream, read }) = self.others.recv().await else {
            // The door is closed.
            return std::future::pending().await;
        };
        let number = self.places.take();
        let deadline = Instant::now() + LIFETIME;
        let timer = Box::pin(tokio::time::sleep(QUIET_MAX));
        let places = Arc::clone(&self.places);
        (Connection { stream, read: read.into(), number, places, deadline, timer }, ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that ends at its deadline, when it is quiet for too long, or when another needs its place.
pub(super) struct Connection {
    stream: TcpStream,
    /// What the door has read.
    read: Bytes,
    number: u64,
    places: Arc<Places>,
    deadline: Instant,
    /// Until it is quiet for too long.
    timer: Pin<Box<Sleep>>,
}

impl Connection {
    /// Fails if the connection has to end. Otherwise wakes the task that polls when that changes.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        {
            let mut open = self.places.open();
            let Some(slot) = open.connections.get_mut(&self.number) else {
                return Err(io::ErrorKind::ConnectionAborted.into());
            };
            slot.waker = Some(cx.waker().clone());
        }
        if Instant::now() >= self.deadline || self.timer.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Notes that a byte went either way.
    fn moved(&mut self) {
        let now = Instant::now();
        self.timer.as_mut().reset((now + QUIET_MAX).min(self.deadline));
        if let Some(slot) = self.places.open().connections.get_mut(&self.number) {
            slot.active = now;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.places.open().connections.remove(&self.number);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if !self.read.is_empty() {
            let bytes = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read.split_to(bytes));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() && buf.filled().len() > before {
            self.moved();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.moved();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Hands connections on without a look at them.
    async fn listener(connections_max: u32) -> (Limited, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("addr");
        let (handed_on, others) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let read = Vec::new();
                handed_on.send(Other { stream, read }).await.expect("it takes them");
            }
        });
        (Limited::new(others, connections_max), addr)
    }

    #[tokio::test]
    async fn a_newcomer_is_taken_at_once_and_the_quietest_connection_ends_for_it() {
        let (mut limited, addr) = listener(2).await;
        let mut clients = Vec::new();
        let mut held = Vec::new();
        for _ in 0..2 {
            clients.push(TcpStream::connect(addr).await.expect("connect"));
            held.push(Listener::accept(&mut limited).await.0);
        }
        // The first one has something to say meanwhile.
        clients[0].write_all(b"x").await.expect("write");
        assert_eq!(held[0].read_u8().await.expect("read"), b'x');
        let mut quiet = held.remove(1);
        let waiting = tokio::spawn(async move { quiet.read_u8().await });
        tokio::task::yield_now().await;
        clients.push(TcpStream::connect(addr).await.expect("connect"));
        held.push(Listener::accept(&mut limited).await.0);
        let error = waiting.await.expect("no panic").expect_err("its place was needed");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        for (client, connection) in [(0, 0), (2, 1)] {
            clients[client].write_all(b"y").await.expect("write");
            assert_eq!(held[connection].read_u8().await.expect("read"), b'y');
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_nothing_ends_soon_and_any_other_at_its_deadline() {
        let (mut limited, addr) = listener(3).await;
        let _silent = TcpStream::connect(addr).await.expect("connect");
        let (mut accepted, _) = Listener::accept(&mut limited).await;
        let since = Instant::now();
        let error = accepted.read_u8().await.expect_err("too quiet");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed().as_secs(), QUIET_MAX.as_secs());
        let mut busy = TcpStream::connect(addr).await.expect("connect");
        let (mut accepted, _) = Listener::accept(&mut limited).await;
        let since = Instant::now();
        let error = loop {
            busy.write_all(b"x").await.expect("write");
            busy.flush().await.expect("flush");
            // paced: a client that sends now and then, for longer than a quiet one may.
            tokio::time::sleep(QUIET_MAX / 2).await;
            if let Err(error) = accepted.read_u8().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(since.elapsed() >= LIFETIME && since.elapsed() < LIFETIME + QUIET_MAX);
    }
}

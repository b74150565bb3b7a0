//! A listener with a bound on connections and on their life, so that idle or slow clients cannot
//! use up the node's sockets.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// How long one connection may be used; a scraper that keeps its connection opens another then.
const LIFETIME: Duration = Duration::from_secs(60);

/// Accepts while fewer than its bound of connections are open.
pub(super) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn new(listener: TcpListener, connections_max: u32) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(connections_max as usize)) }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = loop {
            match Arc::clone(&self.permits).acquire_owned().await {
                Ok(permit) => break permit,
                // Nobody closes the semaphore; if somebody did, nothing more is accepted.
                Err(_) => std::future::pending().await,
            }
        };
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(tokio::time::sleep(LIFETIME));
        (Connection { stream, deadline, _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends at its deadline.
pub(super) struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn listener(connections_max: u32) -> (Limited, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("addr");
        (Limited::new(listener, connections_max), addr)
    }

    #[tokio::test]
    async fn one_connection_over_the_bound_waits_until_another_ends() {
        let (mut limited, addr) = listener(1).await;
        let _first = TcpStream::connect(addr).await.expect("first");
        let (held, _) = Listener::accept(&mut limited).await;
        let mut second = TcpStream::connect(addr).await.expect("second");
        second.write_all(b"x").await.expect("write");
        assert!(futures_util::FutureExt::now_or_never(Listener::accept(&mut limited)).is_none());
        drop(held);
        let (mut accepted, _) = Listener::accept(&mut limited).await;
        assert_eq!(accepted.read_u8().await.expect("read"), b'x');
    }

    #[tokio::test]
    async fn a_connection_that_sends_nothing_ends_at_its_deadline() {
        let (mut limited, addr) = listener(1).await;
        let _silent = TcpStream::connect(addr).await.expect("connect");
        let (mut accepted, _) = Listener::accept(&mut limited).await;
        // paced: the deadline itself, moved to now.
        accepted.deadline = Box::pin(tokio::time::sleep_until(tokio::time::Instant::now()));
        let error = accepted.read_u8().await.expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

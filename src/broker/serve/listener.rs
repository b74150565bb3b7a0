//! Takes connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{self, Budgets, Connection};
use super::pending_request::PendingRequest;
use super::places::Places;
use crate::mutant::Mutant;
use crate::panics;

/// Pause after a connection could not be taken, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that the system holds for a client that does not take them; Linux doubles this. Left alone it would hold up to
/// 4 MiB for each, which no budget counts.
const SEND_BUFFER: u32 = 256 << 10;
/// Connections that wait to be taken, as those of the standard library's listeners.
const BACKLOG: u32 = 1024;

/// A listener for clients, on the first of its addresses that is free.
///
/// # Errors
/// None is, or the name has no address.
pub(super) async fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let mut failed = io::Error::from(io::ErrorKind::InvalidInput);
    for addr in lookup_host(addr).await? {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As the standard library does it; on Windows it would mean something else.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        if !Mutant::SendBufferUnbounded.is_active() {
            // Its connections inherit it.
            socket.set_send_buffer_size(SEND_BUFFER)?;
        }
        match socket.bind(addr).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// What a listener serves.
pub(super) trait Service: Send + Sync + 'static {
    /// The answer to a request, ready to be written; none if there is nothing to say. What is done before the
    /// first wait is done in the order in which requests came.
    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: PendingRequest,
    ) -> BoxFuture<'static, Option<Vec<Bytes>>>;

    /// The connection has ended.
    fn closed(&self, connection: &Connection);
}

/// What the connections of a listener may use.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) budgets: Arc<Budgets>,
    pub(super) places: Arc<Places>,
    pub(super) idle_timeout: Duration,
}

/// Serves connections until told to stop. Then they end.
pub(super) async fn listen(
    listener: TcpListener,
    service: Arc<dyn Service>,
    bounds: Bounds,
    mut stopping: watch::Receiver<bool>,
) {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        while connections.try_join_next().is_some() {}
        let (stream, remote): (_, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                bounds.places.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (connection, queue) = Connection::new(number, remote, &bounds.budgets);
        let Some(place) = bounds.places.take(&connection) else {
            tracing::warn!(%remote, "too many connections, none of them idle; refusing one");
            continue;
        };
        let (service, idle_timeout) = (Arc::clone(&service), bounds.idle_timeout);
        connections.spawn(async move {
            let serving = connection::serve(stream, (connection, queue), service, idle_timeout);
            panics::or_else(serving, |panic| {
                tracing::error!(%remote, panic, "a connection's task panicked; it ends");
            })
            .await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_holds_little_for_a_client_that_takes_nothing() {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let socket = TcpSocket::new_v4().expect("a socket");
        // What the client's side holds counts little.
        socket.set_recv_buffer_size(4 << 10).expect("it is taken");
        let addr = listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(socket.connect(addr), listener.accept());
        let (_client, (stream, _)) = (client.expect("it connects"), accepted.expect("it is there"));
        let (mut held, bytes) = (0, [0; 16 << 10]);
        stream.writable().await.expect("nothing is held yet");
        let full = loop {
            match stream.try_write(&bytes) {
                Ok(count) => held += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let bound = 2 * SEND_BUFFER as usize;
        assert!((bound / 8..=bound + bound / 4).contains(&held), "{held} bytes, and {bound}");
    }
}

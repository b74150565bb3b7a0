//! Takes connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorumlog::panics;
use quorumlog::seam::Acceptor;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{self, Budgets, Connection};
use super::pending_request::PendingRequest;
use super::places::Places;

/// Pause after a connection could not be taken, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address that a listener has, with the port that the system chose.
///
/// # Errors
/// Its transport gives none that RocketMQ's clients can be told.
pub(crate) fn addr_of(acceptor: &dyn Acceptor) -> io::Result<SocketAddr> {
    let addr = acceptor.local_addr();
    addr.parse().map_err(|_| {
        let detail = format!("clients need an IP address and a port, not {addr}");
        io::Error::new(io::ErrorKind::AddrNotAvailable, detail)
    })
}

/// What a listener serves.
pub(crate) trait Service: Send + Sync + 'static {
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
pub(crate) struct Bounds {
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) places: Arc<Places>,
    pub(crate) idle_timeout: Duration,
    /// The number of the next connection of this node.
    pub(crate) numbers: Arc<AtomicU64>,
}

/// Serves connections until told to stop. Then they end.
pub(crate) async fn listen(
    mut acceptor: Box<dyn Acceptor>,
    service: Arc<dyn Service>,
    bounds: Bounds,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        while connections.try_join_next().is_some() {}
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                bounds.places.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Some transports have no addresses; what was born there says so.
        let remote = remote.parse().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let number = bounds.numbers.fetch_add(1, Ordering::Relaxed);
        let (connection, queue) = Connection::new(number, remote, &bounds.budgets);
        let Some(place) = bounds.places.take(&connection) else {
            tracing::warn!(%remote, "too many connections, none of them idle; refusing one");
            continue;
        };
        let (service, idle_timeout) = (Arc::clone(&service), bounds.idle_timeout);
        connections.spawn(async move {
            let serving = connection::serve(stream, (connection, queue), service, idle_timeout);
            if let Err(panic) = panics::catching(serving).await {
                tracing::error!(%remote, panic, "a connection's task panicked; it ends");
            }
            drop(place);
        });
    }
}

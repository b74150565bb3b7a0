//! Takes connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorumlog::repeated::Repeated;
use quorumlog::seam::{Acceptor, Listener};
use tokio::sync::watch;

use super::connection::{self, Budgets, Connection};
use super::pending_request::PendingRequest;
use super::places::Places;

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
    acceptor: Box<dyn Acceptor>,
    service: Arc<dyn Service>,
    bounds: Bounds,
    mut stopping: watch::Receiver<bool>,
) {
    let mut stop = pin!(async {
        // An error means that the broker is gone, which is the same.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    });
    let mut listener = Listener::new(acceptor);
    let refused = Repeated::default();
    let make_room = || bounds.places.make_room();
    while let Some((stream, told)) = listener.accept(stop.as_mut(), make_room).await {
        // Some transports have no addresses; what was born there says so.
        let remote = told.parse().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let number = bounds.numbers.fetch_add(1, Ordering::Relaxed);
        let (connection, queue) = Connection::new(number, remote, &bounds.budgets);
        let Some(place) = bounds.places.take(&connection) else {
            if refused.is_due("") {
                tracing::warn!(
                    %remote,
                    "too many connections, none of them idle; refusing one; repetitions within a minute are not logged"
                );
            }
            continue;
        };
        let (service, idle_timeout) = (Arc::clone(&service), bounds.idle_timeout);
        listener.serve(told, async move {
            connection::serve(stream, (connection, queue), service, idle_timeout).await;
            drop(place);
        });
    }
}

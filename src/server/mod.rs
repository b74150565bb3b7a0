//! Serve clients over TCP (feature `server`).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::node::Node;
use crate::seam::{Acceptor, Transport};
use crate::wire::client_protocol::RECORD_OVERHEAD;
use crate::wire::{Queued, WireLimits, serve};

mod requests;
mod session;
mod subscriptions;

/// For a client's hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Control data of a frame, beside its payloads.
const HEAD_BYTES: usize = 1 << 20;

/// Bounds on what clients can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Clients connected at once.
    pub connections_max: u32,
    /// Bytes queued to one client; a client that does not read is disconnected above it.
    pub queue_bytes_max: usize,
    /// Bytes queued to all clients. At the limit, a client with anything queued gets no more records, read or
    /// subscribed, until it has taken some. One that takes all gets a 1024th of it at a time in any case.
    pub queued_bytes_max: usize,
    /// Bytes of large frames that come in from all clients and are not complete. At the limit others wait until there is
    /// room, and what comes in slowly ends.
    pub incoming_bytes_max: usize,
    /// Largest response to one read.
    pub read_bytes_max: usize,
    /// Subscriptions of all clients. Each is told of each commit, so they take time from the appends.
    pub subscriptions_max: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            queue_bytes_max: 16 << 20,
            queued_bytes_max: 128 << 20,
            incoming_bytes_max: 64 << 20,
            read_bytes_max: 4 << 20,
            subscriptions_max: 4096,
        }
    }
}

/// Listens for clients on `addr`; pass what it returns to [`run`]. Separate, so that the port is known before.
///
/// # Errors
/// The address cannot be used.
pub async fn listen(
    transport: &Arc<dyn Transport>,
    addr: &str,
) -> std::io::Result<Box<dyn Acceptor>> {
    transport.bind_for_clients(addr).await
}

/// Serves clients of `node` until `shutdown` resolves. Then it closes their connections: what is
/// queued to them is written first, for at most a second. Bad input of a client costs that client's
/// connection and nothing else.
pub async fn run(
    node: Node,
    acceptor: Box<dyn Acceptor>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send,
) {
    let limits = &node.config().limits;
    let bytes = usize::try_from(limits.batch_size_max.bytes()).unwrap_or(usize::MAX);
    let headers = RECORD_OVERHEAD.saturating_mul(limits.batch_records_max as usize);
    let limits = WireLimits {
        frame_bytes_max: bytes.saturating_add(headers).saturating_add(HEAD_BYTES),
        queue_bytes_max: config.queue_bytes_max,
        queued: Some(Queued::new(config.queued_bytes_max)),
        incoming: Some(Queued::new(config.incoming_bytes_max)),
        connections_max: config.connections_max as usize,
        handshake_timeout: HANDSHAKE_TIMEOUT,
    };
    let keeper = node.inner.clone();
    let service = Arc::new(session::ClientService::new(node, config));
    keeper.run_once("client listener", serve(acceptor, service, limits, shutdown)).await;
}

//! A way to one other node, for requests of a node's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorumlog::seam::Transport;
use tokio::sync::Mutex;

use super::link::Link;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Holds the last connection.
pub(crate) struct Way {
    transport: Arc<dyn Transport>,
    link: Mutex<Option<(SocketAddr, Arc<Link>)>>,
}

impl Way {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, link: Mutex::default() }
    }

    /// The connection to an address. None if nobody answers there.
    pub(crate) async fn to(&self, addr: SocketAddr) -> Option<Arc<Link>> {
        let mut held = self.link.lock().await;
        if let Some((to, link)) = held.as_ref()
            && *to == addr
            && !link.is_closed()
        {
            return Some(Arc::clone(link));
        }
        let named = addr.to_string();
        let connecting = Link::connect(&*self.transport, &named);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let link = Arc::new(connected.ok()?.ok()?);
        *held = Some((addr, Arc::clone(&link)));
        Some(link)
    }
}

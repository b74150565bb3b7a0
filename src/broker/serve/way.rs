//! A way to one other node, for requests of a node's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::broker::client::Link;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Holds the last connection.
#[derive(Default)]
pub(super) struct Way {
    link: Mutex<Option<(SocketAddr, Arc<Link>)>>,
}

impl Way {
    /// The connection to an address. None if nobody answers there.
    pub(super) async fn to(&self, addr: SocketAddr) -> Option<Arc<Link>> {
        let mut held = self.link.lock().await;
        if let Some((to, link)) = held.as_ref()
            && *to == addr
            && !link.is_closed()
        {
            return Some(Arc::clone(link));
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, Link::connect(addr)).await;
        let link = Arc::new(connected.ok()?.ok()?);
        *held = Some((addr, Arc::clone(&link)));
        Some(link)
    }
}

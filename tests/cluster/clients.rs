//! Clusters whose nodes serve clients too.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use quorumlog::client::{Client, ClientConfig, ClientLog};
use quorumlog::seam::{Acceptor, BoxFuture, Duplex, Transport};
use quorumlog::server::{self, ServerConfig};
use quorumlog::{LogName, NodeId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cluster::faulty_transport::Network;
use crate::cluster::{Cluster, LOG, Setup, eventually, name};

/// Added to a node's number, it is the number of its listener for clients in the network.
const LISTENERS: NodeId = 100;
/// The number of all clients in the network.
pub(crate) const CLIENTS: NodeId = 200;

/// Where a node listens for clients.
pub(crate) fn client_address(id: NodeId) -> String {
    Network::address(LISTENERS + id)
}

impl Setup {
    /// Like [`Setup::start`], and the nodes serve clients.
    pub(crate) async fn start_serving(self) -> Cluster {
        let setup =
            self.configure(|config| config.client_advertise = Some(client_address(config.node_id)));
        let cluster = setup.start().await;
        for id in cluster.ids() {
            cluster.serve(id).await;
        }
        cluster
    }
}

impl Cluster {
    /// Serves clients of a node, until the node is stopped or killed.
    pub(crate) async fn serve(&self, id: NodeId) {
        let transport = self.network.transport(LISTENERS + id);
        let (send, bound) = tokio::sync::oneshot::channel();
        let node = self.node(id);
        // The listener belongs to the runtime that it is made on.
        self.spawn_on(id, async move {
            let acceptor = server::listen(&transport, &client_address(id)).await;
            send.send(()).ok();
            let acceptor = acceptor.expect("a port is free");
            let never = std::future::pending();
            server::run(node, acceptor, ServerConfig::default(), never).await;
        });
        bound.await.expect("the task lives");
    }

    /// Opens a stopped node, and serves its clients.
    pub(crate) async fn start_serving(&self, id: NodeId) {
        self.start(id).await;
        self.serve(id).await;
    }

    /// A client that is told of these nodes.
    pub(crate) async fn client_of(&self, ids: &[NodeId]) -> Client {
        let config = ClientConfig::new(ids.iter().map(|id| client_address(*id)));
        let client = eventually("a client to connect", async || {
            let transport = self.network.transport(CLIENTS);
            Client::connect_over(transport, config.clone()).await.ok()
        });
        client.await
    }

    /// A client that is told of all nodes that run.
    pub(crate) async fn client(&self) -> Client {
        self.client_of(&self.ids()).await
    }

    /// The log that every cluster has, for a client.
    pub(crate) async fn client_log(&self) -> ClientLog {
        self.client().await.log(&orders())
    }
}

/// Name of the log that every cluster has.
pub(crate) fn orders() -> LogName {
    name(LOG)
}

/// The clients' transport, which counts what comes in.
#[derive(Debug, Clone)]
pub(crate) struct Counting {
    network: Network,
    received: Arc<AtomicU64>,
}

impl Counting {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self { network: cluster.network.clone(), received: Arc::default() }
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Transport for Counting {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let (dial, received) = (self.network.transport(CLIENTS).dial(addr), self.received.clone());
        Box::pin(async move {
            let inner = dial.await?;
            Ok(Box::new(CountedStream { inner, received }) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.network.transport(CLIENTS).bind(addr)
    }
}

struct CountedStream {
    inner: Box<dyn Duplex>,
    received: Arc<AtomicU64>,
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

//! TCP on loopback between numbered nodes, with links that can be cut and broken.
//!
//! Each node has a name that stays the same, `10.0.0.<id>:20911`, and a port that the system chooses again at
//! each start; the network knows which belongs to which. Faults act on the dialing end's streams, in
//! each direction by itself.

use std::collections::{HashMap, HashSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use quorumlog::NodeId;
use quorumlog::seam::{Acceptor, BoxFuture, Duplex, TcpTransport, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The links between all nodes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Links>>);

#[derive(Debug, Default)]
struct Links {
    /// Where each node really listens.
    ports: HashMap<NodeId, String>,
    /// From, to: nothing passes. What was sent waits, as behind a router that lost its route.
    cut: HashSet<(NodeId, NodeId)>,
    /// From, to: how many more bytes pass before the connection is reset.
    left: HashMap<(NodeId, NodeId), usize>,
    /// Counts the resets of each pair of nodes; a connection with an older count is gone.
    resets: HashMap<(NodeId, NodeId), u64>,
    /// Who is told of changes: dials, and each direction of the streams.
    waiting: HashMap<(u64, Way), Waker>,
    /// Numbers given to dials.
    dials: u64,
    bites: Bites,
}

/// How often faults of the network took effect.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bites {
    /// Writes and dials that a cut held up.
    pub(crate) held: u64,
    /// Reads and writes that failed since their connection had been reset.
    pub(crate) broken: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Dial,
    Out,
    In,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Network {
    /// The name of a node, which is what others dial.
    pub(crate) fn address(id: NodeId) -> String {
        format!("10.0.0.{id}:20911")
    }

    fn node(address: &str) -> io::Result<NodeId> {
        let id =
            address.strip_prefix("10.0.0.").and_then(|rest| rest.split(':').next()?.parse().ok());
        id.ok_or_else(|| io::Error::other(format!("{address} is not of this network")))
    }

    /// The transport of node `id`.
    pub(crate) fn transport(&self, id: NodeId) -> Arc<dyn Transport> {
        Arc::new(FaultyTransport { id, network: self.clone() })
    }

    /// Cuts one direction. Connections stay open, and nothing comes out of them.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.change(|links| {
            links.cut.insert((from, to));
        });
    }

    /// Cuts both directions between each node here and each node there.
    pub(crate) fn split(&self, here: &[NodeId], there: &[NodeId]) {
        for &a in here {
            for &b in there.iter().filter(|b| **b != a) {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// Mends the link between two nodes, in both directions.
    pub(crate) fn mend(&self, a: NodeId, b: NodeId) {
        self.change(|links| links.cut.retain(|&(from, to)| pair(from, to) != pair(a, b)));
    }

    /// Mends all links.
    pub(crate) fn heal(&self) {
        self.change(|links| {
            links.cut.clear();
            links.left.clear();
        });
    }

    /// Resets the connections between two nodes now.
    pub(crate) fn reset(&self, a: NodeId, b: NodeId) {
        self.change(|links| *links.resets.entry(pair(a, b)).or_default() += 1);
    }

    /// Resets the connections between two nodes once that many more bytes went from `from` to `to`, which
    /// is likely to be in the middle of a frame.
    pub(crate) fn reset_after(&self, from: NodeId, to: NodeId, bytes: usize) {
        self.change(|links| {
            links.left.insert((from, to), bytes);
        });
    }

    /// How often its faults took effect so far.
    pub(crate) fn bites(&self) -> Bites {
        self.links().bites
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().expect("no panic under this lock")
    }

    fn change(&self, change: impl FnOnce(&mut Links)) {
        let waiting = {
            let mut links = self.links();
            change(&mut links);
            std::mem::take(&mut links.waiting)
        };
        waiting.into_values().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct FaultyTransport {
    id: NodeId,
    network: Network,
}

impl Transport for FaultyTransport {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        // Clients and brokers have addresses of the machine.
        let Ok(to) = Network::node(addr) else { return TcpTransport.dial(addr) };
        let (network, from) = (self.network.clone(), self.id);
        Box::pin(async move {
            let dial = {
                let mut links = network.links();
                links.dials += 1;
                links.dials
            };
            // A dial needs answers, so it waits if either direction is cut.
            std::future::poll_fn(|cx| {
                let mut links = network.links();
                if links.cut.contains(&(from, to)) || links.cut.contains(&(to, from)) {
                    links.waiting.insert((dial, Way::Dial), cx.waker().clone());
                    links.bites.held += 1;
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            let (port, resets) = {
                let links = network.links();
                let resets = links.resets.get(&pair(from, to)).copied().unwrap_or(0);
                (links.ports.get(&to).cloned(), resets)
            };
            let port = port.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let inner = TcpTransport.dial(&port).await?;
            let stream = FaultyStream { inner, network, dial, from, to, resets };
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        let (network, name) = (self.network.clone(), addr.to_owned());
        Box::pin(async move {
            let id = Network::node(&name)?;
            let inner = TcpTransport.bind("127.0.0.1:0").await?;
            network.links().ports.insert(id, inner.local_addr());
            Ok(Box::new(Named { name, inner }) as Box<dyn Acceptor>)
        })
    }

    fn bind_for_clients(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        if Network::node(addr).is_ok() {
            self.bind(addr)
        } else {
            TcpTransport.bind_for_clients(addr)
        }
    }
}

/// A listener that goes by its node's name.
struct Named {
    name: String,
    inner: Box<dyn Acceptor>,
}

impl Acceptor for Named {
    fn local_addr(&self) -> String {
        self.name.clone()
    }

    fn accept(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = io::Result<(Box<dyn Duplex>, String)>> + Send + '_>> {
        self.inner.accept()
    }
}

/// The dialing end of a connection.
struct FaultyStream {
    inner: Box<dyn Duplex>,
    network: Network,
    dial: u64,
    from: NodeId,
    to: NodeId,
    /// Resets of the link when it was dialed.
    resets: u64,
}

impl FaultyStream {
    /// The ends that bytes go between in this direction.
    fn ends(&self, way: Way) -> (NodeId, NodeId) {
        if way == Way::In { (self.to, self.from) } else { (self.from, self.to) }
    }

    /// How many bytes may pass now.
    fn poll_pass(&self, way: Way, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let ends = self.ends(way);
        let mut links = self.network.links();
        let resets = links.resets.get(&pair(self.from, self.to)).copied().unwrap_or(0);
        if resets != self.resets {
            links.bites.broken += 1;
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
        // Registered even if bytes may pass, so that who waits for some hears of a later reset.
        links.waiting.insert((self.dial, way), cx.waker().clone());
        if links.cut.contains(&ends) {
            // Who waits to read may wait for nothing.
            links.bites.held += u64::from(way == Way::Out);
            return Poll::Pending;
        }
        Poll::Ready(Ok(links.left.get(&ends).copied().unwrap_or(usize::MAX).max(1)))
    }

    /// Counts what has passed, and resets the connections if that was the last of it.
    fn passed(&self, way: Way, bytes: usize) {
        let ends = self.ends(way);
        let mut links = self.network.links();
        let Some(left) = links.left.get_mut(&ends) else { return };
        *left = left.saturating_sub(bytes);
        if *left == 0 {
            links.left.remove(&ends);
            drop(links);
            self.network.reset(self.from, self.to);
        }
    }
}

impl Drop for FaultyStream {
    fn drop(&mut self) {
        let mut links = self.network.links();
        links.waiting.remove(&(self.dial, Way::In));
        links.waiting.remove(&(self.dial, Way::Out));
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let allowed = std::task::ready!(self.poll_pass(Way::In, cx))?.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(allowed));
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let bytes = part.filled().len();
        buf.advance(bytes);
        self.passed(Way::In, bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = std::task::ready!(self.poll_pass(Way::Out, cx))?.min(bytes.len());
        let written =
            std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, &bytes[..allowed]))?;
        self.passed(Way::Out, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

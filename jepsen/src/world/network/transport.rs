//! The library's transport over the simulated network.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use quorumlog::seam::{Acceptor, BoxFuture, Duplex, Transport};

use super::Network;
use super::connection::{ACCEPTOR, Connection, ConnectionId, DIALER, Phase};
use super::hosts::{HostId, Listener, parse};
use super::net::Net;
use super::stream::{EndStream, register};

type Accepted = io::Result<(Box<dyn Duplex>, String)>;

/// Connections of one process.
#[derive(Debug)]
pub(super) struct HostTransport {
    network: Network,
    host: HostId,
    life: u32,
}

impl HostTransport {
    pub(super) fn new(network: Network, host: HostId, life: u32) -> Self {
        Self { network, host, life }
    }
}

impl Transport for HostTransport {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let network = self.network.clone();
        let (host, life, addr) = (self.host, self.life, addr.to_owned());
        Box::pin(async move {
            let id = network.with(|net| {
                net.check_life(host, life)?;
                let (name, port) = parse(&addr).ok_or(ErrorKind::InvalidInput)?;
                let to = net.hosts.find(name).ok_or(ErrorKind::NotFound)?;
                Ok::<_, io::Error>(net.dial(host, to, port))
            })?;
            // Dropped, it takes the connection with it.
            let stream = EndStream::new(network.clone(), id, DIALER);
            poll_fn(|cx| network.with(|net| net.poll_open(id, cx))).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        let network = self.network.clone();
        let (host, life, addr) = (self.host, self.life, addr.to_owned());
        Box::pin(async move {
            let (name, port) = network.with(|net| {
                net.check_life(host, life)?;
                net.listen(host, &addr)
            })?;
            let addr = format!("{name}:{port}");
            Ok(Box::new(HostAcceptor { network, host, life, port, addr }) as Box<dyn Acceptor>)
        })
    }
}

#[derive(Debug)]
struct HostAcceptor {
    network: Network,
    host: HostId,
    life: u32,
    port: u16,
    addr: String,
}

impl Acceptor for HostAcceptor {
    fn local_addr(&self) -> String {
        self.addr.clone()
    }

    fn accept(&mut self) -> Pin<Box<dyn Future<Output = Accepted> + Send + '_>> {
        Box::pin(async move {
            let accepted = poll_fn(|cx| {
                self.network.with(|net| net.poll_accept(self.host, self.life, self.port, cx))
            });
            let (id, remote) = accepted.await?;
            let stream = EndStream::new(self.network.clone(), id, ACCEPTOR);
            Ok((Box::new(stream) as Box<dyn Duplex>, remote))
        })
    }
}

impl Drop for HostAcceptor {
    fn drop(&mut self) {
        self.network.with(|net| net.unlisten(self.host, self.life, self.port));
    }
}

impl Net {
    fn check_life(&self, host: HostId, life: u32) -> io::Result<()> {
        let lives = self.hosts.lives(host, life);
        if lives { Ok(()) } else { Err(io::Error::other("the process has ended")) }
    }

    fn poll_open(&mut self, id: ConnectionId, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        };
        let end = &mut connection.ends[DIALER];
        match (connection.phase, end.error) {
            (_, Some(kind)) | (Phase::Failed(kind), None) => Poll::Ready(Err(kind.into())),
            (Phase::Open, None) => Poll::Ready(Ok(())),
            (Phase::Asking { .. } | Phase::Agreed { .. }, None) => {
                let old = register(&mut end.writer, cx);
                self.wakes.old.extend(old);
                Poll::Pending
            }
        }
    }

    fn listen(&mut self, host: HostId, addr: &str) -> io::Result<(String, u16)> {
        let (name, port) = parse(addr).ok_or(ErrorKind::InvalidInput)?;
        let by_ip = self.hosts.ip(host) == name;
        let name = name.to_owned();
        let host = self.hosts.get_mut(host);
        if name != host.name && !by_ip {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let port = if port > 0 {
            port
        } else {
            host.next_port += 1;
            host.next_port
        };
        if host.listeners.contains_key(&port) {
            return Err(ErrorKind::AddrInUse.into());
        }
        host.listeners.insert(port, Listener { by_ip, ..Listener::default() });
        Ok((name, port))
    }

    fn poll_accept(
        &mut self,
        host: HostId,
        life: u32,
        port: u16,
        cx: &Context<'_>,
    ) -> Poll<io::Result<(ConnectionId, String)>> {
        self.check_life(host, life)?;
        let listener = self.hosts.get_mut(host).listeners.get_mut(&port);
        let listener = listener.ok_or(ErrorKind::NotConnected)?;
        while let Some(id) = listener.backlog.pop_front() {
            if let Some(Connection { hosts: [dialer, _], .. }) = self.connections.get(&id) {
                let ephemeral = 32_768 + id % 28_000;
                let name = match listener.by_ip {
                    true => self.hosts.ip(*dialer),
                    false => self.hosts.get(*dialer).name.clone(),
                };
                let remote = format!("{name}:{ephemeral}");
                return Poll::Ready(Ok((id, remote)));
            }
        }
        let old = register(&mut listener.acceptor, cx);
        self.wakes.old.extend(old);
        Poll::Pending
    }

    fn unlisten(&mut self, host: HostId, life: u32, port: u16) {
        if !self.hosts.lives(host, life) {
            return;
        }
        let Some(listener) = self.hosts.get_mut(host).listeners.remove(&port) else { return };
        self.wakes.old.extend(listener.acceptor);
        for id in listener.backlog {
            self.send_reset(id, ACCEPTOR);
            self.let_go(id, ACCEPTOR);
        }
    }
}

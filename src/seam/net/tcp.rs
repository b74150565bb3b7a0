//! Connections of the machine.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::net::{TcpListener, TcpStream};

use super::{Acceptor, BoxFuture, Duplex, Transport};

/// TCP, with `TCP_NODELAY`. Dead connections are found by pings of the protocol above.
#[derive(Debug, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let addr = addr.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        let addr = addr.to_owned();
        Box::pin(async move {
            let listener = TcpListener::bind(addr).await?;
            let local_addr = listener.local_addr()?.to_string();
            Ok(Box::new(TcpAcceptor { listener, local_addr }) as Box<dyn Acceptor>)
        })
    }
}

struct TcpAcceptor {
    listener: TcpListener,
    local_addr: String,
}

impl Acceptor for TcpAcceptor {
    fn local_addr(&self) -> String {
        self.local_addr.clone()
    }

    fn accept(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = io::Result<(Box<dyn Duplex>, String)>> + Send + '_>> {
        Box::pin(async move {
            let (stream, remote) = self.listener.accept().await?;
            // Fails only if the other end is gone already, which the first read will tell.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream) as Box<dyn Duplex>, remote.to_string()))
        })
    }
}

//! Connections in memory, for tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::{Acceptor, BoxFuture, Duplex, Transport};

/// Bytes on their way in one direction.
const BUFFER_BYTES: usize = 64 << 10;

type Listeners = Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<DuplexStream>>>>;

/// A separate network, in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryTransport {
    listeners: Listeners,
}

impl MemoryTransport {
    pub(crate) fn connect(&self, addr: &str) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(BUFFER_BYTES);
        let listeners = self.listeners.lock().expect("no panic holds it");
        let sent = listeners.get(addr).is_some_and(|listener| listener.send(theirs).is_ok());
        if sent { Ok(ours) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }
}

impl Transport for MemoryTransport {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let dialed = self.connect(addr);
        Box::pin(async move { Ok(Box::new(dialed?) as Box<dyn Duplex>) })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        let (sender, incoming) = mpsc::unbounded_channel();
        self.listeners.lock().expect("no panic holds it").insert(addr.to_owned(), sender);
        let acceptor = MemoryAcceptor { addr: addr.to_owned(), incoming };
        Box::pin(async move { Ok(Box::new(acceptor) as Box<dyn Acceptor>) })
    }
}

struct MemoryAcceptor {
    addr: String,
    incoming: mpsc::UnboundedReceiver<DuplexStream>,
}

impl Acceptor for MemoryAcceptor {
    fn local_addr(&self) -> String {
        self.addr.clone()
    }

    fn accept(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = io::Result<(Box<dyn Duplex>, String)>> + Send + '_>> {
        Box::pin(async move {
            let io = self.incoming.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            Ok((Box::new(io) as Box<dyn Duplex>, "memory".to_owned()))
        })
    }
}

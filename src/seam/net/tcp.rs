//! Connections of the machine.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use super::{Acceptor, BoxFuture, Duplex, Transport};
use crate::mutant::Mutant;

/// Bytes that the system holds for a client that does not take them; Linux doubles this. Left alone it would hold up to
/// 4 MiB for each, which no budget counts.
const SEND_BUFFER: u32 = 256 << 10;
/// Connections that wait to be taken, as those of the standard library's listeners.
const BACKLOG: u32 = 1024;

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
        Box::pin(async move { TcpAcceptor::new(TcpListener::bind(addr).await?) })
    }

    fn bind_for_clients(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        let addr = addr.to_owned();
        Box::pin(async move { TcpAcceptor::new(listen_with_small_buffers(&addr).await?) })
    }
}

/// Listens on the first address of a name that is free.
async fn listen_with_small_buffers(addr: &str) -> io::Result<TcpListener> {
    let mut failed = io::Error::from(io::ErrorKind::InvalidInput);
    for addr in lookup_host(addr).await? {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As the standard library does it; on Windows it would mean something else.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        if !Mutant::SendBufferUnbounded.is_active() {
            // Its connections inherit it.
            socket.set_send_buffer_size(SEND_BUFFER)?;
        }
        match socket.bind(addr).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

struct TcpAcceptor {
    listener: TcpListener,
    local_addr: String,
}

impl TcpAcceptor {
    #[expect(clippy::new_ret_no_self, reason = "all that is asked of it is in the trait")]
    fn new(listener: TcpListener) -> io::Result<Box<dyn Acceptor>> {
        let local_addr = listener.local_addr()?.to_string();
        Ok(Box::new(Self { listener, local_addr }))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_holds_little_for_a_client_that_takes_nothing() {
        let listener = listen_with_small_buffers("127.0.0.1:0").await.expect("a free port");
        let socket = TcpSocket::new_v4().expect("a socket");
        // What the client's side holds counts little.
        socket.set_recv_buffer_size(4 << 10).expect("it is taken");
        let addr = listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(socket.connect(addr), listener.accept());
        let (_client, (stream, _)) = (client.expect("it connects"), accepted.expect("it is there"));
        let (mut held, bytes) = (0, [0; 16 << 10]);
        stream.writable().await.expect("nothing is held yet");
        let full = loop {
            match stream.try_write(&bytes) {
                Ok(count) => held += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let bound = 2 * SEND_BUFFER as usize;
        assert!((bound / 8..=bound + bound / 4).contains(&held), "{held} bytes, and {bound}");
    }
}

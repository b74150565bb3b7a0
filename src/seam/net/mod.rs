//! Where connections come from: TCP in production, something else in a simulation.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

mod listener;
#[cfg(test)]
pub(crate) mod memory;
mod tcp;

pub use listener::Listener;
pub use tcp::TcpTransport;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A future without borrowed parts.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where connections come from: TCP in production, something else in a simulation.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Opens a connection to `host:port`.
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>>;
    /// Listens on `host:port`.
    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>>;
    /// The same for clients, which may be many and may read nothing: the system should hold little for each of them.
    fn bind_for_clients(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.bind(addr)
    }
}

/// A listening socket.
pub trait Acceptor: Send + 'static {
    /// Address that it listens on, with the port that the system chose.
    fn local_addr(&self) -> String;
    /// The next connection and the other end's address. Dropping the future loses no connection.
    #[expect(clippy::type_complexity, reason = "an alias would hide what to return")]
    fn accept(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = io::Result<(Box<dyn Duplex>, String)>> + Send + '_>>;
}

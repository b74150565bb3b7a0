//! Connections in memory that count, slow down or break what the dialing ends write.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::seam::net::memory::MemoryTransport;
use crate::seam::{Acceptor, BoxFuture, Duplex, Transport};

/// What becomes of the writes of one connection.
pub(super) trait Shape: Send + 'static {
    /// How many of these bytes may be written now; pending if none yet; an error breaks the connection.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>>;

    /// So many were written, at once.
    fn wrote(&mut self, bytes: usize);
}

/// A transport whose connections have a shape each.
#[derive(Clone)]
pub(super) struct ShapedTransport {
    inner: MemoryTransport,
    shape: Arc<dyn Fn() -> Box<dyn Shape> + Send + Sync>,
}

impl ShapedTransport {
    pub(super) fn new<S: Shape>(shape: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let shape = Arc::new(move || -> Box<dyn Shape> { Box::new(shape()) });
        Self { inner: MemoryTransport::default(), shape }
    }
}

impl fmt::Debug for ShapedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShapedTransport").finish_non_exhaustive()
    }
}

impl Transport for ShapedTransport {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        let (dialed, shape) = (self.inner.dial(addr), self.shape.clone());
        Box::pin(async move {
            let inner = dialed.await?;
            Ok(Box::new(ShapedStream { inner, shape: shape() }) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.inner.bind(addr)
    }
}

struct ShapedStream {
    inner: Box<dyn Duplex>,
    shape: Box<dyn Shape>,
}

impl AsyncRead for ShapedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for ShapedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, shape } = &mut *self;
        let all = bufs.iter().map(|buf| buf.len()).sum();
        let room = ready!(shape.poll_room(cx, all))?;
        let inner = Pin::new(inner);
        let written = if room >= all {
            ready!(inner.poll_write_vectored(cx, bufs))?
        } else {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            ready!(inner.poll_write(cx, &first[..first.len().min(room)]))?
        };
        shape.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

//! An end of a connection as a process holds it.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{ConnectionId, End, Side, What};
use super::net::Net;
use super::{Mode, Network};

/// Writes smaller than this are not split.
const SPLIT_BYTES_MIN: usize = 2;

/// A byte stream. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct EndStream {
    network: Network,
    id: ConnectionId,
    side: Side,
}

impl EndStream {
    pub(super) fn new(network: Network, id: ConnectionId, side: Side) -> Self {
        Self { network, id, side }
    }
}

impl Drop for EndStream {
    fn drop(&mut self) {
        self.network.with(|net| net.let_go(self.id, self.side));
    }
}

impl AsyncRead for EndStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.network.with(|net| net.poll_read(self.id, self.side, cx, buf))
    }
}

impl AsyncWrite for EndStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.network.with(|net| net.poll_write(self.id, self.side, cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.with(|net| net.shut(self.id, self.side));
        Poll::Ready(Ok(()))
    }
}

impl Net {
    /// The end, if its process is still the one that made it.
    fn end(&mut self, id: ConnectionId, side: Side) -> io::Result<&mut End> {
        let connection = self.connections.get_mut(&id);
        let end = connection.map(|connection| &mut connection.ends[side]).filter(|end| end.held);
        let end = end.ok_or(ErrorKind::NotConnected)?;
        match end.error {
            Some(kind) => Err(kind.into()),
            None => Ok(end),
        }
    }

    fn poll_read(
        &mut self,
        id: ConnectionId,
        side: Side,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.end(id, side)?;
        let mut taken = 0;
        while let Some(piece) = end.inbox.pieces.front_mut() {
            let count = piece.len().min(buf.remaining());
            if count == 0 {
                break;
            }
            buf.put_slice(&piece[..count]);
            piece.advance(count);
            taken += count;
            if piece.is_empty() {
                end.inbox.pieces.pop_front();
            }
        }
        if taken > 0 {
            self.acknowledge(id, side, taken);
        } else if buf.remaining() > 0 && !end.inbox.ended {
            let old = register(&mut end.reader, cx);
            self.wakes.old.extend(old);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// `side` has taken bytes: the other end may send as many again, once it can be told.
    fn acknowledge(&mut self, id: ConnectionId, side: Side, bytes: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let back_is_cut = self.links.is_cut(connection.from(side), connection.to(side));
        let sender = &mut connection.ends[1 - side];
        if back_is_cut {
            sender.outbox.owed += bytes;
        } else {
            sender.outbox.unacked -= bytes;
            self.wakes.due.extend(sender.writer.take());
        }
    }

    fn poll_write(
        &mut self,
        id: ConnectionId,
        side: Side,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (window, bus) = (self.config.window, self.config.mode == Mode::Bus);
        let split = self.config.split;
        let end = self.end(id, side)?;
        if end.outbox.ended {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = window.saturating_sub(end.outbox.unacked);
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        if room == 0 && wanted > 0 {
            let old = register(&mut end.writer, cx);
            self.wakes.old.extend(old);
            return Poll::Pending;
        }
        let count = wanted.min(room);
        let bytes = first_bytes(bufs, count);
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if bus {
            end.outbox.assembler.get_or_insert_default().push(&bytes);
            while let Some(frame) = self.next_frame(id, side) {
                self.dispatch(id, side, frame);
            }
        } else {
            end.outbox.unacked += count;
            self.send_bytes(id, side, bytes, split);
        }
        Poll::Ready(Ok(count))
    }

    fn next_frame(&mut self, id: ConnectionId, side: Side) -> Option<Bytes> {
        let connection = self.connections.get_mut(&id)?;
        connection.ends[side].outbox.assembler.as_mut()?.next()
    }

    fn send_bytes(&mut self, id: ConnectionId, side: Side, mut bytes: Bytes, split: f64) {
        if bytes.len() >= SPLIT_BYTES_MIN && self.random.chance(split) {
            let at = 1 + self.random.below(bytes.len() as u64 - 1) as usize;
            self.send(id, side, What::Data(bytes.split_to(at)));
        }
        self.send(id, side, What::Data(bytes));
    }

    fn shut(&mut self, id: ConnectionId, side: Side) {
        let Ok(end) = self.end(id, side) else { return };
        if !std::mem::replace(&mut end.outbox.ended, true) {
            self.send(id, side, What::End);
        }
    }
}

/// Keeps the task's waker, and gives back one that is not needed any more.
pub(super) fn register(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    if place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        return None;
    }
    place.replace(cx.waker().clone())
}

fn first_bytes(bufs: &[IoSlice<'_>], count: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(count);
    for buf in bufs {
        let missing = count - bytes.len();
        bytes.extend_from_slice(&buf[..buf.len().min(missing)]);
    }
    bytes.freeze()
}

//! The sending half of a connection: a queue bounded in bytes, and the writer that drains it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::patience::Patience;
use super::{OutFrame, Protocol};
use crate::format::frame::{FrameHeader, HEAD_BYTES_MAX};
use crate::record::LogId;

mod batch;
mod queued;
mod room;

use batch::{Batch, Position, SLICES};
pub(crate) use queued::{Claim, Claimant, Queued};
#[cfg(feature = "server")]
pub(crate) use room::Reservation;

/// A connection that takes no byte for this long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends frames on one connection; cheap to clone. Frames of one handle keep their order.
#[derive(Clone)]
pub(crate) struct Outbound {
    queue: Arc<Queue>,
}

struct Queue {
    protocol: Protocol,
    queue_bytes_max: usize,
    /// What the other end takes.
    frame_bytes_max: usize,
    state: Mutex<State>,
    writer: Notify,
    /// Held by the one that waits for room next: were all woken each time, many would cost much.
    turn: tokio::sync::Mutex<()>,
    room: Notify,
    closed: Notify,
}

impl Queue {
    /// True if so much more fits in beside what is held. Alone, a frame of any size does.
    fn fits(&self, held: usize, bytes: usize) -> bool {
        held == 0 || held + bytes <= self.queue_bytes_max
    }
}

struct State {
    batch: Batch,
    /// Queued, handed to the writer and not yet written, or reserved.
    bytes: usize,
    /// Bytes that were written since it began.
    taken: usize,
    /// Of several connections.
    queued: Option<Arc<Queued>>,
    writer_waits: bool,
    phase: Phase,
}

impl State {
    /// Sets how many bytes are queued.
    fn set_bytes(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let Some(queued) = &self.queued else { return };
        if bytes >= before {
            queued.bytes.fetch_add(bytes - before, Ordering::AcqRel);
        } else {
            queued.give_back(before - bytes);
        }
    }

    /// So many bytes were written.
    fn written(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        self.set_bytes(self.bytes - bytes);
    }

    /// The bytes queued to a closed connection no longer count.
    fn uncount(&mut self) {
        if let Some(queued) = self.queued.take() {
            queued.give_back(self.bytes);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.uncount();
    }
}

#[derive(Clone)]
enum Phase {
    Open,
    /// Takes no more, and closes when what is queued is written.
    Finishing,
    Closed(Arc<str>),
}

/// Why a frame was not queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendError {
    /// No room: so many bytes wait.
    Full {
        queued: usize,
    },
    /// The other end would not take a frame of this size.
    TooLarge {
        size: usize,
        limit: usize,
    },
    Closed,
}

impl Outbound {
    pub(crate) fn new(protocol: Protocol, queue_bytes_max: usize, frame_bytes_max: usize) -> Self {
        let state = State {
            batch: Batch::default(),
            bytes: 0,
            taken: 0,
            queued: None,
            writer_waits: false,
            phase: Phase::Open,
        };
        Self {
            queue: Arc::new(Queue {
                protocol,
                queue_bytes_max,
                frame_bytes_max,
                state: Mutex::new(state),
                writer: Notify::new(),
                turn: tokio::sync::Mutex::default(),
                room: Notify::new(),
                closed: Notify::new(),
            }),
        }
    }

    /// The same, counted among others.
    pub(crate) fn counted(self, queued: Option<&Arc<Queued>>) -> Self {
        self.state().queued = queued.cloned();
        self
    }

    /// Queues a frame. False if the connection is gone, or its queue is over its byte limit (which
    /// closes it).
    pub(crate) fn send(&self, frame: OutFrame) -> bool {
        self.or_close(self.try_send(frame))
    }

    /// `send` for a frame without a body; allocates nothing.
    pub(crate) fn send_head(&self, kind: u8, log: LogId, correlation: u64, head: &[u8]) -> bool {
        let sized = self.header(kind, log, correlation, head, 0);
        self.or_close(sized.and_then(|header| {
            self.queue(header.frame_bytes(), None, |batch| {
                batch.copy(&header.encode(head, &[]));
                batch.copy(head);
            })
        }))
    }

    /// Queues a frame, or says why not and leaves the connection as it is.
    pub(crate) fn try_send(&self, frame: OutFrame) -> Result<(), SendError> {
        self.try_send_reserved(frame, None)
    }

    /// What is reserved becomes the frame's room, whatever its size.
    fn try_send_reserved(&self, frame: OutFrame, reserved: Option<usize>) -> Result<(), SendError> {
        let body_bytes = frame.body.iter().map(Bytes::len).sum();
        let OutFrame { kind, log, correlation, head, body } = frame;
        let header = self.header(kind, log, correlation, &head, body_bytes)?;
        let encoded = header.encode(&head, &body);
        self.queue(header.frame_bytes(), reserved, |batch| {
            batch.copy(&encoded);
            batch.push(head);
            for chunk in body {
                batch.push(chunk);
            }
        })
    }

    fn header(
        &self,
        kind: u8,
        log: LogId,
        correlation: u64,
        head: &[u8],
        body_bytes: usize,
    ) -> Result<FrameHeader, SendError> {
        let size = head.len() + body_bytes;
        let limit = self.queue.frame_bytes_max;
        let sizes = (u32::try_from(head.len()), u32::try_from(body_bytes));
        let (Ok(head_bytes), Ok(body_bytes)) = sizes else {
            return Err(SendError::TooLarge { size, limit });
        };
        if size > limit || head.len() > HEAD_BYTES_MAX {
            return Err(SendError::TooLarge { size, limit });
        }
        let protocol = self.queue.protocol;
        Ok(FrameHeader { protocol, kind, log: log.0, correlation, head_bytes, body_bytes })
    }

    fn queue(
        &self,
        size: usize,
        reserved: Option<usize>,
        push: impl FnOnce(&mut Batch),
    ) -> Result<(), SendError> {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Open) {
            return Err(SendError::Closed);
        }
        let others = state.bytes - reserved.unwrap_or(0);
        let takes_unasked = || {
            let all = state.queued.as_ref();
            self.queue.fits(others, size) && all.is_none_or(|all| all.takes_unasked(others, size))
        };
        if reserved.is_none() && !takes_unasked() {
            return Err(SendError::Full { queued: others });
        }
        push(&mut state.batch);
        state.set_bytes(others + size);
        // One wake-up per batch: who comes after finds the writer awake.
        if std::mem::take(&mut state.writer_waits) {
            drop(state);
            self.queue.writer.notify_one();
        }
        Ok(())
    }

    fn or_close(&self, sent: Result<(), SendError>) -> bool {
        match sent {
            Ok(()) => return true,
            Err(SendError::Closed) => {}
            Err(SendError::Full { queued }) => {
                self.close(&format!("the other end is too slow: {queued} bytes wait"));
            }
            Err(SendError::TooLarge { size, limit }) => self
                .close(&format!("a frame of {size} bytes is due, and the other end takes {limit}")),
        }
        false
    }

    /// True once the connection takes no more frames.
    pub(crate) fn is_closed(&self) -> bool {
        !matches!(self.state().phase, Phase::Open)
    }

    /// Ends the connection now; what is queued is lost. The first reason stays.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Closed(_)) {
            state.phase = Phase::Closed(Arc::from(reason));
            state.batch = Batch::default();
            state.uncount();
        }
        drop(state);
        self.wake_all();
    }

    /// Queues a last frame that says why, and takes no more.
    pub(crate) fn finish(&self, kind: u8, reason: &str) {
        // If there is no room for the reason, the end goes without.
        let _ = self.try_send(OutFrame {
            kind,
            head: Bytes::copy_from_slice(reason.as_bytes()),
            ..OutFrame::default()
        });
        let mut state = self.state();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Finishing;
        }
        drop(state);
        self.wake_all();
    }

    /// Resolves with the reason when `close` was called.
    pub(crate) async fn closed(&self) -> Arc<str> {
        loop {
            let mut closed = pin!(self.queue.closed.notified());
            closed.as_mut().enable();
            if let Phase::Closed(reason) = &self.state().phase {
                return Arc::clone(reason);
            }
            closed.await;
        }
    }

    fn wake_all(&self) {
        self.queue.writer.notify_one();
        self.queue.room.notify_waiters();
        self.queue.closed.notify_waiters();
    }

    /// Writes what is queued until the connection finishes (Ok) or breaks.
    pub(crate) async fn write_to(&self, mut io: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut batch = Batch::default();
        let mut patience = Patience::new(STALL_TIMEOUT);
        while self.take(&mut batch).await {
            self.write(&mut io, &batch, &mut patience).await?;
            io.flush().await?;
            batch.clear();
        }
        io.shutdown().await
    }

    async fn write(
        &self,
        io: &mut (impl AsyncWrite + Unpin),
        batch: &Batch,
        patience: &mut Patience,
    ) -> io::Result<()> {
        let mut at = Position::default();
        let (queued, begun) = (self.state().queued.clone(), Instant::now());
        let taken = AtomicUsize::new(0);
        let mut pressed = pin!(async {
            match queued {
                Some(queued) => {
                    // Its share is for nobody else.
                    let gives = || self.state().bytes > queued.share();
                    queued.pressed(begun, || taken.load(Ordering::Relaxed), gives).await;
                }
                None => std::future::pending().await,
            }
        });
        while at.piece < batch.pieces.len() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = batch.slices(at, &mut slices);
            let written = tokio::select! {
                biased;
                written = patience.limit(io.write_vectored(&slices[..count])) => written?,
                // It takes what is queued more slowly than the others can wait for.
                () = &mut pressed => return Err(io::ErrorKind::TimedOut.into()),
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            patience.reset();
            taken.fetch_add(written, Ordering::Relaxed);
            batch.advance(&mut at, written);
            self.state().written(written);
            self.queue.room.notify_waiters();
        }
        Ok(())
    }

    /// Swaps the queued frames into `batch`, which is empty; waits for some. False at the end.
    async fn take(&self, batch: &mut Batch) -> bool {
        loop {
            {
                let mut state = self.state();
                if matches!(state.phase, Phase::Closed(_)) {
                    return false;
                }
                if !state.batch.pieces.is_empty() {
                    std::mem::swap(&mut state.batch, batch);
                    return true;
                }
                if matches!(state.phase, Phase::Finishing) {
                    return false;
                }
                state.writer_waits = true;
            }
            self.queue.writer.notified().await;
            after_others().await;
        }
    }

    fn release(&self, bytes: usize) {
        {
            let mut state = self.state();
            let left = state.bytes - bytes;
            state.set_bytes(left);
        }
        self.queue.room.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the tasks run that are ready now. What they send goes out with what is queued.
pub(super) async fn after_others() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        // A task that wakes itself is put behind the others.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Writes one frame, past any queue.
pub(crate) async fn write_one(
    io: &mut (impl AsyncWrite + Unpin),
    protocol: Protocol,
    frame: OutFrame,
) -> io::Result<()> {
    let out = Outbound::new(protocol, usize::MAX, usize::MAX);
    out.try_send(frame).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let batch = std::mem::take(&mut out.state().batch);
    out.write(io, &batch, &mut Patience::new(STALL_TIMEOUT)).await?;
    io.flush().await
}

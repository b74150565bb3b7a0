//! Frames on a connection: a length, which is checked before it is believed, and that many bytes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::command::Command;

/// Largest frame without its length word, as in RocketMQ's own decoder.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;
/// How far the buffer grows ahead of what has come.
const READ_STEP: usize = 64 << 10;
/// Room that it does not grow for: frames that are still in use keep its first part, and every growth is a new buffer.
const ROOM_MIN: usize = 8 << 10;
/// Chunks that are written in one go.
const CHUNKS_MAX: usize = 256;
/// Slices that one vectored write takes.
const SLICES_MAX: usize = 64;
/// Chunks up to this size, which headers are, are copied next to each other rather than written each as a slice.
const COPIED_BYTES_MAX: usize = 768;
/// Bytes that are copied next to each other before they are a slice.
const COPIED_ROOM: usize = 16 << 10;

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The length word.
    #[error("a frame of {0} bytes, and the limit is {FRAME_BYTES_MAX}")]
    Length(usize),
    /// The header's length or encoding.
    #[error("a header of {length} bytes in encoding {encoding}, in a frame of {frame}")]
    Mark {
        /// As the frame says.
        length: usize,
        /// As the frame says.
        encoding: u32,
        /// What there is.
        frame: usize,
    },
    /// The header. The connection can go on, since the frame's lengths are right.
    #[error("a header that cannot be read: {problem}")]
    Header {
        /// What is wrong with it.
        problem: String,
        /// What could be read of the request: enough to answer it.
        request: Box<Command>,
    },
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The next frame without its length word; none at the end of the stream between two frames.
///
/// # Errors
/// The connection broke, ended within a frame, or the length is over the limit: then nothing is allocated for it.
pub(crate) async fn read_frame(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Bytes>> {
    while buffer.len() < 4 {
        if fill(from, buffer, READ_STEP).await? == 0 {
            let clean = buffer.is_empty();
            return if clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    let length = (&buffer[..4]).get_u32() as usize;
    if !(4..=FRAME_BYTES_MAX).contains(&length) {
        return Err(FrameError::Length(length).into());
    }
    while buffer.len() < 4 + length {
        // Never far ahead of what has come: a peer that only claims a large frame costs little.
        let step = (4 + length - buffer.len()).min(READ_STEP.max(buffer.len()));
        if fill(from, buffer, step).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

async fn fill(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    step: usize,
) -> io::Result<usize> {
    if buffer.capacity() - buffer.len() < step.min(ROOM_MIN) {
        buffer.reserve(step);
    }
    from.read_buf(buffer).await
}

/// Writes chunks as they are, many in one call.
///
/// # Errors
/// The connection broke.
pub(crate) async fn write_frames(
    to: &mut (impl AsyncWrite + Unpin),
    chunks: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    while !chunks.is_empty() {
        let slices: Vec<_> =
            chunks.iter().take(SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
        let mut written = to.write_vectored(&slices).await?;
        drop(slices);
        if written == 0 && chunks.iter().any(|chunk| !chunk.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = chunks.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            chunks.pop_front();
        }
    }
    to.flush().await
}

/// Chunks that are written in one go, the small ones joined.
#[derive(Default)]
struct Batch {
    chunks: VecDeque<Bytes>,
    /// The last ones, which are small.
    joined: BytesMut,
}

impl Batch {
    fn push(&mut self, chunk: Bytes) {
        if chunk.len() > COPIED_BYTES_MAX {
            self.join();
            self.chunks.push_back(chunk);
            return;
        }
        if self.joined.len() + chunk.len() > COPIED_ROOM {
            self.join();
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn join(&mut self) {
        if !self.joined.is_empty() {
            // A connection with nothing to write keeps no memory for it.
            self.chunks.push_back(std::mem::take(&mut self.joined).freeze());
        }
    }
}

/// Writes what is queued, as much as there is in one go, until the queue closes or the connection breaks.
pub(crate) async fn write_queued(
    mut to: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Vec<Bytes>>,
) {
    let mut batch = Batch::default();
    while let Some(first) = queue.recv().await {
        first.into_iter().for_each(|chunk| batch.push(chunk));
        // Tasks that are ready run first: what they send goes along.
        tokio::task::yield_now().await;
        while batch.chunks.len() < CHUNKS_MAX {
            let Ok(more) = queue.try_recv() else { break };
            more.into_iter().for_each(|chunk| batch.push(chunk));
        }
        batch.join();
        if let Err(error) = write_frames(&mut to, &mut batch.chunks).await {
            tracing::debug!(%error, "a connection breaks");
            return;
        }
    }
}

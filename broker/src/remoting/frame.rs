//! Frames on a connection: a length, which is checked before it is believed, and that many bytes.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::command::Command;

/// Largest frame without its length word, as in RocketMQ's own decoder.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;
/// How far the buffer grows ahead of what has come.
const READ_STEP: usize = 64 << 10;
/// Room that it does not grow for: frames that are still in use keep its first part, and every growth is a new buffer.
const ROOM_MIN: usize = 8 << 10;
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

/// The next frame of a server without its length word; none at the end of the stream between two frames.
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

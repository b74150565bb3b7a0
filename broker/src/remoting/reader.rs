//! Frames from a client. What they take is counted for as long as anybody holds a part of them, and a connection that brings
//! nothing keeps little.

use std::io;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::budget::{Room, Share};
use super::frame::{FRAME_BYTES_MAX, FrameError};
use super::patience::{Activity, Patience, TICK};
use crate::mutant::Mutant;

/// What one read brings. Frames that fit are copied out together; a larger one gets memory that is its own.
const SCRATCH_BYTES: usize = 16 << 10;
/// So much of a large frame has to come before it is waited until there is room for the rest. Memory grows no further
/// ahead of what has come than this, or than what has come.
const STEP: usize = 64 << 10;

/// Reads frames. Cancel safe.
pub(crate) struct FrameReader<R> {
    io: R,
    share: Arc<Share>,
    activity: Arc<Activity>,
    /// The begin of the next frames; nobody else holds it, so that it is used again.
    scratch: Vec<u8>,
    /// Frames with their length words, which are right.
    ready: Bytes,
    large: Option<Large>,
    /// Of a frame of which a part has come.
    patience: Option<Patience>,
}

/// A frame that does not fit the scratch.
struct Large {
    bytes: Vec<u8>,
    /// With the length word.
    total: usize,
    room: Room,
    /// True once there is room for all of it: frames that wait for room hold little, so others can be finished.
    whole: bool,
}

/// Bytes that give their room back once nobody holds them.
struct Counted {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The size of the frame at the front, with its length word; none if that has not come yet.
fn size_of(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(mut word) = bytes.get(..4) else { return Ok(None) };
    let length = word.get_u32() as usize;
    if (4..=FRAME_BYTES_MAX).contains(&length) {
        Ok(Some(4 + length))
    } else {
        Err(FrameError::Length(length))
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Takes from `share` what frames hold.
    pub(crate) fn new(io: R, share: Arc<Share>, activity: Arc<Activity>) -> Self {
        let (scratch, ready) = (Vec::new(), Bytes::new());
        Self { io, share, activity, scratch, ready, large: None, patience: None }
    }

    /// The next frame without its length word; none at the end of the stream between two frames.
    ///
    /// # Errors
    /// The connection broke, ended within a frame, took too long for one, or the length is over the limit: then nothing
    /// is allocated for it.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(size) = size_of(&self.ready)? {
                let mut frame = self.ready.split_to(size);
                frame.advance(4);
                return Ok(Some(frame));
            }
            if self.take_whole()? {
                continue;
            }
            let read = if self.large.is_some() {
                self.read_large().await?
            } else {
                self.read_scratch().await?
            };
            if read == 0 {
                let clean = self.scratch.is_empty() && self.large.is_none();
                return if clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            self.activity.note();
        }
    }

    /// Moves the whole frames that have come to where they are given out from; true if there are any.
    fn take_whole(&mut self) -> io::Result<bool> {
        if let Some(large) = self.large.take_if(|large| large.bytes.len() == large.total) {
            self.patience = None;
            self.ready = Bytes::from_owner(Counted { bytes: large.bytes, _room: large.room });
            return Ok(true);
        }
        if self.large.is_some() {
            return Ok(false);
        }
        let mut end = 0;
        while let Some(size) = match size_of(&self.scratch[end..]) {
            // Those in front of it are answered first.
            Err(_) if end > 0 => None,
            size => size?,
        } {
            if self.scratch.len() < end + size {
                if end == 0 && size > SCRATCH_BYTES {
                    let room = Room::taken(&self.share, size.min(STEP));
                    let bytes = std::mem::take(&mut self.scratch);
                    self.large = Some(Large { bytes, total: size, room, whole: size <= STEP });
                }
                break;
            }
            end += size;
        }
        if end > 0 {
            let bytes = self.scratch[..end].to_vec();
            self.scratch.drain(..end);
            let room = Room::taken(&self.share, end);
            self.ready = Bytes::from_owner(Counted { bytes, _room: room });
            self.patience = None;
        }
        if self.patience.is_none() && (self.large.is_some() || !self.scratch.is_empty()) {
            self.patience = Some(Patience::begin());
        }
        Ok(end > 0)
    }

    async fn read_scratch(&mut self) -> io::Result<usize> {
        if self.scratch.capacity() == 0 {
            self.scratch.reserve_exact(SCRATCH_BYTES);
        }
        let left = match size_of(&self.scratch)? {
            _ if self.share.has_room(0) || Mutant::BegunFrameBringsOthers.is_active() => {
                SCRATCH_BYTES - self.scratch.len()
            }
            // The frame that has begun, or what says how long it is, and nothing behind it.
            size => size.unwrap_or(4) - self.scratch.len(),
        };
        // It holds no more than others do.
        let is_over = Patience::is_over;
        let mut to = (&mut self.scratch).limit(left);
        watched(self.io.read_buf(&mut to), self.patience, is_over).await
    }

    async fn read_large(&mut self) -> io::Result<usize> {
        let Some(large) = &mut self.large else { return Ok(0) };
        let got = large.bytes.len();
        if got >= STEP && !large.whole {
            large.room.grow(large.total - STEP).await;
            large.whole = true;
            self.patience = Some(Patience::begin());
        }
        if got == large.bytes.capacity() {
            large.bytes.reserve_exact((large.total - got).min(STEP.max(got)));
        }
        let share = &self.share;
        let is_over = |patience: Patience| {
            patience.is_over() || share.budget().is_used_up() && patience.is_slow(got)
        };
        let left = large.total.min(large.bytes.capacity()) - got;
        let mut to = (&mut large.bytes).limit(left);
        watched(self.io.read_buf(&mut to), self.patience, is_over).await
    }

    /// True if a whole frame has come. It has its room, and others wait for that.
    pub(crate) fn has_frame(&self) -> bool {
        !self.ready.is_empty() && !Mutant::WholeFramesWait.is_active()
    }

    /// True if a part of a frame has come, and nothing before it.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.ready.is_empty() && (self.large.is_some() || !self.scratch.is_empty())
    }
}

/// Waits for `what`, but no longer than patience lasts.
async fn watched<T>(
    what: impl Future<Output = io::Result<T>>,
    patience: Option<Patience>,
    is_over: impl Fn(Patience) -> bool,
) -> io::Result<T> {
    let Some(patience) = patience else { return what.await };
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            () = tokio::time::sleep(TICK) => {}
        }
        if is_over(patience) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

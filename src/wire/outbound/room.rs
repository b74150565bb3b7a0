//! Room in the queues of connections, and waiting for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::{Outbound, Phase};
use crate::wire::OutFrame;

/// Bytes that are queued to several connections, and their limit. Callers of `reserve` wait for room; a connection with
/// nothing queued always has some.
#[derive(Debug)]
pub(crate) struct Queued {
    limit: usize,
    pub(super) bytes: AtomicUsize,
    pub(super) freed: Notify,
}

impl Queued {
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "servers limit their clients"))]
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, bytes: AtomicUsize::new(0), freed: Notify::new() })
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.bytes.load(Ordering::Acquire).saturating_add(bytes) <= self.limit
    }
}

impl Outbound {
    /// Waits until a frame of `bytes` has room in the queue, and keeps that room. None if the
    /// connection is gone. Dropping the future gives up the place.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "peers do not wait"))]
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<Reservation> {
        loop {
            let mut room = pin!(self.queue.room.notified());
            room.as_mut().enable();
            let queued = self.state().queued.clone();
            let mut freed = pin!(queued.as_ref().map(|queued| queued.freed.notified()));
            if let Some(freed) = freed.as_mut().as_pin_mut() {
                freed.enable();
            }
            {
                let mut state = self.state();
                if !matches!(state.phase, Phase::Open) {
                    return None;
                }
                let all_have_room = queued.as_ref().is_none_or(|queued| queued.has_room(bytes));
                let fits = state.bytes + bytes <= self.queue.queue_bytes_max && all_have_room;
                if state.bytes == 0 || fits {
                    let taken = state.bytes + bytes;
                    state.set_bytes(taken);
                    return Some(Reservation { out: self.clone(), bytes });
                }
            }
            let freed = async {
                match freed.as_pin_mut() {
                    Some(freed) => freed.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = room => {}
                () = freed => {}
            }
        }
    }
}

/// Room in a queue, for one frame. Dropping it gives the room back.
pub(crate) struct Reservation {
    out: Outbound,
    bytes: usize,
}

#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "peers do not wait"))]
impl Reservation {
    /// Queues the frame. False if the connection is gone, or the frame is larger than the other end
    /// takes (which closes it).
    pub(crate) fn send(mut self, frame: OutFrame) -> bool {
        let reserved = std::mem::take(&mut self.bytes);
        let sent = self.out.try_send_reserved(frame, Some(reserved));
        if sent.is_err() {
            self.bytes = reserved;
        }
        self.out.or_close(sent)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.out.release(self.bytes);
        }
    }
}

//! Room in the queues of connections, and waiting for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Outbound, Phase};
use crate::mutant::Mutant;
use crate::wire::OutFrame;

/// How long a connection may take to be rid of what it holds while others wait for room.
const PRESSED_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether others wait, after that.
const PRESSED_INTERVAL: Duration = Duration::from_millis(500);
/// While the limit is reached, a connection whose queue holds more than this gets nothing unasked.
const LITTLE_BYTES: usize = 128 << 10;

/// Bytes that several connections hold, and their limit: what is queued to them, or the frames that come in on them. One
/// that holds nothing may have some beyond the limit, up to twice of it: those that take their answers are not stopped
/// by those that do not.
#[derive(Debug)]
pub(crate) struct Queued {
    limit: usize,
    pub(super) bytes: AtomicUsize,
    pub(super) freed: Notify,
    waiting: AtomicUsize,
}

impl Queued {
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "servers limit their clients"))]
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let (bytes, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limit, bytes, freed: Notify::new(), waiting })
    }

    /// True if a connection that holds `held` bytes may hold more.
    fn has_room(&self, held: usize, bytes: usize) -> bool {
        let all = self.bytes.load(Ordering::Acquire);
        if held > 0 {
            return all.saturating_add(bytes) <= self.limit;
        }
        let most = if Mutant::QueuedUnbounded.is_active() { usize::MAX } else { 2 * self.limit };
        all == 0 || all.saturating_add(bytes) <= most
    }

    /// True if frames that nobody waits for room for may take so many bytes of a connection.
    pub(super) fn takes_unasked(&self, held: usize, bytes: usize) -> bool {
        held + bytes <= LITTLE_BYTES
            || self.bytes.load(Ordering::Acquire).saturating_add(bytes) <= self.limit
    }

    fn wait(&self) -> Waits<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waits(self)
    }

    /// Resolves once a connection that has held what it holds since then has done so for long enough, and others wait for room.
    pub(crate) async fn pressed(&self, since: Instant) {
        sleep_until(since + PRESSED_MAX).await;
        while self.waiting.load(Ordering::Acquire) == 0 {
            sleep(PRESSED_INTERVAL).await;
        }
    }

    /// Takes room, as soon as there is some, for a connection that holds `held` bytes. Cancel safe.
    pub(crate) async fn claim(self: &Arc<Self>, held: usize, bytes: usize) -> Claim {
        let mut waits = None;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.has_room(held, bytes) {
                self.bytes.fetch_add(bytes, Ordering::AcqRel);
                return Claim { queued: Arc::clone(self), bytes };
            }
            waits.get_or_insert_with(|| self.wait());
            freed.await;
        }
    }
}

/// One that waits for room, until it is dropped.
struct Waits<'a>(&'a Queued);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Room that was taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Claim {
    queued: Arc<Queued>,
    bytes: usize,
}

impl Claim {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.queued.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.queued.freed.notify_waiters();
    }
}

impl Outbound {
    /// Waits until a frame of `bytes` has room in the queue, and keeps that room. None if the
    /// connection is gone. Dropping the future gives up the place.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "peers do not wait"))]
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let _turn = self.queue.turn.lock().await;
        let queued = self.state().queued.clone();
        let mut waits = None;
        loop {
            let mut room = pin!(self.queue.room.notified());
            room.as_mut().enable();
            let mut freed = pin!(queued.as_ref().map(|queued| queued.freed.notified()));
            if let Some(freed) = freed.as_mut().as_pin_mut() {
                freed.enable();
            }
            let is_short = {
                let mut state = self.state();
                if !matches!(state.phase, Phase::Open) {
                    return None;
                }
                let held = state.bytes;
                let all = queued.as_ref().is_none_or(|queued| queued.has_room(held, bytes));
                if all && (held == 0 || held + bytes <= self.queue.queue_bytes_max) {
                    let taken = state.bytes + bytes;
                    state.set_bytes(taken);
                    return Some(Reservation { out: self.clone(), bytes });
                }
                !all
            };
            if is_short && let Some(queued) = &queued {
                waits.get_or_insert_with(|| queued.wait());
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::format::frame::Protocol;

    const MIB: usize = 1 << 20;

    fn connection(queued: &Arc<Queued>) -> Outbound {
        Outbound::new(Protocol::Client, 4 * MIB, usize::MAX).counted(Some(queued))
    }

    fn reserved(connections: &[Outbound]) -> Vec<Reservation> {
        connections.iter().filter_map(|one| one.reserve(MIB).now_or_never().flatten()).collect()
    }

    #[tokio::test]
    async fn connections_that_hold_nothing_have_room_up_to_twice_the_limit_and_the_others_up_to_it()
    {
        let queued = Queued::new(4 * MIB);
        let connections: Vec<_> = (0..100).map(|_| connection(&queued)).collect();
        let mut held = reserved(&connections);
        assert_eq!(held.len(), 8, "all together hold twice the limit");
        held.truncate(2);
        assert_eq!(reserved(&connections[..2]).len(), 2, "they hold something, and there is room");
    }

    #[tokio::test]
    async fn what_nobody_asked_room_for_ends_a_connection_that_holds_much_while_there_is_none() {
        let queued = Queued::new(MIB);
        let all: Vec<_> = (0..3).map(|_| connection(&queued)).collect();
        let _held = reserved(&all[..1]);
        let frame = |bytes: usize| OutFrame { head: vec![0; bytes].into(), ..OutFrame::default() };
        assert!(all[1].send(frame(10_000)) && all[1].send(frame(10_000)), "it is little");
        assert!(!all[1].send(frame(200_000)));
        assert!(all[1].is_closed());
        assert!(!all[2].is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_room_is_pressed_once_others_wait_for_some() {
        let queued = Queued::new(MIB);
        let slow = queued.claim(0, 2 * MIB).await;
        let since = Instant::now();
        let mut pressed = Box::pin(queued.pressed(since));
        assert!(tokio::time::timeout(10 * PRESSED_MAX, &mut pressed).await.is_err());
        let mut waiting = Box::pin(queued.claim(0, MIB));
        assert!((&mut waiting).now_or_never().is_none());
        pressed.await;
        assert!(since.elapsed() < 11 * PRESSED_MAX);
        drop(slow);
        assert_eq!(waiting.await.bytes(), MIB);
        assert_eq!(queued.bytes.load(Ordering::Acquire), 0);
    }
}

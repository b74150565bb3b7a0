//! Room in the queues of connections, and waiting for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{MutexGuard, Notify};
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
    /// Those that wait for room, in order: for connections that hold nothing, and for those that hold something. Only the
    /// first of each looks whether there is some: were all woken whenever some is given back, many would cost much.
    lines: [tokio::sync::Mutex<()>; 2],
}

impl Queued {
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "servers limit their clients"))]
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let (bytes, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limit, bytes, freed: Notify::new(), waiting, lines: Default::default() })
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

    /// Waits for the turn to look for room. Cancel safe: dropping it gives up the place.
    async fn turn(&self, holds: bool) -> Option<MutexGuard<'_, ()>> {
        if Mutant::AllWaitersWoken.is_active() {
            return None;
        }
        Some(self.lines[usize::from(holds)].lock().await)
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
        let _turn = self.turn(held > 0).await;
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
        loop {
            let standing = self.standing(bytes);
            let taken = async {
                match (standing, &queued) {
                    (Standing::Gone, _) => Some(None),
                    (Standing::Full, _) => std::future::pending().await,
                    (_, None) => self.take_room(bytes).map(Some),
                    (_, Some(queued)) => self.take_shared_room(queued, standing, bytes).await,
                }
            };
            tokio::select! {
                biased;
                taken = taken => if let Some(taken) = taken { return taken },
                () = self.differs(standing, bytes) => {}
            }
        }
    }

    /// What the connection's own queue has to say to a frame of `bytes`.
    fn standing(&self, bytes: usize) -> Standing {
        let state = self.state();
        match (&state.phase, state.bytes) {
            (Phase::Open, 0) => Standing::Empty,
            (Phase::Open, held) if held + bytes <= self.queue.queue_bytes_max => Standing::Holds,
            (Phase::Open, _) => Standing::Full,
            (Phase::Finishing | Phase::Closed(_), _) => Standing::Gone,
        }
    }

    /// Resolves once what is written, or the end of the connection, has changed that.
    async fn differs(&self, standing: Standing, bytes: usize) {
        loop {
            let mut room = pin!(self.queue.room.notified());
            room.as_mut().enable();
            if self.standing(bytes) != standing {
                return;
            }
            room.await;
        }
    }

    /// Takes room that the connections have together, in the order in which they asked. None if the connection's own queue has
    /// changed: then it waits in another line, or not here.
    async fn take_shared_room(
        &self,
        queued: &Queued,
        standing: Standing,
        bytes: usize,
    ) -> Option<Option<Reservation>> {
        let _turn = queued.turn(standing == Standing::Holds).await;
        let mut waits = None;
        loop {
            let mut freed = pin!(queued.freed.notified());
            freed.as_mut().enable();
            if self.standing(bytes) != standing {
                return None;
            }
            if let Some(taken) = self.take_room(bytes) {
                return Some(Some(taken));
            }
            waits.get_or_insert_with(|| queued.wait());
            freed.await;
        }
    }

    /// Room for a frame, if there is some now.
    fn take_room(&self, bytes: usize) -> Option<Reservation> {
        let mut state = self.state();
        let held = state.bytes;
        let own = held == 0 || held + bytes <= self.queue.queue_bytes_max;
        let all = state.queued.as_ref().is_none_or(|queued| queued.has_room(held, bytes));
        if !(own && all && matches!(state.phase, Phase::Open)) {
            return None;
        }
        state.set_bytes(held + bytes);
        Some(Reservation { out: self.clone(), bytes })
    }
}

/// Whether a connection's own queue has room for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It holds nothing, so that a frame of any size has.
    Empty,
    Holds,
    Full,
    Gone,
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
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll, Wake, Waker};

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

    #[test]
    fn connections_that_hold_nothing_have_room_up_to_twice_the_limit_and_the_others_up_to_it() {
        let queued = Queued::new(4 * MIB);
        let connections: Vec<_> = (0..100).map(|_| connection(&queued)).collect();
        let mut held = reserved(&connections);
        assert_eq!(held.len(), 8, "all together hold twice the limit");
        held.truncate(2);
        assert_eq!(reserved(&connections[..2]).len(), 2, "they hold something, and there is room");
    }

    /// Counts how often it wakes a task.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls a future that was woken since the last time.
    fn poll_woken<T>(wakes: &Arc<Wakes>, future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        if wakes.0.swap(0, Ordering::Relaxed) == 0 {
            return None;
        }
        let waker = Waker::from(Arc::clone(wakes));
        match future.poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    /// Each time some room was given back, all of 600 connections were woken and looked.
    #[test]
    fn room_goes_to_those_that_wait_in_their_order_and_wakes_few_others() {
        const WAITING: usize = 600;
        let queued = Queued::new(MIB);
        let holders: Vec<_> = (0..2).map(|_| connection(&queued)).collect();
        let mut held: VecDeque<_> = reserved(&holders).into();
        assert_eq!(held.len(), 2, "there is no more");
        let others: Vec<_> = (0..WAITING).map(|_| connection(&queued)).collect();
        let mut waiting: Vec<_> = others.iter().map(|one| Box::pin(one.reserve(MIB))).collect();
        let wakes: Vec<_> = (0..WAITING).map(|_| Arc::new(Wakes(AtomicUsize::new(1)))).collect();
        for (future, wakes) in waiting.iter_mut().zip(&wakes) {
            assert!(poll_woken(wakes, future.as_mut()).is_none());
        }
        let (mut looks, mut order) = (0, Vec::new());
        while order.len() < WAITING {
            drop(held.pop_front().expect("somebody holds some"));
            let before = order.len();
            loop {
                let woken: Vec<_> =
                    (0..WAITING).filter(|at| wakes[*at].0.load(Ordering::Relaxed) > 0).collect();
                if woken.is_empty() {
                    break;
                }
                looks += woken.len();
                for at in woken {
                    if let Some(taken) = poll_woken(&wakes[at], waiting[at].as_mut()) {
                        held.push_back(taken.expect("it is open"));
                        order.push(at);
                    }
                }
            }
            assert!(order.len() > before, "nobody took what was given back");
        }
        assert_eq!(order, Vec::from_iter(0..WAITING));
        assert!(looks <= 4 * WAITING, "{looks} looks for {WAITING} frames");
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

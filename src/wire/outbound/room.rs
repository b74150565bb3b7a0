//! Room in the queues of connections, and waiting for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Answers, Outbound, Phase};
use crate::lines::Lines;
use crate::mutant::Mutant;
use crate::wire::OutFrame;

/// How long a connection may take to be rid of what it holds while others wait for room: so long, and longer by what it
/// moves at `PRESSED_RATE`, up to a limit.
const PRESSED_MIN: Duration = Duration::from_secs(1);
const PRESSED_MAX: Duration = Duration::from_secs(3);
/// Bytes a second.
const PRESSED_RATE: u64 = 1 << 20;
/// How often it is looked whether others wait, after that.
const PRESSED_INTERVAL: Duration = Duration::from_millis(250);
/// While the limit is reached, a connection whose queue holds more than this gets nothing unasked.
const LITTLE_BYTES: usize = 128 << 10;

/// Who wants room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimant {
    /// A connection that holds nothing, and has finished before what it had room for.
    Proven,
    /// One that holds nothing, and has finished nothing yet.
    New,
    /// One that holds something.
    Holds,
}

/// Bytes that several connections hold, and their limit: what is queued to them, or the frames that come in on them. One
/// that holds nothing may have some beyond the limit, up to twice of it: those that take their answers are not stopped
/// by those that do not. Half of that is for those that have proven that they do.
#[derive(Debug)]
pub(crate) struct Queued {
    limit: usize,
    pub(super) bytes: AtomicUsize,
    lines: Lines<3>,
}

impl Queued {
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "servers limit their clients"))]
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, bytes: AtomicUsize::new(0), lines: Lines::default() })
    }

    fn used(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// True if this one may hold so much more.
    fn has_room(&self, claimant: Claimant, bytes: usize) -> bool {
        let beyond = match claimant {
            Claimant::Holds => 0,
            Claimant::New if !Mutant::NewcomersTakeAll.is_active() => self.limit / 2,
            Claimant::New | Claimant::Proven => self.limit,
        };
        let unbounded = Mutant::QueuedUnbounded.is_active();
        let most = if unbounded { usize::MAX } else { self.limit.saturating_add(beyond) };
        let used = self.used();
        (used == 0 && claimant != Claimant::Holds) || used.saturating_add(bytes) <= most
    }

    /// True if so much more leaves half of the room free.
    pub(crate) fn is_ample_for(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.limit / 2
    }

    /// True if frames that nobody waits for room for may take so many bytes of a connection.
    pub(super) fn takes_unasked(&self, held: usize, bytes: usize) -> bool {
        held + bytes <= LITTLE_BYTES || self.used().saturating_add(bytes) <= self.limit
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.lines.freed();
    }

    /// Resolves once a connection that has held what it holds since then has done so for too long, and others wait for
    /// room. `moved` is how much of it has come or gone.
    pub(crate) async fn pressed(&self, since: Instant, moved: impl Fn() -> usize) {
        loop {
            let paced = Duration::from_millis(moved() as u64 / (PRESSED_RATE / 1000));
            let due = since + (PRESSED_MIN + paced).min(PRESSED_MAX);
            if Instant::now() < due {
                sleep_until(due).await;
            } else if self.lines.is_waited_in() {
                return;
            } else {
                sleep(PRESSED_INTERVAL).await;
            }
        }
    }

    /// Takes room as soon as there is some. Cancel safe.
    pub(crate) async fn claim(self: &Arc<Self>, claimant: Claimant, bytes: usize) -> Claim {
        let take = || {
            self.has_room(claimant, bytes).then(|| {
                self.bytes.fetch_add(bytes, Ordering::AcqRel);
                Claim { queued: Arc::clone(self), bytes }
            })
        };
        self.lines.first(claimant as usize, take).await
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
        self.queued.give_back(self.bytes);
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
                    (Standing::Wants(_), None) => self.take_room(bytes, None).map(Some),
                    (Standing::Wants(claimant), Some(queued)) => {
                        // In the order in which they asked. It may have to wait in another line, or not here, once the
                        // connection's own queue has changed.
                        let look = || match self.standing(bytes) == standing {
                            true => {
                                self.take_room(bytes, Some(claimant)).map(|room| Some(Some(room)))
                            }
                            false => Some(None),
                        };
                        queued.lines.first(claimant as usize, look).await
                    }
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
            (Phase::Open, 0) if state.answers == Answers::Taken => {
                Standing::Wants(Claimant::Proven)
            }
            (Phase::Open, 0) => Standing::Wants(Claimant::New),
            (Phase::Open, held) if held + bytes <= self.queue.queue_bytes_max => {
                Standing::Wants(Claimant::Holds)
            }
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

    /// Room for a frame, if there is some now.
    fn take_room(&self, bytes: usize, claimant: Option<Claimant>) -> Option<Reservation> {
        let mut state = self.state();
        let held = state.bytes;
        let own = held == 0 || held + bytes <= self.queue.queue_bytes_max;
        let all = match (&state.queued, claimant) {
            (Some(queued), Some(claimant)) => queued.has_room(claimant, bytes),
            _ => true,
        };
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
    /// It has. If it holds nothing, a frame of any size has.
    Wants(Claimant),
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

    /// One that took an answer.
    fn proven(queued: &Arc<Queued>) -> Outbound {
        let out = connection(queued);
        out.state().answers = Answers::Taken;
        out
    }

    fn reserved(connections: &[Outbound]) -> Vec<Reservation> {
        connections.iter().filter_map(|one| one.reserve(MIB).now_or_never().flatten()).collect()
    }

    #[test]
    fn connections_that_hold_nothing_have_room_up_to_twice_the_limit_and_the_others_up_to_it() {
        let queued = Queued::new(4 * MIB);
        let connections: Vec<_> = (0..100).map(|_| proven(&queued)).collect();
        let mut held = reserved(&connections);
        assert_eq!(held.len(), 8, "all together hold twice the limit");
        held.truncate(2);
        assert_eq!(reserved(&connections[..2]).len(), 2, "they hold something, and there is room");
    }

    #[test]
    fn clients_that_never_took_an_answer_leave_room_for_those_that_did() {
        let queued = Queued::new(4 * MIB);
        let proven = connection(&queued);
        let room = proven.reserve(100).now_or_never().flatten().expect("it is open");
        let frame = || OutFrame { head: vec![0; 10].into(), ..OutFrame::default() };
        assert!(room.send(frame()));
        let mut taken = Vec::new();
        let writing = proven.write_to(&mut taken);
        assert!(writing.now_or_never().is_none(), "it waits for more");
        let newcomers: Vec<_> = (0..100).map(|_| connection(&queued)).collect();
        let held = reserved(&newcomers);
        assert_eq!(held.len(), 6, "half of what is beyond the limit is not for them");
        assert_eq!(proven.state().answers, Answers::Taken);
        assert_eq!(reserved(&[proven]).len(), 1, "it took what it had asked for");
        // What comes unasked proves nothing.
        assert!(newcomers[99].send(frame()));
        let mut taken = Vec::new();
        assert!(newcomers[99].write_to(&mut taken).now_or_never().is_none());
        assert!(reserved(&newcomers[99..]).is_empty());
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
        let holders: Vec<_> = (0..2).map(|_| proven(&queued)).collect();
        let mut held: VecDeque<_> = reserved(&holders).into();
        assert_eq!(held.len(), 2, "there is no more");
        let others: Vec<_> = (0..WAITING).map(|_| proven(&queued)).collect();
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
        let slow = queued.claim(Claimant::Proven, 2 * MIB).await;
        let since = Instant::now();
        let mut pressed = Box::pin(queued.pressed(since, || 0));
        assert!(tokio::time::timeout(10 * PRESSED_MAX, &mut pressed).await.is_err());
        let mut waiting = Box::pin(queued.claim(Claimant::Proven, MIB));
        assert!((&mut waiting).now_or_never().is_none());
        pressed.await;
        assert!(since.elapsed() < 11 * PRESSED_MAX);
        drop(slow);
        assert_eq!(waiting.await.bytes(), MIB);
        assert_eq!(queued.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_on_at_a_megabyte_a_second_has_more_time() {
        let queued = Queued::new(MIB);
        let _held = queued.claim(Claimant::New, 3 * MIB).await;
        let mut waiting = Box::pin(queued.claim(Claimant::New, MIB));
        assert!((&mut waiting).now_or_never().is_none());
        let since = Instant::now();
        queued.pressed(since, || MIB).await;
        assert!((since.elapsed().as_secs_f64() - 2.0).abs() < 0.1, "{:?}", since.elapsed());
        queued.pressed(since, || 100 * MIB).await;
        assert!(since.elapsed() < PRESSED_MAX + PRESSED_INTERVAL, "{:?}", since.elapsed());
    }
}

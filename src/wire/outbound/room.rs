//! Room in the queues of connections, and waiting for it.

use std::pin::pin;

use super::{Claimant, Outbound, Phase, State};
use crate::mutant::Mutant;
use crate::wire::OutFrame;

/// What the systems at both ends may hold of what was written, though nobody reads it.
const SYSTEM_BYTES: usize = 1 << 20;

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
                    (Standing::Share, _) | (Standing::Wants(_), None) => {
                        self.take_room(bytes, None).map(Some)
                    }
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

    /// As `reserve`, for a frame that can as well be smaller: if there is no room for all of it now, for the connection's
    /// share, for which no other connection has to be waited for. [`Reservation::bytes`] says how much it is.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "peers do not wait"))]
    pub(crate) async fn reserve_up_to(&self, bytes: usize) -> Option<Reservation> {
        if Mutant::NoShares.is_active() {
            return self.reserve(bytes).await;
        }
        let share = self.state().queued.as_ref().map_or(bytes, |queued| queued.share());
        let mut room = self.reserve(bytes.min(share)).await?;
        room.grow(bytes);
        Some(room)
    }

    /// What the connection's own queue has to say to a frame of `bytes`.
    fn standing(&self, bytes: usize) -> Standing {
        let state = self.state();
        match (&state.phase, state.bytes) {
            (Phase::Finishing | Phase::Closed(_), _) => Standing::Gone,
            (Phase::Open, held) if !self.queue.fits(held, bytes) => Standing::Full,
            (Phase::Open, held) if state.is_share(held + bytes) => Standing::Share,
            (Phase::Open, held) => Standing::Wants(state.claimant(held, bytes)),
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
        let own = self.queue.fits(held, bytes);
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

impl State {
    /// True if so many bytes are no more than the connection may have whatever the others have.
    fn is_share(&self, bytes: usize) -> bool {
        self.queued.as_ref().is_some_and(|queued| bytes <= queued.share())
    }

    /// Who wants so much more, of a connection that holds `held` beside it. Only what the other end has read proves that it
    /// reads: a small answer is taken by the systems in between.
    fn claimant(&self, held: usize, bytes: usize) -> Claimant {
        let one_is_enough = Mutant::AnyAnswerProves.is_active() && self.taken > 0;
        match held {
            0 if one_is_enough || self.taken >= bytes.saturating_add(SYSTEM_BYTES) => {
                Claimant::Proven
            }
            0 => Claimant::New,
            _ => Claimant::Holds,
        }
    }
}

/// Whether a connection's own queue has room for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has, and nobody else has to be asked.
    Share,
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
    /// Room that the frame has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more room for the frame, up to `bytes` in all, if there is some now. True if it has so much then.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut state = self.out.state();
        let others = state.bytes.saturating_sub(self.bytes);
        let own = self.out.queue.fits(others, bytes);
        let claimant = state.claimant(others, bytes);
        let all = state.queued.as_ref().is_none_or(|queued| {
            // Those of whom some wait are not overtaken.
            let waited_for = claimant == Claimant::Holds && queued.lines.is_waited_in();
            !waited_for && queued.has_room(claimant, more)
        });
        if more > 0 && own && all && matches!(state.phase, Phase::Open) {
            let held = state.bytes + more;
            state.set_bytes(held);
            self.bytes += more;
        }
        self.bytes >= bytes
    }

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

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::Queued;
    use super::*;
    use crate::format::frame::Protocol;

    const MIB: usize = 1 << 20;

    fn connection(queued: &Arc<Queued>) -> Outbound {
        Outbound::new(Protocol::Client, 4 * MIB, usize::MAX).counted(Some(queued))
    }

    /// One that took a lot.
    fn proven(queued: &Arc<Queued>) -> Outbound {
        let out = connection(queued);
        out.state().taken = 100 * MIB;
        out
    }

    /// Queues an answer, and has all that is queued written.
    fn take_answer(out: &Outbound, bytes: usize) {
        let room = out.reserve(bytes).now_or_never().flatten().expect("there is room");
        assert!(room.send(OutFrame { body: vec![vec![0; bytes].into()], ..OutFrame::default() }));
        let mut taken = Vec::new();
        assert!(out.write_to(&mut taken).now_or_never().is_none(), "it waits for more");
        assert!(taken.len() > bytes);
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
    fn clients_that_took_little_leave_room_for_those_that_took_as_much_as_they_want() {
        let queued = Queued::new(4 * MIB);
        let reader = connection(&queued);
        take_answer(&reader, 2 * MIB);
        let newcomers: Vec<_> = (0..100).map(|_| connection(&queued)).collect();
        for one in &newcomers {
            // The systems at both ends take it, also if nobody reads it.
            take_answer(one, 100);
        }
        let held = reserved(&newcomers);
        assert_eq!(held.len(), 6, "half of what is beyond the limit is not for them");
        assert!(reader.reserve(3 * MIB).now_or_never().is_none(), "it never took that much");
        assert_eq!(reserved(&[reader]).len(), 1);
    }

    #[test]
    fn each_connection_has_its_share_whatever_the_others_hold() {
        let queued = Queued::new(4 * MIB);
        let greedy: Vec<_> = (0..100).map(|_| proven(&queued)).collect();
        let held = reserved(&greedy);
        assert_eq!(held.len(), 8, "there is no more");
        let share = queued.share();
        for one in [connection(&queued), proven(&queued)] {
            let up_to = || one.reserve_up_to(MIB).now_or_never().flatten();
            let room = up_to().expect("its share");
            assert_eq!(room.bytes(), share);
            assert!(up_to().is_none(), "it has no other");
            assert!(room.send(OutFrame::default()));
        }
        drop(held);
        let room = greedy[0].reserve_up_to(MIB).now_or_never().flatten().expect("there is room");
        assert_eq!(room.bytes(), MIB, "for all of it");
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
}

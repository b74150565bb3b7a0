//! Bytes that connections hold: each has a share, and all shares draw on the budget of their node.
//!
//! A share that holds nothing may always take something, up to twice the node's limit: clients that take their answers are
//! not stopped by those that do not. While the node's limit is reached, slow connections end (`patience`).

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorumlog::lines::Lines;
use tokio::sync::Notify;

use crate::mutant::Mutant;

/// Those of a node that wait for room, by what they hold: each line has its own bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    HoldsNothing,
    Holds,
    /// Wants more for what it has some room for, and holds nothing else.
    Grows,
    /// The same, and holds other things.
    GrowsBeside,
}

/// Bytes of all connections of a node.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    lines: Lines<4>,
}

/// Bytes of one connection.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    limit: usize,
    held: AtomicUsize,
    freed: Notify,
    /// Held by the one that waits for room next, in order.
    turn: tokio::sync::Mutex<()>,
}

/// Bytes that were taken; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Room {
    share: Arc<Share>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), lines: Lines::default() })
    }

    /// Bytes that are taken now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.lines.freed();
    }

    /// True while the limit is reached.
    pub(crate) fn is_used_up(&self) -> bool {
        self.used() >= self.limit
    }
}

impl Share {
    /// A share that may hold up to `limit` bytes.
    pub(crate) fn new(budget: &Arc<Budget>, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::clone(budget),
            limit,
            held: AtomicUsize::new(0),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Takes bytes that are there already, whatever the limits; `give_back` returns them.
    pub(crate) fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        self.budget.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Returns what was taken.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.budget.give_back(bytes);
        self.freed.notify_waiters();
    }

    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.line_for(bytes).is_some_and(|line| self.has_room_in(line, bytes))
    }

    /// Where to wait for so many bytes of the budget. None while the share itself has no room for them.
    fn line_for(&self, bytes: usize) -> Option<Line> {
        match self.held() {
            0 => Some(Line::HoldsNothing),
            _ => self.is_below_limit(bytes).then_some(Line::Holds),
        }
    }

    fn is_below_limit(&self, bytes: usize) -> bool {
        self.held().saturating_add(bytes) <= self.limit || Mutant::ConnectionsUnbounded.is_active()
    }

    /// True if the budget has room.
    fn has_room_in(&self, line: Line, bytes: usize) -> bool {
        if Mutant::ConnectionsUnbounded.is_active() {
            return true;
        }
        let (used, limit) = (self.budget.used(), self.budget.limit);
        match line {
            Line::HoldsNothing | Line::Grows => {
                used == 0 || used.saturating_add(bytes) <= limit.saturating_mul(2)
            }
            Line::Holds | Line::GrowsBeside => used.saturating_add(bytes) <= limit,
        }
    }

    /// Takes bytes if there is room for them now, and nobody waits for some.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let _turn = self.turn.try_lock().ok()?;
        self.has_room(bytes).then(|| Room::taken(self, bytes))
    }

    /// Takes bytes as soon as there is room for them. Cancel safe.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: usize) -> Room {
        self.wait_for(bytes, || Room::taken(self, bytes)).await
    }

    /// Waits until more may be begun: neither this share nor, if it holds anything, the node's budget is used up.
    pub(crate) async fn ready(&self) {
        self.ready_for(0).await;
    }

    /// Waits until there is room for so many bytes, and takes none. Cancel safe.
    pub(crate) async fn ready_for(&self, bytes: usize) {
        self.wait_for(bytes, || ()).await;
    }

    async fn wait_for<T>(&self, bytes: usize, take: impl Fn() -> T) -> T {
        let line = || self.line_for(bytes);
        self.wait_in(line, |line| self.has_room_in(line, bytes).then(&take)).await
    }

    /// Waits until there is room, and takes it. Nobody overtakes those that wait: while one waits, no other request is read.
    async fn wait_in<T>(
        &self,
        line: impl Fn() -> Option<Line>,
        take: impl Fn(Line) -> Option<T>,
    ) -> T {
        let _turn = self.turn.lock().await;
        loop {
            let now = line();
            let Some(place) = now else {
                self.differs(&line, now).await;
                continue;
            };
            // It may have to wait in another line, or not here, once what this connection holds has changed.
            let look = || if line() == now { take(place).map(Some) } else { Some(None) };
            tokio::select! {
                biased;
                taken = self.budget.lines.first(place as usize, look) => if let Some(taken) = taken {
                    return taken;
                },
                () = self.differs(&line, now) => {}
            }
        }
    }

    /// Resolves once this connection has to wait elsewhere.
    async fn differs(&self, line: impl Fn() -> Option<Line>, before: Option<Line>) {
        loop {
            let mut freed = pin!(self.freed.notified());
            // Registered before the look, or what is given back in between would be missed.
            freed.as_mut().enable();
            if line() != before {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Share {
    /// What the connection's queue still held.
    fn drop(&mut self) {
        self.budget.give_back(*self.held.get_mut());
    }
}

impl Room {
    /// Bytes that are there already.
    pub(crate) fn taken(share: &Arc<Share>, bytes: usize) -> Self {
        share.take(bytes);
        Self { share: Arc::clone(share), bytes }
    }

    /// Takes more as soon as there is room. What it holds itself does not stand in its way. Cancel safe.
    pub(crate) async fn grow(&mut self, bytes: usize) {
        let (share, held) = (&self.share, self.bytes);
        let line = || match share.held() > held {
            true => share.is_below_limit(bytes).then_some(Line::GrowsBeside),
            false => Some(Line::Grows),
        };
        let fits = |line| {
            share.has_room_in(line, bytes) || line == Line::Grows && share.budget.used() <= held
        };
        share.wait_in(line, |line| fits(line).then(|| share.take(bytes))).await;
        self.bytes += bytes;
    }

    /// Has so many bytes for an answer that is larger than what was reserved for it. What is held is given back first: many
    /// that hold some and wait for more would wait for each other. The node's limit holds here even for a connection that
    /// has nothing else: what is above it is for the ordinary answers of those that take theirs. Cancel safe.
    pub(crate) async fn exchange_for_answer(&mut self, bytes: usize) {
        let share = &self.share;
        let held = if Mutant::LargeAnswersHoldOn.is_active() { self.bytes } else { 0 };
        share.give_back(std::mem::replace(&mut self.bytes, held) - held);
        let more = bytes.saturating_sub(held);
        let times = if Mutant::LargeAnswersTakeAll.is_active() { usize::MAX } else { 1 };
        let fits = || {
            let used = share.budget.used();
            let limit = share.budget.limit.saturating_mul(times);
            used <= held || used.saturating_add(more) <= limit
        };
        share.wait_in(|| Some(Line::Grows), |_| fits().then(|| share.take(more))).await;
        self.bytes += more;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Wake, Waker};

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_connection_that_holds_its_share_waits_and_another_does_not() {
        let budget = Budget::new(1000);
        let (slow, other) = (Share::new(&budget, 100), Share::new(&budget, 100));
        let held = slow.reserve(90).now_or_never().expect("there is room");
        assert!(slow.reserve(20).now_or_never().is_none(), "it holds 90 of 100");
        assert!(other.reserve(90).now_or_never().is_some());
        drop(held);
        assert!(slow.reserve(20).now_or_never().is_some());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn when_the_node_has_none_left_only_those_that_hold_nothing_go_on_and_twice_the_limit_is_the_end()
     {
        let budget = Budget::new(100);
        let shares: Vec<_> = (0..8).map(|_| Share::new(&budget, 100)).collect();
        let mut held = Vec::new();
        for share in &shares[..5] {
            held.push(share.reserve(40).now_or_never().expect("it held nothing"));
        }
        assert!(budget.is_used_up());
        assert!(shares[0].ready().now_or_never().is_none(), "it holds something");
        assert!(shares[5].ready().now_or_never().is_some(), "it holds nothing");
        assert!(shares[5].reserve(1).now_or_never().is_none(), "200 of 100 are taken");
        held.pop();
        assert!(shares[5].reserve(40).now_or_never().is_some());
    }

    #[test]
    fn while_one_waits_for_room_nothing_more_is_begun() {
        let share = Share::new(&Budget::new(1000), 100);
        let held = share.reserve(90).now_or_never().expect("there is room");
        let mut waiting = Box::pin(share.reserve(20));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(share.ready().now_or_never().is_none(), "what is begun would wait, too");
        drop(held);
        assert!(waiting.now_or_never().is_some());
        assert!(share.ready().now_or_never().is_some());
    }

    #[test]
    fn one_that_is_larger_than_any_limit_goes_alone() {
        let budget = Budget::new(10);
        let share = Share::new(&budget, 10);
        assert!(share.reserve(1000).now_or_never().is_some());
        let mut room = Room::taken(&share, 5);
        assert!(room.grow(1000).now_or_never().is_some(), "nobody else holds anything");
    }

    #[test]
    fn large_answers_that_wait_for_room_keep_none_that_others_need() {
        let budget = Budget::new(100);
        let reserved = |_| Share::new(&budget, 100).reserve(10).now_or_never().expect("its first");
        let rooms: Vec<_> = (0..10).map(reserved).collect();
        let answering = rooms
            .into_iter()
            .map(|mut room| Box::pin(async move { room.exchange_for_answer(60).await }));
        let mut answering: Vec<_> = answering.collect();
        for _ in 0..10 {
            answering.retain_mut(|answer| answer.now_or_never().is_none());
        }
        assert_eq!((answering.len(), budget.used()), (0, 0), "they wait for each other");
    }

    #[test]
    fn large_answers_leave_room_for_the_ordinary_ones_of_others() {
        let budget = Budget::new(100);
        let mut rooms = Vec::new();
        for _ in 0..10 {
            let mut room =
                Share::new(&budget, 50).reserve(2).now_or_never().expect("it held nothing");
            if room.exchange_for_answer(40).now_or_never().is_some() {
                rooms.push(room);
            }
        }
        assert_eq!((rooms.len(), budget.used()), (2, 80), "one more would be over the limit");
        let mut alone =
            Share::new(&Budget::new(10), 10).reserve(5).now_or_never().expect("there is room");
        assert!(
            alone.exchange_for_answer(1000).now_or_never().is_some(),
            "nobody else holds anything"
        );
    }

    #[test]
    fn what_a_connection_held_is_given_back_when_it_ends() {
        let budget = Budget::new(10);
        let share = Share::new(&budget, 10);
        share.take(7);
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    /// Counts how often it wakes a task.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn room_goes_to_connections_in_their_order_and_wakes_few_others() {
        const WAITING: usize = 600;
        let budget = Budget::new(10);
        let mut held = vec![Share::new(&budget, 20).reserve(20).now_or_never().expect("room")];
        let shares: Vec<_> = (0..WAITING).map(|_| Share::new(&budget, 20)).collect();
        let mut waiting: Vec<_> = shares.iter().map(|share| Box::pin(share.reserve(20))).collect();
        let wakes: Vec<_> = (0..WAITING).map(|_| Arc::new(Wakes::default())).collect();
        let poll = |at: usize, future: Pin<&mut _>| {
            let waker = Waker::from(Arc::clone(&wakes[at]));
            Future::poll(future, &mut Context::from_waker(&waker))
        };
        for (at, future) in waiting.iter_mut().enumerate() {
            assert!(poll(at, future.as_mut()).is_pending());
        }
        let (mut looks, mut order) = (0, Vec::new());
        while let Some(room) = held.pop() {
            drop(room);
            loop {
                let woken: Vec<_> =
                    (0..WAITING).filter(|at| wakes[*at].0.swap(0, Ordering::Relaxed) > 0).collect();
                looks += woken.len();
                if woken.is_empty() {
                    break;
                }
                for at in woken {
                    if let Poll::Ready(room) = poll(at, waiting[at].as_mut()) {
                        held.push(room);
                        order.push(at);
                    }
                }
            }
        }
        assert_eq!(order, Vec::from_iter(0..WAITING));
        assert!(looks <= 4 * WAITING, "{looks} looks for {WAITING} rooms");
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_when_somebody_else_gives_back() {
        let budget = Budget::new(100);
        let (one, two) = (Share::new(&budget, 100), Share::new(&budget, 100));
        let held = one.reserve(90).await;
        let _little = two.reserve(5).await;
        let waiting = tokio::spawn(async move { two.reserve(50).await.bytes });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.await.expect("no panic"), 50);
    }
}

//! Bytes that connections hold: each has a share, and all shares draw on the budget of their node.
//!
//! A share that holds nothing may always take something, up to twice the node's limit: clients that take their answers are
//! not stopped by those that do not. While the node's limit is reached, slow connections end (`patience`).

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::mutant::Mutant;

/// Bytes of all connections of a node.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
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
        Arc::new(Self { limit, used: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// Bytes that are taken now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
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
        self.budget.used.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_waiters();
        self.budget.freed.notify_waiters();
    }

    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        if Mutant::ConnectionsUnbounded.is_active() {
            return true;
        }
        let (held, used) = (self.held(), self.budget.used());
        if held == 0 {
            return used == 0 || used.saturating_add(bytes) <= self.budget.limit.saturating_mul(2);
        }
        held.saturating_add(bytes) <= self.limit && used.saturating_add(bytes) <= self.budget.limit
    }

    /// Takes bytes if there is room for them now, and nobody waits for some.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let _turn = self.turn.try_lock().ok()?;
        self.has_room(bytes).then(|| Room::taken(self, bytes))
    }

    /// Takes bytes as soon as there is room for them. Cancel safe.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: usize) -> Room {
        self.wait_for(|share| share.has_room(bytes)).await;
        Room::taken(self, bytes)
    }

    /// Waits until more may be begun: neither this share nor, if it holds anything, the node's budget is used up.
    pub(crate) async fn ready(&self) {
        self.ready_for(0).await;
    }

    /// Waits until there is room for so many bytes, and takes none. Cancel safe.
    pub(crate) async fn ready_for(&self, bytes: usize) {
        self.wait_for(|share| share.has_room(bytes)).await;
    }

    async fn wait_for(&self, holds: impl Fn(&Self) -> bool) {
        // Nobody overtakes those that wait: while one waits, no other request is read.
        if self.turn.try_lock().is_ok() && holds(self) {
            return;
        }
        let _turn = self.turn.lock().await;
        loop {
            let mut own = pin!(self.freed.notified());
            let mut others = pin!(self.budget.freed.notified());
            // Registered before the look, or what is given back in between would be missed.
            own.as_mut().enable();
            others.as_mut().enable();
            if holds(self) {
                return;
            }
            tokio::select! {
                () = own => {}
                () = others => {}
            }
        }
    }
}

impl Drop for Share {
    /// What the connection's queue still held.
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.held.get_mut(), Ordering::AcqRel);
        self.budget.freed.notify_waiters();
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
        let held = self.bytes;
        self.grow_once(bytes, |share| {
            if share.held() > held {
                return share.has_room(bytes);
            }
            share.budget.used().saturating_add(bytes) <= share.budget.limit.saturating_mul(2)
                || share.budget.used() <= held
        })
        .await;
    }

    /// Takes more for an answer that is larger than what was reserved for it. The node's limit holds here even for a
    /// connection that has nothing else: what is above it is for the ordinary answers of those that take theirs. Cancel safe.
    pub(crate) async fn grow_for_answer(&mut self, bytes: usize) {
        let held = self.bytes;
        let times = if Mutant::LargeAnswersTakeAll.is_active() { usize::MAX } else { 1 };
        self.grow_once(bytes, |share| {
            let used = share.budget.used();
            let limit = share.budget.limit.saturating_mul(times);
            used <= held || used.saturating_add(bytes) <= limit
        })
        .await;
    }

    async fn grow_once(&mut self, bytes: usize, fits: impl Fn(&Share) -> bool) {
        self.share.wait_for(fits).await;
        self.share.take(bytes);
        self.bytes += bytes;
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
    fn large_answers_leave_room_for_the_ordinary_ones_of_others() {
        let budget = Budget::new(100);
        let mut rooms = Vec::new();
        for _ in 0..10 {
            let mut room =
                Share::new(&budget, 50).reserve(2).now_or_never().expect("it held nothing");
            if room.grow_for_answer(38).now_or_never().is_some() {
                rooms.push(room);
            }
        }
        assert_eq!((rooms.len(), budget.used()), (2, 80), "one more would be over the limit");
        let mut alone =
            Share::new(&Budget::new(10), 10).reserve(5).now_or_never().expect("there is room");
        assert!(alone.grow_for_answer(1000).now_or_never().is_some(), "nobody else holds anything");
    }

    #[test]
    fn what_a_connection_held_is_given_back_when_it_ends() {
        let budget = Budget::new(10);
        let share = Share::new(&budget, 10);
        share.take(7);
        drop(share);
        assert_eq!(budget.used(), 0);
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

//! What several connections hold together, its limit, and who may hold more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::lines::Lines;
use crate::mutant::Mutant;

/// How long a connection may take to be rid of what it holds while room is short: so long, and longer by what it
/// moves at `PRESSED_RATE`, up to a limit.
const PRESSED_MIN: Duration = Duration::from_secs(1);
const PRESSED_MAX: Duration = Duration::from_secs(3);
/// Bytes a second.
const PRESSED_RATE: u64 = 1 << 20;
/// How often it is looked whether it is, after that.
const PRESSED_INTERVAL: Duration = Duration::from_millis(250);
/// While the limit is reached, a connection whose queue holds more than this gets nothing unasked.
const LITTLE_BYTES: usize = 128 << 10;
/// One of so many parts of the limit is each connection's share.
const SHARES: usize = 1024;

/// Who wants room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimant {
    /// A connection that holds nothing, and has moved as much before as it wants now.
    Proven,
    /// One that holds nothing, and has not.
    New,
    /// One that holds something.
    Holds,
}

/// Bytes that several connections hold, and their limit: what is queued to them, or the frames that come in on them. One
/// that holds nothing may have some beyond the limit, up to twice of it: those that take their answers are not stopped
/// by those that do not. Half of that is for those that have moved as much before as they want now. That proves nothing of
/// what they do next, so each has a small share of the queues besides, whatever the others hold.
#[derive(Debug)]
pub(crate) struct Queued {
    limit: usize,
    pub(super) bytes: AtomicUsize,
    pub(super) lines: Lines<3>,
}

impl Queued {
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "servers limit their clients"))]
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, bytes: AtomicUsize::new(0), lines: Lines::default() })
    }

    fn used(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// What each connection may have queued, whatever the others have.
    pub(super) fn share(&self) -> usize {
        self.limit / SHARES
    }

    /// True if this one may hold so much more.
    pub(super) fn has_room(&self, claimant: Claimant, bytes: usize) -> bool {
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

    /// True while more is held than should be, or somebody waits.
    fn is_short(&self) -> bool {
        self.lines.is_waited_in() || self.used() > self.limit
    }

    /// Resolves once a connection that has held what it holds since then has done so for too long, and room is
    /// short. `moved` is how much of it has come or gone. `gives` says whether it holds anything that others could have.
    pub(crate) async fn pressed(
        &self,
        since: Instant,
        moved: impl Fn() -> usize,
        gives: impl Fn() -> bool,
    ) {
        loop {
            let paced = Duration::from_millis(moved() as u64 / (PRESSED_RATE / 1000));
            let due = since + (PRESSED_MIN + paced).min(PRESSED_MAX);
            if Instant::now() < due {
                sleep_until(due).await;
            } else if self.is_short() && gives() {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn who_holds_room_is_pressed_once_others_wait_for_some() {
        let queued = Queued::new(MIB);
        let slow = queued.claim(Claimant::Proven, MIB).await;
        let since = Instant::now();
        let mut pressed = Box::pin(queued.pressed(since, || 0, || true));
        assert!(tokio::time::timeout(10 * PRESSED_MAX, &mut pressed).await.is_err());
        let mut waiting = Box::pin(queued.claim(Claimant::Holds, MIB));
        assert!((&mut waiting).now_or_never().is_none());
        pressed.await;
        assert!(since.elapsed() < 11 * PRESSED_MAX);
        drop(slow);
        assert_eq!(waiting.await.bytes(), MIB);
        assert_eq!(queued.used(), 0);
    }

    /// Nobody need wait: each connection has its share.
    #[tokio::test(start_paused = true)]
    async fn who_holds_room_is_pressed_while_more_is_held_than_should_be() {
        let queued = Queued::new(MIB);
        let held = queued.claim(Claimant::Proven, MIB).await;
        let more = queued.claim(Claimant::Proven, MIB / 4).await;
        queued.pressed(Instant::now(), || 0, || true).await;
        let harmless = queued.pressed(Instant::now(), || 0, || false);
        assert!(tokio::time::timeout(10 * PRESSED_MAX, harmless).await.is_err());
        drop(more);
        let pressed = queued.pressed(Instant::now(), || 0, || true);
        assert!(tokio::time::timeout(10 * PRESSED_MAX, pressed).await.is_err());
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_on_at_a_megabyte_a_second_has_more_time() {
        let queued = Queued::new(MIB);
        let _held = queued.claim(Claimant::New, 3 * MIB).await;
        let mut waiting = Box::pin(queued.claim(Claimant::New, MIB));
        assert!((&mut waiting).now_or_never().is_none());
        let since = Instant::now();
        queued.pressed(since, || MIB, || true).await;
        assert!((since.elapsed().as_secs_f64() - 2.0).abs() < 0.1, "{:?}", since.elapsed());
        queued.pressed(since, || 100 * MIB, || true).await;
        assert!(since.elapsed() < PRESSED_MAX + PRESSED_INTERVAL, "{:?}", since.elapsed());
    }
}

//! Turns of the connections that one listener accepted: what one does before the others go on.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::counted::Counted;
use crate::mutant::Mutant;

/// So many frames are taken in a turn, and so many bytes of frames: a batch of thousands of records is one frame.
pub(super) const TURN_FRAMES: usize = 64;
pub(super) const TURN_BYTES: usize = 64 << 10;
/// About so much is taken of all connections, while they have more than one turn of frames, before each had one: it is what
/// a new request waits for, and what elections and heartbeats wait for.
const ROUND_TURNS: usize = 4;

/// How many connections have more to do than a turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    busy: AtomicUsize,
}

impl Turns {
    /// Frames and bytes of one turn: fewer if many connections are busy. One frame is always taken.
    pub(super) fn length(&self) -> (usize, usize) {
        let busy = self.busy.load(Ordering::Relaxed);
        if busy <= ROUND_TURNS || Mutant::TurnsOfOneLength.is_active() {
            return (TURN_FRAMES, TURN_BYTES);
        }
        let share = |turn: usize| (turn * ROUND_TURNS / busy).max(1);
        (share(TURN_FRAMES), share(TURN_BYTES))
    }

    /// Ends a turn: the others go on first, also those that the system has something for.
    pub(super) async fn end(&self) {
        let _busy = Counted::new(&self.busy);
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn many_busy_connections_have_short_turns_and_few_have_long_ones() {
        let turns = Turns::default();
        assert_eq!(turns.length(), (TURN_FRAMES, TURN_BYTES));
        let mut waiting: Vec<_> = (0..1000).map(|_| Box::pin(turns.end())).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let (frames, bytes) = turns.length();
        assert_eq!(frames, 1);
        assert!(1000 * bytes <= ROUND_TURNS * TURN_BYTES);
        waiting.truncate(3);
        assert_eq!(turns.length(), (TURN_FRAMES, TURN_BYTES), "the others have ended");
    }
}

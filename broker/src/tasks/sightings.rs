//! When messages of a queue were seen to arrive, by elapsed time.
//!
//! A delayed message has the time of day of its arrival, which is exact and survives restarts, but clocks jump. What this
//! node has seen itself limits the effect of a clock: a message that has been in its queue for the whole delay is due, and
//! one that this node saw arrive is not due earlier.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::mutant::Mutant;

/// Part of the delay by which a sighting may be wrong.
const GRAIN: u32 = 256;
/// Sightings that are kept: those of four delays.
const KEPT_MAX: usize = 4 * GRAIN as usize;

/// Messages that were first seen together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sighting {
    /// One past the last of them.
    end: u64,
    /// None of them was there yet, unless this node did not lead: then they may have come to the leader earlier.
    absent_at: Instant,
    leads: bool,
    /// All of them were there.
    present_at: Instant,
}

/// What was seen of one queue. Empty when a node starts: what is there then may have come at any time before.
#[derive(Debug)]
pub(crate) struct Sightings {
    delay: Duration,
    seen: VecDeque<Sighting>,
    /// Nothing that is not noted was there at this time; none while this node does not lead.
    looked_at: Option<Instant>,
    /// The number of the state that has the queue.
    state: u64,
}

impl Sightings {
    /// For a queue whose messages are due after `delay`.
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay, seen: VecDeque::new(), looked_at: None, state: 0 }
    }

    /// The queue is that of the state with this number. In another one others may have the places of those that were seen.
    pub(crate) fn follow(&mut self, state: u64) {
        if self.state != state {
            *self = Self { state, ..Self::new(self.delay) };
        }
    }

    /// Nothing has come since the last look. To be called when a wait for messages ends, before the next look.
    pub(crate) fn nothing_until(&mut self, now: Instant) {
        self.looked_at = self.looked_at.map(|looked_at| looked_at.max(now));
    }

    /// The queue ends here now. `leads` says that this node leads, and `unchanged` that it has since the last look: then
    /// what is new came since that.
    pub(crate) fn note(&mut self, end: u64, leads: bool, unchanged: bool, now: Instant) {
        let since = self.looked_at.take().filter(|_| leads && unchanged);
        self.looked_at = leads.then_some(now);
        if self.seen.back().is_some_and(|last| last.end >= end) {
            return;
        }
        let (absent_at, leads) = (since.unwrap_or(now), since.is_some());
        let grain = self.delay / GRAIN;
        match self.seen.back_mut() {
            Some(last) if last.leads == leads && now.duration_since(last.absent_at) < grain => {
                (last.end, last.present_at) = (end, now);
            }
            _ => self.seen.push_back(Sighting { end, absent_at, leads, present_at: now }),
        }
        if self.seen.len() > KEPT_MAX {
            self.seen.pop_front();
        }
    }

    /// Forgets messages below `begin`.
    pub(crate) fn forget(&mut self, begin: u64) {
        while self.seen.front().is_some_and(|first| first.end <= begin) && self.seen.len() > 1 {
            self.seen.pop_front();
        }
    }

    /// When the message at `offset` is due. `left_ms` is what the wall clock leaves of its delay, which may be less than
    /// nothing. With a right clock that is the answer; with any other it is kept to what was seen.
    pub(crate) fn due(&self, offset: u64, left_ms: i64, now: Instant) -> Instant {
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let by_clock = now + left.min(self.delay);
        let at = self.seen.partition_point(|sighting| sighting.end <= offset);
        let Some(sighting) = self.seen.get(at) else { return by_clock };
        if Mutant::SightingsIgnored.is_active() {
            return by_clock;
        }
        let due = by_clock.min(sighting.present_at + self.delay);
        if sighting.leads { due.max(sighting.absent_at + self.delay) } else { due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(256);
    const HOUR: i64 = 3_600_000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What a right clock leaves after `passed`.
    fn left(passed: u64) -> i64 {
        256_000 - 1_000 * passed as i64
    }

    #[test]
    fn a_leader_that_saw_a_message_come_delivers_it_on_time_wherever_its_clock_jumps() {
        let start = Instant::now();
        let mut seen = Sightings::new(DELAY);
        seen.note(0, true, true, start);
        seen.nothing_until(start + seconds(9));
        seen.note(1, true, true, start + seconds(10));
        for passed in [0, 100, 255] {
            let now = start + seconds(10 + passed);
            assert_eq!(seen.due(0, left(passed), now), start + seconds(266), "right");
            assert_eq!(seen.due(0, left(passed) + HOUR, now), start + seconds(266), "back");
            assert_eq!(seen.due(0, left(passed) - HOUR, now), start + seconds(265), "ahead");
            assert_eq!(seen.due(0, i64::MIN, now), start + seconds(265));
            assert_eq!(seen.due(0, i64::MAX, now), start + seconds(266));
        }
    }

    #[test]
    fn a_follower_knows_by_when_a_message_had_come_but_not_since_when() {
        let start = Instant::now();
        let mut seen = Sightings::new(DELAY);
        seen.note(5, false, true, start);
        let now = start + seconds(56);
        assert_eq!(seen.due(4, HOUR, now), start + DELAY, "it has been here for so long");
        assert_eq!(seen.due(4, 20_000, now), now + seconds(20), "it may have come before");
        assert_eq!(seen.due(4, -1, now), now);
        // What comes next comes to the leader that it has become, but the first look shows what came before.
        seen.note(6, true, true, now);
        assert_eq!(seen.due(5, -1, now), now);
        seen.note(7, true, true, now + seconds(2));
        assert_eq!(seen.due(6, -1, now + seconds(2)), now + DELAY);
    }

    #[test]
    fn a_message_in_the_place_of_one_that_was_lost_waits_for_its_own_delay() {
        let start = Instant::now();
        let mut seen = Sightings::new(DELAY);
        seen.note(5, false, true, start);
        let now = start + DELAY;
        seen.follow(1);
        seen.note(5, true, true, now);
        assert_eq!(seen.due(4, left(0), now), now + DELAY, "it has just come");
        seen.follow(1);
        assert_eq!(seen.due(4, HOUR, now + seconds(6)), now + DELAY, "it is the same one");
    }

    #[test]
    fn a_message_that_nobody_saw_waits_for_its_delay_at_most() {
        let now = Instant::now();
        let seen = Sightings::new(DELAY);
        assert_eq!(seen.due(0, HOUR, now), now + DELAY);
        assert_eq!(seen.due(0, 5, now), now + Duration::from_millis(5));
    }

    #[test]
    fn many_messages_take_bounded_memory_and_are_known_to_a_grain_of_the_delay() {
        let start = Instant::now();
        let mut seen = Sightings::new(DELAY);
        seen.note(0, true, true, start);
        for n in 1..=200_000 {
            seen.note(n, true, true, start + Duration::from_millis(n * 10));
            if n % 100 == 0 {
                let at = start + Duration::from_millis((n - 50) * 10);
                let now = start + Duration::from_millis(n * 10);
                for jump in [-HOUR, HOUR] {
                    let due = seen.due(n - 50, left(0) + jump, now);
                    let off = (due - DELAY).max(at) - (due - DELAY).min(at);
                    assert!(off <= seconds(1), "{n}: {off:?}");
                }
            }
        }
        assert!(seen.seen.len() <= KEPT_MAX, "{}", seen.seen.len());
        seen.forget(200_000);
        assert_eq!(seen.seen.len(), 1);
    }
}

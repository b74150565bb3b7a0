//! The clock that stamps segments and measures their ages.
//!
//! With the wall clock, one jump ahead would make all segments old at once, and retention by age would delete them before
//! anybody can set the clock right. So stamps and ages use a clock that runs as time elapses, whatever the wall clock does
//! meanwhile. Only while the node is off does the wall clock count: it is saved beside this clock ([`ClockFile`]), and the next
//! run makes up for the difference. A wall clock that was set while the node was off looks the same, so the clock makes up at
//! twice its pace and for no more than `retention.age_max`: no segment is deleted before half its age has elapsed.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clock_file::{ClockFile, Saved};
use crate::config::Config;
use crate::log::DataDir;
use crate::mutant::Mutant;
use crate::seam::{Clock, Disk};

/// Pace, in elapsed time, while it makes up for time that the node was off.
const PACE_MAX: u64 = 2;
/// A wall clock that moves this much more or less than the time that elapsed has jumped.
const JUMP: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Shown {
    micros: u64,
    /// What it has yet to make up for.
    owed_micros: u64,
    /// When it was looked at last, and what the wall clock showed then.
    at: Instant,
    wall_micros: u64,
    /// A jump that was not reported yet.
    jump: Option<Jump>,
}

/// See above.
#[derive(Debug)]
pub(super) struct LogClock(Mutex<Shown>);

/// A jump of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Jump {
    /// How far, ahead or back.
    pub(super) seconds: i64,
}

impl LogClock {
    /// The clock of a node that opens. Only retention by age needs one that outlasts a restart.
    pub(super) fn open(disk: &dyn Disk, wall_ms: u64, config: &Config, dir: &DataDir) -> Self {
        let Some(age_max) = config.retention.age_max else { return Self::new(wall_ms) };
        match ClockFile::new(&config.data_dir).read(disk) {
            Some(saved) => Self::resume(saved, wall_ms, age_max),
            // The wall clock may be wrong, and what is stamped already must not be old all at once.
            None => Self::new(dir.newest_stamp_ms().map_or(wall_ms, |newest| newest.min(wall_ms))),
        }
        .with_wall(wall_ms)
    }

    /// A new one, which shows this time.
    pub(super) fn new(ms: u64) -> Self {
        let micros = micros(ms);
        let shown =
            Shown { micros, owed_micros: 0, at: Instant::now(), wall_micros: micros, jump: None };
        Self(Mutex::new(shown))
    }

    /// Goes on from what it showed when it was saved last, and makes up for the time since.
    pub(super) fn resume(saved: Saved, wall_ms: u64, owed_max: Duration) -> Self {
        // A file of an older build does not say when it was saved.
        let off_ms = saved.wall_ms.map_or(0, |then| i128::from(wall_ms) - i128::from(then));
        let owed_ms = (off_ms + i128::from(saved.owed_ms)).clamp(0, i128::from(u64::MAX));
        let owed_ms = u64::try_from(owed_ms).expect("it was clamped");
        let clock = Self::new(saved.shown_ms).with_wall(wall_ms);
        clock.shown().owed_micros = micros(owed_ms).min(as_micros(owed_max));
        clock
    }

    fn with_wall(self, wall_ms: u64) -> Self {
        self.shown().wall_micros = micros(wall_ms);
        self
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it shows now, in milliseconds.
    pub(super) fn now_ms(&self, wall_ms: u64) -> u64 {
        self.look(wall_ms).micros / 1_000
    }

    /// What a later run needs to go on from here.
    pub(super) fn to_save(&self, wall_ms: u64) -> Saved {
        let Shown { micros, owed_micros, .. } = self.look(wall_ms);
        let (shown_ms, owed_ms) = (micros / 1_000, owed_micros / 1_000);
        Saved { shown_ms, wall_ms: Some(wall_ms), owed_ms }
    }

    fn look(&self, wall_ms: u64) -> Shown {
        let mut shown = self.shown();
        let now = Instant::now();
        let elapsed = as_micros(now.saturating_duration_since(shown.at));
        let wall = micros(wall_ms);
        let off = i128::from(wall) - i128::from(shown.wall_micros) - i128::from(elapsed);
        if off.unsigned_abs() >= JUMP.as_micros() {
            let seconds = i64::try_from(off / 1_000_000).unwrap_or(i64::MAX);
            shown.jump = Some(Jump { seconds });
        }
        let behind = wall.saturating_sub(shown.micros.saturating_add(elapsed));
        let owed = match Mutant::JumpsMadeUpFor.is_active() {
            true => behind,
            false => shown.owed_micros,
        };
        let extra = match Mutant::AgesByWallClock.is_active() {
            true => behind,
            false => owed.min(elapsed.saturating_mul(PACE_MAX - 1)),
        };
        shown.owed_micros = shown.owed_micros.saturating_sub(extra);
        shown.micros = shown.micros.saturating_add(elapsed).saturating_add(extra);
        (shown.at, shown.wall_micros) = (now.max(shown.at), wall);
        *shown
    }

    /// Moves it up to a time that it has shown before.
    pub(super) fn raise(&self, ms: u64) {
        let mut shown = self.shown();
        let by = micros(ms).saturating_sub(shown.micros);
        shown.micros += by;
        shown.owed_micros = shown.owed_micros.saturating_sub(by);
    }

    /// The last jump of the wall clock, once.
    pub(super) fn take_jump(&self) -> Option<Jump> {
        self.shown().jump.take()
    }
}

fn micros(ms: u64) -> u64 {
    ms.saturating_mul(1_000)
}

fn as_micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// What logs take for the time of day.
#[derive(Debug)]
pub(super) struct LogTime {
    pub(super) clock: Arc<LogClock>,
    pub(super) wall: Arc<dyn Clock>,
}

impl Clock for LogTime {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms(self.wall.now_ms())
    }

    fn random(&self) -> io::Result<u128> {
        self.wall.random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const START: u64 = 1_700_000_000_000;
    const MONTH: Duration = Duration::from_secs(30 * 86_400);

    fn saved(shown_ms: u64, wall_ms: u64) -> Saved {
        Saved { shown_ms, wall_ms: Some(wall_ms), owed_ms: 0 }
    }

    async fn pass(milliseconds: u64) {
        tokio::time::advance(Duration::from_millis(milliseconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_shows_what_a_right_wall_clock_shows() {
        let clock = LogClock::new(START);
        for n in 1..100 {
            pass(37).await;
            assert_eq!(clock.now_ms(START + n * 37), START + n * 37);
        }
        assert_eq!(clock.take_jump(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_node_runs_it_goes_on_as_time_elapses_however_the_wall_clock_jumps() {
        let clock = LogClock::new(START);
        pass(1_000).await;
        assert_eq!(clock.now_ms(START + 1_000 + HOUR_MS), START + 1_000);
        assert_eq!(clock.take_jump(), Some(Jump { seconds: 3_600 }));
        pass(60_000).await;
        assert_eq!(clock.now_ms(START + 61_000 + HOUR_MS), START + 61_000);
        assert_eq!(clock.take_jump(), None, "it was told");
        pass(1_000).await;
        assert_eq!(clock.now_ms(0), START + 62_000);
        assert!(clock.take_jump().is_some_and(|jump| jump.seconds < 0));
        pass(2 * HOUR_MS).await;
        assert_eq!(clock.now_ms(START + 62_000 + 3 * HOUR_MS), START + 62_000 + 2 * HOUR_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_start_with_a_clock_that_is_decades_behind_makes_no_age_run_faster() {
        let clock = LogClock::new(0);
        pass(1_000).await;
        assert_eq!(clock.now_ms(START), 1_000, "somebody has set the wall clock right");
        pass(HOUR_MS).await;
        assert_eq!(clock.now_ms(START + HOUR_MS), 1_000 + HOUR_MS);
        let saved = clock.to_save(START + HOUR_MS);
        let clock = LogClock::resume(saved, START + 2 * HOUR_MS, MONTH);
        pass(5 * HOUR_MS).await;
        assert_eq!(
            clock.now_ms(START + 7 * HOUR_MS),
            1_000 + 7 * HOUR_MS,
            "an hour off, made up for"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_it_makes_up_for_the_time_that_the_node_was_off_at_twice_the_pace() {
        let clock = LogClock::resume(saved(START, START), START + HOUR_MS, MONTH);
        assert_eq!(clock.now_ms(START + HOUR_MS), START);
        pass(HOUR_MS / 4).await;
        assert_eq!(clock.now_ms(START + HOUR_MS * 5 / 4), START + HOUR_MS / 2);
        assert_eq!(clock.take_jump(), None, "nobody can tell that it was one");
        // Another restart, and it goes on with what is left.
        let left = clock.to_save(START + HOUR_MS * 5 / 4);
        let clock = LogClock::resume(left, START + HOUR_MS * 5 / 4, MONTH);
        pass(HOUR_MS).await;
        assert_eq!(clock.now_ms(START + HOUR_MS * 9 / 4), START + HOUR_MS * 9 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn it_makes_up_for_no_more_than_the_age_that_segments_may_reach() {
        let age = Duration::from_secs(60);
        let clock = LogClock::resume(saved(START, START), START + 1_000 * HOUR_MS, age);
        pass(HOUR_MS).await;
        assert_eq!(clock.now_ms(START + 1_001 * HOUR_MS), START + HOUR_MS + 60_000);
        let behind = LogClock::resume(saved(START, START), 0, age);
        pass(HOUR_MS).await;
        assert_eq!(behind.now_ms(HOUR_MS), START + HOUR_MS, "it was set back while it was off");
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_is_raised_by_it_need_not_make_up_for() {
        let clock = LogClock::resume(saved(START, START), START + 10_000, MONTH);
        clock.raise(START + 8_000);
        pass(5_000).await;
        assert_eq!(clock.now_ms(START + 15_000), START + 15_000);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_file_that_does_not_say_when_it_was_saved_it_makes_up_for_nothing() {
        let of_older_build = Saved { shown_ms: 7_000, wall_ms: None, owed_ms: 0 };
        let clock = LogClock::resume(of_older_build, START, MONTH);
        pass(HOUR_MS).await;
        assert_eq!(clock.now_ms(START + HOUR_MS), 7_000 + HOUR_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn times_without_sense_break_nothing() {
        let most = u64::MAX;
        let senseless = Saved { shown_ms: most, wall_ms: Some(0), owed_ms: most };
        let clock = LogClock::resume(senseless, most, Duration::MAX);
        pass(1).await;
        assert_eq!(clock.now_ms(0), most / 1_000);
        assert_eq!(clock.now_ms(most), most / 1_000);
        clock.raise(most);
    }
}

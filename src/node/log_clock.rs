//! The clock that stamps segments and measures their ages.
//!
//! With the wall clock, one jump ahead would make all segments old at once, and retention by age would delete them before
//! anybody can set the clock right. So stamps and ages use a clock that runs as time elapses. It falls behind the wall clock
//! while the node is off, and when the wall clock jumps ahead: the node cannot tell these apart. It catches up at twice its
//! pace, so no segment is deleted before half its age has elapsed, and a wrong clock speeds retention up by no more than the
//! time for which it stays wrong. It is ahead of the wall clock after that was set back, and does not wait for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::error::StorageError;
use crate::format::envelope::Envelope;
use crate::mutant::Mutant;
use crate::segment::{Access, DirEntry, Disk, DiskFile, DiskLock, LockMode, atomic_file};

/// Pace, in elapsed time, while the wall clock is ahead.
const PACE_MAX: u64 = 2;
/// A wall clock that moves this much more or less than the time that elapsed has jumped.
const JUMP: Duration = Duration::from_secs(10);
const FILE_NAME: &str = "CLOCK";
const FILE_LEN_MAX: u64 = 1 << 10;
/// In the file: u64 milliseconds, little-endian.
const ENVELOPE: Envelope = Envelope { what: "clock", magic: *b"QLCK", version: 1 };

#[derive(Debug, Clone, Copy)]
struct Shown {
    micros: u64,
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
    pub(super) fn open(disk: &dyn Disk, config: &Config) -> Self {
        let saved_ms = match config.retention.age_max {
            Some(_) => ClockFile::new(&config.data_dir).read(disk),
            None => None,
        };
        Self::new(saved_ms, disk.now_ms())
    }

    /// Goes on from what it showed when it was saved last; a new one begins with the wall clock.
    pub(super) fn new(saved_ms: Option<u64>, wall_ms: u64) -> Self {
        let micros = |ms: u64| ms.saturating_mul(1_000);
        let (shown, wall_micros) = (micros(saved_ms.unwrap_or(wall_ms)), micros(wall_ms));
        Self(Mutex::new(Shown { micros: shown, at: Instant::now(), wall_micros, jump: None }))
    }

    /// What it shows now, in milliseconds.
    pub(super) fn now_ms(&self, wall_ms: u64) -> u64 {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(shown.at);
        let elapsed_micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let wall = wall_ms.saturating_mul(1_000);
        let off = i128::from(wall) - i128::from(shown.wall_micros) - i128::from(elapsed_micros);
        if off.unsigned_abs() >= JUMP.as_micros() {
            let seconds = i64::try_from(off / 1_000_000).unwrap_or(i64::MAX);
            shown.jump = Some(Jump { seconds });
        }
        let behind = wall.saturating_sub(shown.micros.saturating_add(elapsed_micros));
        let extra = match Mutant::AgesByWallClock.is_active() {
            true => behind,
            false => behind.min(elapsed_micros.saturating_mul(PACE_MAX - 1)),
        };
        let micros = shown.micros.saturating_add(elapsed_micros).saturating_add(extra);
        (shown.micros, shown.at, shown.wall_micros) = (micros, now.max(shown.at), wall);
        micros / 1_000
    }

    /// Moves it up to a time that it has shown before.
    pub(super) fn raise(&self, ms: u64) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.micros = shown.micros.max(ms.saturating_mul(1_000));
    }

    /// The last jump of the wall clock, once.
    pub(super) fn take_jump(&self) -> Option<Jump> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).jump.take()
    }
}

/// The file that the clock is saved in.
#[derive(Debug)]
pub(super) struct ClockFile(PathBuf);

impl ClockFile {
    /// In a node's data directory.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE_NAME))
    }

    /// What was saved. None if nothing was, or it cannot be read: then the wall clock is believed once.
    pub(super) fn read(&self, disk: &dyn Disk) -> Option<u64> {
        let bytes = match atomic_file::read(disk, &self.0, FILE_LEN_MAX) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(%error, "the time of the last run is not known");
                return None;
            }
        };
        match ENVELOPE.open(&bytes).map(<[u8; 8]>::try_from) {
            Ok(Ok(body)) => Some(u64::from_le_bytes(body)),
            damaged => {
                tracing::warn!(?damaged, "the time of the last run is not known");
                None
            }
        }
    }

    /// Saves what the clock shows. Durable on return.
    ///
    /// # Errors
    /// The disk's; the old file may be there still.
    pub(super) fn save(&self, disk: &dyn Disk, ms: u64) -> Result<(), StorageError> {
        let bytes = ENVELOPE.seal(&ms.to_le_bytes());
        Ok(atomic_file::replace(disk, &self.0, &[bytes.as_slice()])?)
    }
}

/// The node's disk, with the logs' clock.
#[derive(Debug)]
pub(super) struct ClockedDisk {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<LogClock>,
}

impl Disk for ClockedDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn unlink_later(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink_later(path)
    }

    fn mkdir(&self, dir: &Path) -> io::Result<()> {
        self.disk.mkdir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.disk.lock(path, mode)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_space(path)
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms(self.disk.now_ms())
    }

    fn random(&self) -> io::Result<u128> {
        self.disk.random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const START: u64 = 1_700_000_000_000;

    async fn pass(milliseconds: u64) {
        tokio::time::advance(Duration::from_millis(milliseconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_shows_what_a_right_wall_clock_shows() {
        let clock = LogClock::new(None, START);
        for n in 1..100 {
            pass(37).await;
            assert_eq!(clock.now_ms(START + n * 37), START + n * 37);
        }
        assert_eq!(clock.take_jump(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_ahead_makes_it_go_twice_as_fast_until_the_clock_is_right_again() {
        let clock = LogClock::new(None, START);
        pass(1_000).await;
        assert_eq!(clock.now_ms(START + 1_000 + HOUR_MS), START + 2_000);
        assert_eq!(clock.take_jump(), Some(Jump { seconds: 3_600 }));
        pass(60_000).await;
        assert_eq!(clock.now_ms(START + 61_000 + HOUR_MS), START + 122_000);
        assert_eq!(clock.take_jump(), None, "it was told");
        pass(1_000).await;
        assert_eq!(clock.now_ms(START + 62_000), START + 123_000, "it never goes back");
        assert_eq!(clock.take_jump(), Some(Jump { seconds: -3_600 }));
        // A jump that is there to stay is made up for.
        pass(2 * HOUR_MS).await;
        assert_eq!(clock.now_ms(START + 62_000 + 3 * HOUR_MS), START + 62_000 + 3 * HOUR_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_as_time_elapses_while_the_wall_clock_is_behind() {
        let clock = LogClock::new(None, START);
        pass(5_000).await;
        assert_eq!(clock.now_ms(0), START + 5_000);
        pass(5_000).await;
        assert_eq!(clock.now_ms(5_000), START + 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_it_makes_up_for_the_time_that_the_node_was_off() {
        let clock = LogClock::new(Some(START), START + HOUR_MS);
        assert_eq!(clock.now_ms(START + HOUR_MS), START);
        pass(HOUR_MS / 2).await;
        assert_eq!(clock.now_ms(START + HOUR_MS + HOUR_MS / 2), START + HOUR_MS);
        assert_eq!(clock.take_jump(), None, "nobody can tell that it was one");
    }

    #[tokio::test(start_paused = true)]
    async fn times_without_sense_break_nothing() {
        let clock = LogClock::new(Some(u64::MAX), u64::MAX);
        pass(1).await;
        assert_eq!(clock.now_ms(0), u64::MAX / 1_000);
        assert_eq!(clock.now_ms(u64::MAX), u64::MAX / 1_000);
    }

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_as_if_nothing_was() {
        let disk = crate::segment::sim_disk::SimDisk::new();
        let shared = disk.shared();
        shared.mkdir(Path::new("/data")).expect("a new directory");
        let file = ClockFile::new(Path::new("/data"));
        assert_eq!(file.read(&*shared), None);
        file.save(&*shared, 7).expect("the disk takes it");
        assert_eq!(file.read(&*shared), Some(7));
        file.save(&*shared, 8).expect("the disk takes it");
        assert_eq!(file.read(&*shared), Some(8));
        disk.tamper(Path::new("/data/CLOCK"), |bytes| bytes[30] ^= 1);
        assert_eq!(file.read(&*shared), None);
    }
}

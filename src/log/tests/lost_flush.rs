//! A flush that fails drops what it was to write. That is no damage: the log had not vouched for it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::seam::Access;
use crate::seam::disk::sim::{CrashPolicy, Damage, Fault, OpKind, Ops, Rule, SimDisk, When};
use crate::segment::segment_path;

/// Counts how often it is told that the log may have lost something.
#[derive(Debug, Default)]
struct Told(AtomicU64);

impl WriterObserver for Told {
    fn flushed(&self, _: Duration, _: u64, _: u64) {}
    fn failed(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Told {
    fn times(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn dir() -> &'static Path {
    Path::new("/log")
}

/// A log that acknowledges before it flushes and reads everything from its files.
fn open(disk: &SimDisk, told: &Arc<Told>) -> Result<DrivenLog, StorageError> {
    let observer: Arc<dyn WriterObserver> = Arc::clone(told) as _;
    let (flush, observer) = (Flush::Async, Some(observer));
    let options = LogOptions { flush, observer, tail_cache_max: 0, ..options() };
    DrivenLog::open(disk.shared(), dir(), options)
}

/// A log of six records, of which three are flushed.
fn half_flushed(disk: &SimDisk, told: &Arc<Told>) -> DrivenLog {
    let mut driven = open(disk, told).expect("a new log");
    driven.append(records(1, 0..3, 50)).expect("space").expect("written");
    driven.pass(options().flush_interval);
    driven.append(records(1, 3..6, 50)).expect("space").expect("written");
    driven
}

/// The next flush of a segment fails, and drops what it was to write.
fn fail_flush(disk: &SimDisk) {
    let (ops, path, when) = (Ops::Kind(OpKind::Flush), ".seg".to_owned(), When::Nth(0));
    disk.inject(Rule { ops, path, when, fault: Fault::Eio });
}

/// Reads an entry that may be lost. What a reader and Raft note of its error is noted.
fn read(log: &Log, index: u64) -> Result<Vec<Entry>, StorageError> {
    log.read(index, index + 1, usize::MAX, true).inspect_err(|error| log.note_damage(error))
}

#[test]
fn what_a_failed_flush_drops_is_lost_and_not_damaged() {
    let (disk, told) = (SimDisk::new(), Arc::default());
    let mut driven = half_flushed(&disk, &told);
    fail_flush(&disk);
    driven.pass(options().flush_interval);
    let failure = driven.log.failure().expect("the background flush failed").to_string();
    let lost = read(&driven.log, 4).expect_err("its pages are gone");
    assert!(matches!(lost, StorageError::Poisoned { .. }), "{lost}");
    assert!(lost.to_string().contains(&failure), "{lost}");
    assert_eq!(read(&driven.log, 2).expect("it is flushed"), [record(1, 2, 50)]);
    assert_eq!(told.times(), 1, "it is in doubt already");
    drop(driven);
    let driven = open(&disk, &told).expect("nothing is damaged");
    assert_eq!(read_all(&driven.log), records(1, 0..3, 50), "the log is cut to what it flushed");
}

#[test]
fn what_was_flushed_is_damaged_also_where_a_flush_failed_later() {
    let (disk, told) = (SimDisk::new(), Arc::default());
    let mut driven = half_flushed(&disk, &told);
    fail_flush(&disk);
    driven.pass(options().flush_interval);
    // In the payload of the second record.
    assert!(disk.damage(&segment_path(dir(), 1), &Damage::FlipBit(4300 * 8)));
    let damaged = read(&driven.log, 1).expect_err("its bytes are gone");
    assert!(matches!(damaged, StorageError::Corrupt { .. }), "{damaged}");
    drop(driven);
    let error = open(&disk, &told).err().expect("it is noted");
    assert!(error.to_string().contains("found by an earlier run"), "{error}");
}

/// The system may write a file back by itself, fail, and drop the pages: only the next flush tells.
#[test]
fn whoever_reads_that_pages_are_lost_before_a_flush_tells_stops_the_log() {
    let (disk, told) = (SimDisk::new(), Arc::default());
    let mut driven = half_flushed(&disk, &told);
    fail_flush(&disk);
    let file = disk.open(&segment_path(dir(), 1), Access::Write).expect("the segment");
    file.sync_data().expect_err("behind the back of the log");
    assert!(driven.log.failure().is_none());
    let lost = read(&driven.log, 3).expect_err("its pages are gone");
    assert!(matches!(lost, StorageError::Poisoned { .. }), "{lost}");
    assert_eq!(told.times(), 1, "before anybody hears of it");
    assert!(driven.log.failure().is_some());
    let before = disk.changes();
    let error = driven.append(records(1, 6..7, 50)).expect("called").expect_err("it has failed");
    assert!(matches!(*error, StorageError::Poisoned { .. }), "{error}");
    driven.pass(Duration::from_secs(1));
    driven.close().expect("called").expect_err("it has failed");
    assert_eq!(disk.changes(), before, "I10: what is left is not vouched for");
    assert_eq!(told.times(), 1);
    drop(driven);
    let driven = open(&disk, &told).expect("nothing is damaged");
    assert_eq!(read_all(&driven.log), records(1, 0..3, 50));
}

#[test]
fn a_log_is_in_doubt_if_a_start_fails_to_flush_what_the_last_run_had_acknowledged() {
    let (disk, told) = (SimDisk::new(), Arc::default());
    drop(half_flushed(&disk, &told));
    let disk = disk.crash(&CrashPolicy::KeepAll);
    fail_flush(&disk);
    open(&disk, &told).err().expect("it cannot be flushed");
    assert_eq!(told.times(), 1);
    let driven = open(&disk, &told).expect("the disk goes on");
    assert_eq!(read_all(&driven.log), records(1, 0..3, 50));
}

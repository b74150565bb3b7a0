//! Failing and full disks: nothing is acknowledged after a failed write or flush, and a full disk
//! only makes the log wait.

use std::sync::Mutex;

use super::driven::{self, Driven};
use super::*;
use crate::seam::disk::sim::{CrashPolicy, Fault, OpKind, Ops, Rule, SimDisk, When};

fn small() -> LogOptions {
    LogOptions { segment_size: 8 << 10, tail_cache_max: 1000, ..options() }
}

/// Appends, rolls, votes and truncates. Gives the entries acknowledged, and those that may be there.
fn work(driven: &mut Driven) -> (Vec<Entry>, Vec<Entry>) {
    let mut acknowledged: Vec<Entry> = Vec::new();
    for round in 0..12u64 {
        let first = acknowledged.len() as u64;
        let entries = records(round, first..first + 3, 600);
        let mut may = acknowledged.clone();
        may.extend(entries.iter().cloned());
        if !matches!(driven.append(entries), Some(Ok(()))) {
            return (acknowledged, may);
        }
        acknowledged = may;
        let log = driven.log.clone();
        let cut = acknowledged.len() - 2;
        let vote = Vote { term: round + 1, voted_for: replica(1), committed: false };
        let done = if round % 4 == 3 {
            let last = acknowledged[cut].id;
            driven.run(async move { log.truncate_after(Some(last)).await })
        } else {
            driven.run(async move { log.save_vote(vote).await })
        };
        if !matches!(done, Some(Ok(()))) {
            let may = acknowledged.clone();
            if round % 4 == 3 {
                acknowledged.truncate(cut + 1);
            }
            return (acknowledged, may);
        }
        if round % 4 == 3 {
            acknowledged.truncate(cut + 1);
        }
    }
    (acknowledged.clone(), acknowledged)
}

#[test]
fn after_any_failed_operation_nothing_is_acknowledged_that_a_crash_could_take() {
    let total = {
        let disk = SimDisk::new();
        work(&mut Driven::open(&disk, &small()).expect("open"));
        disk.changes()
    };
    assert!(total > 60, "{total}");
    let mut poisoned = 0;
    for fault in [Fault::Eio, Fault::NoSpace, Fault::TornFlush { seed: 1 }] {
        for at in 0..total {
            let disk = SimDisk::new();
            disk.fail_nth_change(at, fault);
            let Ok(mut driven) = Driven::open(&disk, &small()) else { continue };
            let (must, may) = work(&mut driven);
            if let Some(failure) = driven.log.failure() {
                poisoned += 1;
                let before = disk.changes();
                let error = driven.append(records(99, 900..901, 9)).expect("called");
                let error = error.expect_err("I10: nothing is acknowledged after a failure");
                assert!(matches!(*error, StorageError::Poisoned { .. }), "{error}");
                let log = driven.log.clone();
                let vote = Vote { term: 99, voted_for: replica(9), committed: false };
                let voted = driven.run(async move { log.save_vote(vote).await });
                assert!(voted.expect("called").is_err());
                assert_eq!(disk.changes(), before, "I10: written after {failure}");
            }
            let context = format!("{fault:?} at operation {at}");
            for keep in [CrashPolicy::LoseAll, CrashPolicy::KeepAll, CrashPolicy::Random(at)] {
                let crashed = disk.crash(&keep);
                let driven = Driven::open(&crashed, &small())
                    .unwrap_or_else(|error| panic!("{context}, {keep:?}: {error}"));
                let held = read_all(&driven.log);
                assert!(held == must || held == may, "{context}, {keep:?}: {held:?}");
            }
        }
    }
    assert!(poisoned > 30, "{poisoned}");
}

#[test]
fn a_failed_flush_fails_the_jobs_at_hand_with_its_cause_and_later_ones_as_poisoned() {
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &options()).expect("open");
    driven.append(records(1, 0..1, 9)).expect("called").expect("appended");
    // Next comes a write, then the flush.
    disk.fail_nth_change(1, Fault::Eio);
    let mut first = submit(&driven.log, records(1, 1..2, 9));
    let log = driven.log.clone();
    let mut cut = Box::pin(async move { log.truncate_after(Some(id(1, 0))).await });
    assert!(now_or_never(&mut cut).is_none(), "queued");
    driven.settle();
    let error = first.try_recv().expect("called").expect_err("failed");
    assert!(error.to_string().contains("flush"), "{error}");
    let error = now_or_never(cut).expect("called").expect_err("failed");
    assert!(error.to_string().contains("flush"), "{error}");
    let kept = driven.log.failure().expect("kept").to_string();
    assert_eq!(kept, format!("cannot flush {}/0000000000000001.seg", driven::DIR));
    let second = driven.append(records(1, 1..2, 9)).expect("called").expect_err("failed");
    assert!(matches!(*second, StorageError::Poisoned { .. }), "{second}");
    assert_eq!(read_all(&driven.log)[0], record(1, 0, 9), "reads go on");
}

#[test]
fn a_full_disk_stalls_the_log_and_it_goes_on_by_itself() {
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &small()).expect("open");
    driven.append(records(1, 0..3, 600)).expect("called").expect("appended");
    disk.set_space(Some(0));
    driven.append(records(1, 3..5, 600)).expect("called").expect("there is space ahead");
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 5..25 {
        let order = Arc::clone(&order);
        let done = move |result: Done| order.lock().expect("lock").push((index, result.is_ok()));
        driven.log.append(records(1, index..index + 1, 600), Box::new(done));
        driven.settle();
    }
    assert!(driven.log.stalled_for_space());
    assert!(driven.log.failure().is_none());
    let done = order.lock().expect("lock").len();
    assert!(done < 20, "{done}");
    assert_eq!(read_all(&driven.log), records(1, 0..25, 600), "reads go on");
    driven.pass(Duration::from_millis(200));
    assert_eq!(order.lock().expect("lock").len(), done, "still full");
    let next = {
        driven.log.wake();
        driven.settle()
    };
    assert!(next.is_some(), "it will try again by itself");

    disk.set_space(None);
    driven.pass(Duration::from_millis(200));
    assert!(!driven.log.stalled_for_space());
    let expected: Vec<_> = (5..25).map(|index| (index, true)).collect();
    assert_eq!(*order.lock().expect("lock"), expected, "I6");
    let driven = Driven::open(&disk.crash(&CrashPolicy::LoseAll), &small()).expect("open");
    assert_eq!(read_all(&driven.log), records(1, 0..25, 600));
}

#[test]
fn a_purge_frees_the_space_that_the_appends_before_it_wait_for() {
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &small()).expect("open");
    for index in 0..20 {
        let done = driven.append(records(1, index..index + 1, 1500));
        done.expect("called").expect("appended");
    }
    disk.set_space(Some(0));
    assert!(driven.append(records(1, 20..25, 1500)).is_none(), "stalled");
    assert!(driven.log.stalled_for_space());
    let log = driven.log.clone();
    let purged = driven.run(async move { log.purge(id(1, 9)).await });
    purged.expect("done").expect("purged");
    assert!(!driven.log.stalled_for_space(), "by itself");
    let driven = Driven::open(&disk.crash(&CrashPolicy::LoseAll), &small()).expect("open");
    assert_eq!(driven.log.read(10, 99, usize::MAX, true).expect("read"), records(1, 10..25, 1500));
}

#[test]
fn votes_go_on_while_the_disk_is_full_and_nothing_waits_before_them() {
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &small()).expect("open");
    driven.append(records(1, 0..3, 600)).expect("called").expect("appended");
    disk.set_space(Some(0));
    let log = driven.log.clone();
    let vote = Vote { term: 5, voted_for: replica(1), committed: false };
    driven.run(async move { log.save_vote(vote).await }).expect("done").expect("saved");
    let driven = Driven::open(&disk.crash(&CrashPolicy::LoseAll), &small()).expect("open");
    assert_eq!(driven.log.vote(), Some(vote));
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(u64, u64)>>);

impl WriterObserver for Seen {
    fn flushed(&self, _duration: Duration, entries: u64, bytes: u64) {
        self.0.lock().expect("lock").push((entries, bytes));
    }
}

#[test]
fn what_is_queued_together_is_written_and_flushed_together() {
    let seen = Arc::new(Seen::default());
    let observer: Arc<dyn WriterObserver> = Arc::clone(&seen) as _;
    let options = LogOptions { observer: Some(observer), ..options() };
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &options).expect("open");
    driven.settle();
    let before = disk.changes();
    let pending: Vec<_> =
        (0..100).map(|index| submit(&driven.log, records(1, index..index + 1, 52))).collect();
    driven.settle();
    assert_eq!(disk.changes() - before, 2, "one write, one flush");
    assert_eq!(*seen.0.lock().expect("lock"), [(100, 10_000)]);
    for mut done in pending {
        done.try_recv().expect("called").expect("appended");
    }
    let counts = driven.log.counts();
    assert_eq!((counts.groups, counts.entries, counts.flushes), (1, 100, 1));
    driven.pass(Duration::from_millis(20));
    assert_eq!(disk.changes() - before, 3, "then a marker, once");
    driven.pass(Duration::from_secs(60));
    assert_eq!(disk.changes() - before, 3);
}

#[test]
fn a_commit_that_readers_cannot_be_shown_is_an_error() {
    let disk = SimDisk::new();
    let options = LogOptions { tail_cache_max: 0, ..options() };
    let mut driven = Driven::open(&disk, &options).expect("open");
    driven.append(records(1, 0..3, 50)).expect("called").expect("appended");
    let (ops, path, when) = (Ops::Kind(OpKind::Read), String::new(), When::Nth(0));
    disk.inject(Rule { ops, path, when, fault: Fault::Eio });
    driven.log.set_committed(id(1, 1)).expect_err("who waits for it must not be told");
    assert_eq!(driven.log.watermarks().committed, 0);
    driven.log.set_committed(id(1, 2)).expect("readable");
    assert_eq!(driven.log.watermarks().committed, 3);
}

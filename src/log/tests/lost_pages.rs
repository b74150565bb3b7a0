//! What a start makes of a log that may have lost its tail, and how that is noticed.

use std::collections::BTreeMap;

use super::*;
use crate::format::committed::Committed;
use crate::log::DataDir;
use crate::log::files::vote_file::VoteFile;
use crate::log::offline::accept_loss;
use crate::seam::Access;
use crate::seam::disk::sim::{CrashPolicy, Fault, SimDisk};

const DATA: &str = "/data";
const ORDERS: LogId = LogId(5);

/// A data directory with the system log and another, in use.
fn directory(disk: &SimDisk, flush: Flush) -> DataDir {
    let dir = DataDir::open(disk.shared(), disk, Path::new(DATA), 1).expect("a data directory");
    dir.begin_run(flush).expect("a healthy disk");
    for log in [LogId::SYSTEM, ORDERS] {
        let options = LogOptions { log_id: log, flush, ..options() };
        let made = DrivenLog::open(disk.shared(), &dir.log_dir(log), options).expect("a log");
        drop(made);
        dir.add_log(log).expect("a healthy disk");
    }
    dir
}

fn suspects(dir: &DataDir) -> [bool; 2] {
    [LogId::SYSTEM, ORDERS].map(|log| dir.is_suspect(log))
}

fn trust(dir: &DataDir) {
    assert!(dir.trust(ORDERS, dir.suspicion(ORDERS)).expect("a healthy disk"));
}

const NONE: [bool; 2] = [false, false];
/// All but the system log, which always flushes.
const ORDERS_ONLY: [bool; 2] = [false, true];

#[test]
fn a_log_that_fails_while_it_is_found_to_be_whole_stays_suspect() {
    let disk = SimDisk::new();
    let dir = directory(&disk, Flush::Async);
    dir.suspect(ORDERS).expect("a healthy disk");
    let as_of = dir.suspicion(ORDERS);
    // A write fails between the look and the note.
    dir.suspect(ORDERS).expect("a healthy disk");
    assert!(!dir.trust(ORDERS, as_of).expect("a healthy disk"), "it lost something else since");
    assert_eq!(suspects(&dir), ORDERS_ONLY);
    trust(&dir);
    assert_eq!(suspects(&dir), NONE);
}

#[test]
fn a_power_cut_makes_logs_suspect_that_acknowledge_before_they_flush_and_nothing_else_does() {
    use Flush::{Async, Sync};
    let (cut, death) = (CrashPolicy::LoseAll, CrashPolicy::KeepAll);
    for (before, crash, after, expected) in [
        (Async, &cut, Async, ORDERS_ONLY),
        (Async, &cut, Sync, ORDERS_ONLY),
        (Async, &death, Async, NONE),
        (Sync, &cut, Sync, NONE),
        (Sync, &cut, Async, NONE),
    ] {
        let disk = SimDisk::new();
        drop(directory(&disk, before));
        let disk = disk.crash(crash);
        let dir = directory(&disk, after);
        assert_eq!(suspects(&dir), expected, "{before:?}, {crash:?}, {after:?}");
        // Further starts change nothing about it, until the log is trusted.
        drop(dir);
        let disk = disk.crash(&CrashPolicy::KeepAll);
        let dir = directory(&disk, after);
        assert_eq!(suspects(&dir), expected, "{before:?}, {crash:?}, {after:?}, started again");
        trust(&dir);
        drop(dir);
        let disk = disk.crash(&CrashPolicy::KeepAll);
        assert_eq!(suspects(&directory(&disk, after)), NONE);
    }
}

#[test]
fn a_run_that_ended_well_leaves_nothing_in_doubt_whatever_happens_then() {
    let disk = SimDisk::new();
    directory(&disk, Flush::Async).end_run().expect("a healthy disk");
    let disk = disk.crash(&CrashPolicy::LoseAll);
    assert_eq!(suspects(&directory(&disk, Flush::Async)), NONE);
}

#[test]
fn what_a_run_left_in_the_page_cache_is_in_doubt_until_its_log_was_opened() {
    let disk = SimDisk::new();
    drop(directory(&disk, Flush::Async));
    let disk = disk.crash(&CrashPolicy::KeepAll);
    // A run that flushes, and that could not open the log.
    let dir = DataDir::open(disk.shared(), &disk, Path::new(DATA), 1).expect("a data directory");
    dir.begin_run(Flush::Sync).expect("a healthy disk");
    dir.add_log(LogId::SYSTEM).expect("a healthy disk");
    dir.flushes_always().expect("a healthy disk");
    dir.end_run().expect("a healthy disk");
    drop(dir);
    let disk = disk.crash(&CrashPolicy::LoseAll);
    let dir = directory(&disk, Flush::Sync);
    assert_eq!(suspects(&dir), ORDERS_ONLY);
    let unflushed = [LogId::SYSTEM, ORDERS].map(|log| dir.acknowledges_unflushed(log));
    assert_eq!(unflushed, ORDERS_ONLY, "if it fails to be opened, it may have lost something");
    // This one has opened all.
    trust(&dir);
    dir.flushes_always().expect("a healthy disk");
    assert!(!dir.acknowledges_unflushed(ORDERS));
    drop(dir);
    let disk = disk.crash(&CrashPolicy::LoseAll);
    assert_eq!(suspects(&directory(&disk, Flush::Sync)), NONE);
}

#[test]
fn an_operator_may_accept_the_loss_before_or_after_the_next_start() {
    let accept = |disk: &SimDisk| accept_loss::accept_loss(disk, disk, Path::new(DATA));
    for started in [false, true] {
        let disk = SimDisk::new();
        drop(directory(&disk, Flush::Async));
        let mut disk = disk.crash(&CrashPolicy::LoseAll);
        if started {
            let dir = directory(&disk, Flush::Async);
            accept(&disk).expect_err("it is in use");
            drop(dir);
            disk = disk.crash(&CrashPolicy::KeepAll);
        }
        let accepted = accept(&disk).expect("a healthy disk");
        assert_eq!((accepted.logs, accepted.outdated), (vec![ORDERS], false), "started: {started}");
        assert_eq!(accept(&disk).expect("a healthy disk").logs, []);
        assert_eq!(suspects(&directory(&disk, Flush::Async)), NONE);
    }
}

#[test]
fn a_removed_log_is_no_longer_in_doubt() {
    let disk = SimDisk::new();
    drop(directory(&disk, Flush::Async));
    let disk = disk.crash(&CrashPolicy::LoseAll);
    let dir = directory(&disk, Flush::Async);
    dir.remove_log(ORDERS).expect("a healthy disk");
    assert_eq!(suspects(&dir), NONE);
}

/// A log of two terms whose vote names `committed`, opened again.
fn reopened(committed: Committed, suspect: bool) -> Option<EntryId> {
    reopened_with(committed, 0, suspect).committed()
}

/// The same, where a majority has flushed what lies below `stable`, and there are checkpoints as of entries of either term.
fn reopened_with(committed: Committed, stable: u64, suspect: bool) -> Log {
    let disk = SimDisk::new();
    let dir = Path::new("/log");
    let mut driven = DrivenLog::open(disk.shared(), dir, options()).expect("open");
    let entries = [records(1, 0..3, 50), records(2, 3..6, 50)].concat();
    driven.append(entries).expect("space").expect("appended");
    for at in [id(1, 1), id(1, 3), id(2, 4)] {
        driven.log.save_state(at, b"state").expect("a healthy disk");
    }
    driven.close().expect("space").expect("closed");
    drop(driven);
    let mut vote = VoteFile::open(&disk, dir, 7, Access::Write).expect("the vote");
    let voted = Vote { term: 2, voted_for: replica(1), committed: true };
    vote.save(voted, committed, stable).expect("a healthy disk");
    drop(vote);
    let options = LogOptions { at_stable: suspect, ..options() };
    DrivenLog::open(disk.shared(), dir, options).expect("open").log.clone()
}

#[test]
fn of_a_log_that_may_have_lost_something_what_is_stable_counts_as_committed() {
    let committed = Committed::Entry(id(2, 4));
    assert_eq!(reopened_with(committed, 3, false).committed(), Some(id(2, 4)), "nothing is lost");
    assert_eq!(reopened_with(committed, 3, true).committed(), Some(id(1, 2)));
    assert_eq!(reopened_with(committed, 9, true).committed(), Some(id(2, 5)), "up to the tail");
    assert_eq!(reopened_with(committed, 0, true).committed(), None);
}

#[test]
fn checkpoints_are_believed_only_if_the_log_holds_the_very_entry_and_may_not_lose_it() {
    let committed = Committed::Entry(id(2, 5));
    let checkpoints = |suspect| reopened_with(committed, 3, suspect).checkpoints();
    assert_eq!(checkpoints(false), [id(1, 1), id(2, 4)], "another entry lies at 3");
    assert_eq!(checkpoints(true), [id(1, 1)], "what is not stable may be replaced");
}

#[test]
fn checkpoints_go_with_the_entries_that_they_are_made_of() {
    let disk = SimDisk::new();
    let mut driven = DrivenLog::open(disk.shared(), Path::new("/log"), options()).expect("open");
    driven.append(records(1, 0..6, 50)).expect("space").expect("appended");
    for index in [1, 4] {
        driven.log.save_state(id(1, index), b"state").expect("a healthy disk");
    }
    let log = driven.log.clone();
    let truncating = async { log.truncate_after(Some(id(1, 3))).await };
    driven.run(truncating).expect("space").expect("a healthy disk");
    assert_eq!(log.checkpoints(), [id(1, 1)]);
    log.open_checkpoint(id(1, 4)).expect_err("it is gone");
}

#[test]
fn a_committed_entry_is_believed_only_if_the_log_holds_that_very_entry() {
    assert_eq!(reopened(Committed::Entry(id(2, 4)), false), Some(id(2, 4)));
    assert_eq!(reopened(Committed::Entry(id(1, 4)), false), None, "another entry lies there");
    assert_eq!(reopened(Committed::Entry(id(2, 9)), false), None, "nothing lies there");
    assert_eq!(reopened(Committed::Index(4), false), Some(id(2, 4)), "of an older build");
    assert_eq!(
        reopened(Committed::Index(9), false),
        Some(id(2, 5)),
        "and no further than the tail"
    );
    assert_eq!(reopened(Committed::Index(4), true), None, "where the tail may have been another");
}

#[test]
fn memberships_and_first_entries_of_terms_are_flushed_before_they_are_acknowledged() {
    let blank = Entry::new(id(2, 1), EntryKind::Blank, false, Batch::SINGLE, Bytes::new());
    for (entry, durable) in [(record(2, 1, 50), false), (membership(2, 1), true), (blank, true)] {
        let disk = SimDisk::new();
        let dir = Path::new("/log");
        let options = LogOptions { flush: Flush::Async, ..options() };
        let mut driven = DrivenLog::open(disk.shared(), dir, options.clone()).expect("open");
        let kind = entry.kind;
        driven.append(vec![record(1, 0, 50)]).expect("space").expect("written");
        driven.append(vec![entry]).expect("space").expect("written");
        let disk = disk.crash(&CrashPolicy::LoseAll);
        let driven = DrivenLog::open(disk.shared(), dir, options).expect("open");
        let expected = durable.then(|| id(2, 1));
        assert_eq!(driven.log.last_id(), expected, "{kind:?}");
    }
}

#[test]
fn a_failed_flush_is_told_before_anybody_hears_of_it() {
    #[derive(Debug, Default)]
    struct Told(std::sync::Mutex<BTreeMap<&'static str, u64>>);
    impl WriterObserver for Told {
        fn flushed(&self, _: Duration, _: u64, _: u64) {}
        fn failed(&self) {
            *self.0.lock().expect("lock").entry("failed").or_default() += 1;
        }
    }
    let told = Arc::new(Told::default());
    let observer: Arc<dyn WriterObserver> = Arc::clone(&told) as _;
    let options = LogOptions { flush: Flush::Async, observer: Some(observer), ..options() };
    let disk = SimDisk::new();
    let mut driven = DrivenLog::open(disk.shared(), Path::new("/log"), options).expect("open");
    driven.append(records(1, 0..3, 50)).expect("space").expect("written");
    disk.inject(crate::seam::disk::sim::Rule {
        ops: crate::seam::disk::sim::Ops::Kind(crate::seam::disk::sim::OpKind::Flush),
        path: String::new(),
        when: crate::seam::disk::sim::When::Nth(0),
        fault: Fault::Eio,
    });
    driven.pass(Duration::from_secs(1));
    assert!(driven.log.failure().is_some(), "the background flush failed");
    assert_eq!(told.0.lock().expect("lock").get("failed"), Some(&1));
}

/// A log of three records of term 1, written and not flushed.
fn written(disk: &SimDisk) -> DrivenLog {
    let options = LogOptions { flush: Flush::Async, ..options() };
    let mut driven = DrivenLog::open(disk.shared(), Path::new("/log"), options).expect("open");
    driven.append(records(1, 0..3, 50)).expect("space").expect("written");
    driven
}

#[test]
fn a_log_tells_how_far_it_has_flushed_what_a_leader_vouches_for() {
    let mut driven = written(&SimDisk::new());
    let log = driven.log.clone();
    assert_eq!(log.vouched(1, 3, 0), 0, "it is written, and not flushed");
    driven.pass(options().flush_interval);
    assert_eq!(log.vouched(1, 2, 0), 2, "of what is vouched for");
    assert_eq!(log.vouched(1, 3, 0), 3);
    let truncating = async { log.truncate_after(Some(id(1, 0))).await };
    driven.run(truncating).expect("space").expect("a healthy disk");
    driven.append(records(2, 1..3, 50)).expect("space").expect("written");
    assert_eq!(log.vouched(2, 3, 0), 1, "what was there before was flushed");
    let later = Vote { term: 3, voted_for: replica(2), committed: true };
    let voting = async { log.save_vote(later).await };
    driven.run(voting).expect("space").expect("a healthy disk");
    assert_eq!(log.vouched(3, 3, 0), 3, "a vote flushes");
    assert_eq!(log.vouched(2, 3, 3), 0, "a later leader may have replaced it");
    assert_eq!(log.stable(), 0);
}

#[test]
fn what_is_stable_is_stored_with_a_vote_and_is_no_more_than_the_log_holds_at_the_next_start() {
    let disk = SimDisk::new();
    let mut driven = written(&disk);
    let log = driven.log.clone();
    log.vouched(1, 2, 3);
    assert_eq!(log.stable(), 2, "no more than what was vouched for");
    log.vouched(1, 3, 3);
    let vote = Vote { term: 2, voted_for: replica(2), committed: false };
    let voting = async { log.save_vote(vote).await };
    driven.run(voting).expect("space").expect("a healthy disk");
    let reopened = |disk: &SimDisk| {
        let driven = DrivenLog::open(disk.shared(), Path::new("/log"), options()).expect("open");
        driven.log.stable()
    };
    assert_eq!(reopened(&disk.after_crash(&CrashPolicy::LoseAll)), 3);
    driven.append(records(2, 3..6, 50)).expect("space").expect("written");
    log.vouched(2, 6, 5);
    driven.close().expect("space").expect("a healthy disk");
    assert_eq!(reopened(&disk), 5, "it is stored with the end of a run");
    // Another log's entries cannot be stable here.
    let disk = SimDisk::new();
    drop(written(&disk));
    let disk = disk.crash(&CrashPolicy::LoseAll);
    let mut vote = VoteFile::open(&disk, Path::new("/log"), 7, Access::Write).expect("the vote");
    let voted = Vote { term: 1, voted_for: replica(1), committed: true };
    vote.save(voted, Committed::Nothing, 3).expect("a healthy disk");
    drop(vote);
    assert_eq!(reopened(&disk), 0, "it has lost them");
}

#[test]
fn no_start_is_older_than_what_an_earlier_one_could_tell_wherever_they_were_cut() {
    for at in 0.. {
        let disk = SimDisk::new();
        let dir = directory(&disk, Flush::Sync);
        dir.note_generations(true, BTreeMap::new()).expect("a healthy disk");
        let mut told = dir.generation();
        assert_eq!(told, 1, "it was raised, and not by the start");
        drop(dir);
        let mut disk = disk.crash(&CrashPolicy::LoseAll);
        // A start, and a raise of the generation, that end somewhere.
        disk.fail_nth_change(at, Fault::Halt);
        let opened = DataDir::open(disk.shared(), &disk, Path::new(DATA), 1);
        if let Some(dir) = opened.ok().filter(|dir| dir.begin_run(Flush::Sync).is_ok()) {
            assert_eq!(dir.generation(), told);
            if dir.note_generations(true, BTreeMap::new()).is_ok() {
                assert!(dir.generation() > told);
                told = dir.generation();
            }
        }
        let whole = !disk.is_dead();
        disk = disk.crash(&CrashPolicy::LoseAll);
        assert!(directory(&disk, Flush::Sync).generation() >= told, "cut at operation {at}");
        if whole {
            assert!(at > 3, "more operations than {at}");
            return;
        }
    }
}

#[test]
fn whoever_accepts_the_loss_of_older_data_has_it_count_as_the_newest() {
    let disk = SimDisk::new();
    let dir = directory(&disk, Flush::Sync);
    let older = disk.after_crash(&CrashPolicy::KeepAll);
    (0..100).for_each(|_| dir.note_generations(true, BTreeMap::new()).expect("a healthy disk"));
    let restored = directory(&older, Flush::Sync);
    restored.set_outdated().expect("a healthy disk");
    drop(restored);
    let older = older.crash(&CrashPolicy::LoseAll);
    assert!(directory(&older, Flush::Sync).is_outdated());
    let older = older.crash(&CrashPolicy::LoseAll);
    older.step_clock(1_000_000);
    let copy = older.after_crash(&CrashPolicy::KeepAll);
    let accept = |disk: &SimDisk| {
        let accepted =
            accept_loss::accept_loss(disk, disk, Path::new(DATA)).expect("a healthy disk");
        assert!(accepted.outdated, "it says why it was refused");
        directory(disk, Flush::Sync)
    };
    let restored = accept(&older);
    assert!(!restored.is_outdated() && restored.generation() > dir.generation());
    // The same copy is put back later.
    (0..100)
        .for_each(|_| restored.note_generations(true, BTreeMap::new()).expect("a healthy disk"));
    copy.step_clock(1000);
    assert!(accept(&copy).generation() > restored.generation());
}

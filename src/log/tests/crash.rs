//! Crashes during a script: what was acknowledged is there, and nothing half done is. A part of the operations
//! suffices here; `jepsen storage` tries all of them, and crashes the recovery, too.

use super::driven::{DIR, Driven};
use super::*;
use crate::log::files::data_dir::DataDir;
use crate::seam::disk::sim::{CrashPolicy, Fault, SimDisk, TornRest};

/// One step of the script.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Entry>),
    Truncate(Option<EntryId>),
    Purge(EntryId),
    Install(EntryId),
    Vote(Vote),
    Checkpoint(EntryId),
    Commit(EntryId),
    Idle,
}

/// What a log must hold.
#[derive(Clone, PartialEq, Default)]
struct Holds {
    entries: Vec<Entry>,
    boundary: Option<EntryId>,
    vote: Option<Vote>,
}

impl std::fmt::Debug for Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<String> =
            self.entries.iter().map(|e| format!("{}.{}", e.id.term, e.id.index)).collect();
        write!(f, "{:?} behind {:?}, {:?}", ids, self.boundary, self.vote)
    }
}

impl Holds {
    /// Of a log; entries at or below the boundary do not count.
    fn of(log: &Log) -> Self {
        let boundary = log.purged();
        let begin = boundary.map_or(0, |boundary| boundary.index + 1);
        let entries = log.read(begin, u64::MAX, usize::MAX, true).expect("read");
        Self { entries, boundary, vote: log.vote() }
    }

    fn after(mut self, step: &Step) -> Self {
        match step {
            Step::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Step::Truncate(last) => {
                let end = last.map_or(0, |last| last.index + 1);
                self.entries.retain(|entry| entry.id.index < end);
            }
            Step::Purge(upto) => {
                self.entries.retain(|entry| entry.id.index > upto.index);
                self.boundary = Some(*upto);
            }
            Step::Install(upto) => {
                (self.entries, self.boundary) = (Vec::new(), Some(*upto));
            }
            Step::Vote(vote) => self.vote = Some(*vote),
            Step::Checkpoint(_) | Step::Commit(_) | Step::Idle => {}
        }
        self
    }
}

/// Touches every kind of file and every change of layout, in small segments.
fn script() -> Vec<Step> {
    let vote = |term, committed| Step::Vote(Vote { term, voted_for: replica(1), committed });
    vec![
        vote(1, true),
        Step::Append(vec![membership(1, 0)]),
        Step::Append(records(1, 1..6, 100)),
        Step::Append(records(1, 6..12, 1000)),
        Step::Append(records(1, 12..14, 700)),
        Step::Commit(id(1, 9)),
        Step::Idle,
        vote(2, false),
        Step::Truncate(Some(id(1, 12))),
        Step::Append(records(2, 13..16, 50)),
        Step::Append(records(2, 16..24, 900)),
        Step::Truncate(Some(id(2, 16))),
        Step::Append(records(3, 17..20, 300)),
        Step::Commit(id(3, 18)),
        Step::Checkpoint(id(1, 10)),
        Step::Purge(id(1, 10)),
        vote(3, true),
        Step::Append(vec![membership(3, 20), record(3, 21, 3000)]),
        Step::Append(records(3, 22..30, 600)),
        Step::Idle,
        Step::Purge(id(3, 24)),
        Step::Truncate(Some(id(3, 27))),
        Step::Install(id(5, 60)),
        Step::Append(records(5, 61..64, 400)),
        Step::Truncate(None),
        Step::Append(records(6, 61..63, 40)),
        Step::Purge(id(7, 90)),
        Step::Append(records(7, 91..99, 900)),
    ]
}

fn small(flush: Flush) -> LogOptions {
    LogOptions { segment_size: 12 << 10, tail_cache_max: 2000, flush, ..options() }
}

fn step(driven: &mut Driven, step: &Step) -> Option<Done> {
    let log = driven.log.clone();
    match step.clone() {
        Step::Append(entries) => driven.append(entries),
        Step::Truncate(last) => driven.run(async move { log.truncate_after(last).await }),
        Step::Purge(upto) => driven.run(async move { log.purge(upto).await }),
        Step::Install(upto) => driven.run(async move { log.install(upto, None).await }),
        Step::Vote(vote) => driven.run(async move { log.save_vote(vote).await }),
        Step::Checkpoint(id) => Some(log.save_state(id, b"state").map_err(Arc::new)),
        Step::Commit(id) => {
            // A dead disk shows nobody anything.
            let _ = log.set_committed(id);
            Some(Ok(()))
        }
        Step::Idle => {
            driven.pass(Duration::from_millis(60));
            Some(Ok(()))
        }
    }
}

/// Runs the script until something fails. Gives what the log must hold, and what it may hold: the
/// step that failed may be done or not.
fn run_script(disk: &SimDisk, options: &LogOptions) -> (Holds, Holds, bool) {
    let mut holds = Holds::default();
    let Ok(mut driven) = Driven::open(disk, options) else {
        return (holds.clone(), holds, false);
    };
    for next in script() {
        let may = holds.clone().after(&next);
        match step(&mut driven, &next) {
            Some(Ok(())) => holds = may,
            Some(Err(_)) | None => return (holds, may, false),
        }
    }
    let done = driven.close().is_some_and(|result| result.is_ok());
    (holds.clone(), holds, done)
}

/// Opens the log, checks it, and goes on with it.
fn check(disk: &SimDisk, options: &LogOptions, must: &Holds, may: &Holds, context: &str) {
    let mut driven =
        Driven::open(disk, options).unwrap_or_else(|error| panic!("{context}: {error}"));
    let holds = Holds::of(&driven.log);
    assert!(holds == *must || holds == *may, "{context}\n{holds:?}\n{must:?}\n{may:?}");
    let last = driven.log.last_id().unwrap_or_default();
    let more = records(9, last.index + 1..last.index + 4, 500);
    driven.append(more.clone()).expect("called").unwrap_or_else(|e| panic!("{context}: {e}"));
    let grown = holds.after(&Step::Append(more));
    let disk = driven.disk.crash(&CrashPolicy::LoseAll);
    let driven = Driven::open(&disk, options).unwrap_or_else(|e| panic!("{context}: {e}"));
    assert_eq!(Holds::of(&driven.log), grown, "{context}: after another crash");
}

#[test]
fn the_script_does_what_the_model_says() {
    let disk = SimDisk::new();
    let (must, _, done) = run_script(&disk, &small(Flush::Sync));
    assert!(done);
    assert_eq!(must.entries, records(7, 91..99, 900));
    let driven = Driven::open(&disk, &small(Flush::Sync)).expect("open");
    assert_eq!(Holds::of(&driven.log), must);
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    let options = small(Flush::Sync);
    for at in (0..).step_by(7) {
        let disk = SimDisk::new();
        disk.fail_nth_change(at, Fault::Halt);
        let (must, may, done) = run_script(&disk, &options);
        let seeds = (0..3).map(|seed| CrashPolicy::Random(at * 3 + seed));
        for keep in [CrashPolicy::KeepAll, CrashPolicy::LoseAll].into_iter().chain(seeds) {
            let context = format!("halted at operation {at}, {keep:?}");
            check(&disk.crash(&keep), &options, &must, &may, &context);
        }
        if done {
            assert!(at > 100, "the script has more operations than {at}");
            return;
        }
    }
}

#[test]
fn in_async_mode_a_crash_leaves_a_prefix_and_every_vote() {
    let options = small(Flush::Async);
    for at in (0..).step_by(7) {
        let disk = SimDisk::new();
        disk.fail_nth_change(at, Fault::Halt);
        let (must, may, done) = run_script(&disk, &options);
        let seeds = (0..3).map(|seed| CrashPolicy::Random(at * 3 + seed));
        for keep in [CrashPolicy::KeepAll, CrashPolicy::LoseAll].into_iter().chain(seeds) {
            let crashed = disk.crash(&keep);
            let driven = Driven::open(&crashed, &options)
                .unwrap_or_else(|error| panic!("halted at {at}, {keep:?}: {error}"));
            let holds = Holds::of(&driven.log);
            let fits = |whole: &Holds| {
                let (vote, boundary) = (whole.vote, whole.boundary);
                (holds.vote, holds.boundary) == (vote, boundary)
                    && whole.entries.starts_with(&holds.entries)
            };
            assert!(fits(&must) || fits(&may), "at {at}, {keep:?}\n{holds:?}\n{must:?}\n{may:?}");
        }
        if done {
            return;
        }
    }
}

#[test]
fn what_a_restarted_process_finds_survives_a_power_cut() {
    for flush in [Flush::Sync, Flush::Async] {
        let options = small(flush);
        for at in (0..).step_by(9) {
            let disk = SimDisk::new();
            disk.fail_nth_change(at, Fault::Halt);
            let (.., done) = run_script(&disk, &options);
            // The process is gone, its page cache is not.
            let disk = disk.crash(&CrashPolicy::KeepAll);
            let driven = Driven::open(&disk, &options).expect("open");
            let found = Holds::of(&driven.log);
            let driven = Driven::open(&disk.crash(&CrashPolicy::LoseAll), &options).expect("open");
            assert_eq!(Holds::of(&driven.log), found, "halted at operation {at}, {flush}");
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_saved_vote_vouches_for_every_append_before_it() {
    let disk = SimDisk::new();
    let options = small(Flush::Async);
    let mut driven = Driven::open(&disk, &options).expect("open");
    let entries = records(1, 0..20, 900);
    driven.append(entries.clone()).expect("called").expect("written");
    let vote = Vote { term: 2, voted_for: replica(3), committed: false };
    step(&mut driven, &Step::Vote(vote)).expect("done").expect("saved");
    let driven = Driven::open(&disk.crash(&CrashPolicy::LoseAll), &options).expect("open");
    let holds = Holds::of(&driven.log);
    assert_eq!(holds, Holds { entries, boundary: None, vote: Some(vote) });
}

#[test]
fn async_entries_are_flushed_in_the_background_and_sync_ones_at_once() {
    let disk = SimDisk::new();
    let options = small(Flush::Async);
    let mut driven = Driven::open(&disk, &options).expect("open");
    let held = |disk: &SimDisk| {
        let disk = disk.after_crash(&CrashPolicy::LoseAll);
        let driven = Driven::open(&disk, &options).expect("open");
        Holds::of(&driven.log).entries.len()
    };
    driven.append(records(1, 0..3, 9)).expect("called").expect("written");
    assert_eq!(held(&disk), 0);
    driven.pass(options.flush_interval);
    assert_eq!(held(&disk), 3, "the interval is over");
    driven.append(records(1, 3..4, 9)).expect("called").expect("written");
    assert_eq!(held(&disk), 3);
    driven.append(vec![Entry { sync: true, ..record(1, 4, 9) }]).expect("called").expect("flushed");
    assert_eq!(held(&disk), 5);
}

#[test]
fn groups_behind_a_torn_one_never_come_back() {
    for flush in [Flush::Sync, Flush::Async] {
        let disk = SimDisk::new();
        let options = small(flush);
        let mut driven = Driven::open(&disk, &options).expect("open");
        for index in 0..3 {
            driven.append(records(1, index..index + 1, 44)).expect("called").expect("appended");
        }
        // The second group was not written back before the power cut, and the third one was.
        let path = Path::new(DIR).join("0000000000000001.seg");
        let group = 56 + 48 + 44;
        let torn = disk.crash(&CrashPolicy::KeepAll);
        torn.tamper(&path, |bytes| bytes[4096 + group..4096 + 2 * group].fill(0));
        let opened = Driven::open(&torn, &options);
        if flush == Flush::Sync {
            let error = opened.err().expect("the third group says that the second was flushed");
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
            continue;
        }
        let mut driven = opened.expect("torn");
        assert_eq!(read_all(&driven.log), records(1, 0..1, 44));
        let mut other = record(1, 1, 44);
        other.sync = true;
        driven.append(vec![other.clone()]).expect("called").expect("appended");
        let driven = Driven::open(&torn.crash(&CrashPolicy::KeepAll), &options).expect("open");
        assert_eq!(read_all(&driven.log), [record(1, 0, 44), other]);
    }
}

#[test]
fn a_crash_before_an_install_does_not_commit_what_it_was_to_replace() {
    // A part of a log that was never committed, and a boundary beyond it from the next leader.
    let run = |disk: &SimDisk| {
        let Ok(mut driven) = Driven::open(disk, &options()) else { return };
        let _ = driven.append(records(1, 0..8, 9));
        // Both wait for the writer, and the append is written first.
        let _appended = submit(&driven.log, records(1, 8..10, 9));
        let log = driven.log.clone();
        let mut installed = Box::pin(async move { log.install(id(3, 20), None).await });
        let _ = now_or_never(&mut installed);
        driven.log.set_committed(id(3, 25)).expect("readable");
        driven.settle();
    };
    let disk = SimDisk::new();
    run(&disk);
    for at in 0..disk.changes() {
        let disk = SimDisk::new();
        disk.fail_nth_change(at, Fault::Halt);
        run(&disk);
        for keep in [CrashPolicy::KeepAll, CrashPolicy::LoseAll, CrashPolicy::Random(at)] {
            let driven = Driven::open(&disk.crash(&keep), &options()).expect("open");
            let committed = driven.log.committed();
            assert_eq!(committed, driven.log.purged(), "halted at operation {at}, {keep:?}");
        }
    }
}

#[test]
fn a_data_directory_is_durable_however_often_its_making_was_interrupted() {
    let path = Path::new("/srv/deep/data");
    let interrupted = |disk: &SimDisk, at| {
        disk.fail_nth_change(at, Fault::Halt);
        let done = DataDir::open(disk.shared(), disk, path, 3).is_ok();
        (disk.crash(&CrashPolicy::KeepAll), done)
    };
    for first in 0.. {
        for second in 0.. {
            let (disk, first_done) = interrupted(&SimDisk::new(), first);
            let (disk, done) = interrupted(&disk, second);
            let dir = DataDir::open(disk.shared(), &disk, path, 3).expect("nothing is half done");
            let found = dir.incarnation();
            let disk = disk.crash(&CrashPolicy::LoseAll);
            let dir = DataDir::open(disk.shared(), &disk, path, 3).expect("nothing is half done");
            assert_eq!(dir.incarnation(), found, "halted at {first}, then at {second}");
            match (first_done, done) {
                (true, _) => return,
                (_, true) => break,
                _ => {}
            }
        }
    }
}

#[test]
fn a_crash_while_a_copy_of_the_vote_is_repaired_leaves_the_good_one() {
    let options = small(Flush::Sync);
    let vote = Vote { term: 4, voted_for: replica(2), committed: true };
    for slot in [0, 4096] {
        let disk = SimDisk::new();
        let mut driven = Driven::open(&disk, &options).expect("open");
        step(&mut driven, &Step::Vote(vote)).expect("done").expect("saved");
        let bad = disk.crash(&CrashPolicy::LoseAll);
        bad.tamper(&Path::new(DIR).join("VOTE"), |bytes| bytes[slot..slot + 56].fill(0xff));
        for at in 0..10 {
            let again = bad.after_crash(&CrashPolicy::KeepAll);
            again.fail_nth_change(at, Fault::Halt);
            drop(Driven::open(&again, &options));
            let torn = CrashPolicy::CutLast { bytes: 20, rest: TornRest::Ones };
            let driven = Driven::open(&again.crash(&torn), &options)
                .unwrap_or_else(|error| panic!("slot at {slot}, halted at {at}: {error}"));
            assert_eq!(driven.log.vote(), Some(vote), "slot at {slot}, halted at {at}");
        }
    }
}

#[test]
fn a_boundary_that_is_about_to_move_keeps_its_checkpoint_until_it_has() {
    let options = small(Flush::Sync);
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &options).expect("open");
    driven.append(records(1, 0..9, 50)).expect("called").expect("appended");
    driven.log.set_committed(id(1, 8)).expect("readable");
    for index in [1, 3, 5] {
        driven.log.save_state(id(1, index), b"state").expect("saved");
    }
    step(&mut driven, &Step::Purge(id(1, 1))).expect("done").expect("purged");
    // The writer has not come to it when the next checkpoint is saved.
    let log = driven.log.clone();
    let mut purged = Box::pin(async move { log.purge(id(1, 5)).await });
    assert!(now_or_never(&mut purged).is_none(), "queued");
    driven.log.save_state(id(1, 7), b"state").expect("saved");
    let crashed = disk.after_crash(&CrashPolicy::KeepAll);
    let other = Driven::open(&crashed, &options).expect("the manifest names the first checkpoint");
    assert_eq!(other.log.purged(), Some(id(1, 1)));
    driven.settle();
    now_or_never(purged).expect("done").expect("purged");
    assert_eq!(driven.log.checkpoints(), [id(1, 5), id(1, 7)], "now it is gone");
}

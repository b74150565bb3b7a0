//! Appends that wait for no flush are written by whoever appends them, where nothing else waits for the writer.

use super::driven::Driven;
use super::*;
use crate::seam::disk::sim::{CrashPolicy, Fault, OpKind, Operation, SimDisk};

fn asynchronous() -> LogOptions {
    LogOptions { flush: Flush::Async, ..options() }
}

/// A log that holds its first entry, so that its active segment has its place.
fn begun(options: &LogOptions) -> Driven {
    let mut driven = Driven::open(&SimDisk::new(), options).expect("open");
    driven.settle();
    assert!(matches!(driven.append(records(1, 0..1, 100)), Some(Ok(()))));
    driven.settle();
    driven
}

/// Appends without letting the writer do anything. True if it was told as done.
fn is_done(driven: &Driven, entries: Vec<Entry>) -> bool {
    match driven.submit(entries).try_recv() {
        Ok(result) => result.map(|()| true).expect("appended"),
        Err(_) => false,
    }
}

#[test]
fn an_asynchronous_append_is_written_on_return_and_outlives_its_process() {
    let driven = begun(&asynchronous());
    assert!(is_done(&driven, records(1, 1..4, 100)));
    assert!(is_done(&driven, records(1, 4..5, 100)));
    let died = driven.disk.crash(&CrashPolicy::KeepAll);
    let reopened = Driven::open(&died, &asynchronous()).expect("open");
    assert_eq!(read_all(&reopened.log), records(1, 0..5, 100));
}

#[test]
fn after_a_write_that_took_long_the_writer_writes_for_a_second() {
    let mut driven = begun(&asynchronous());
    let pass = driven.clock();
    driven.disk.set_tracer(Some(Arc::new(move |operation: &Operation<'_>| {
        if operation.kind == OpKind::Write {
            pass(Duration::from_millis(5));
        }
    })));
    assert!(is_done(&driven, records(1, 1..2, 100)), "it was not known before");
    driven.disk.set_tracer(None);
    assert!(!is_done(&driven, records(1, 2..3, 100)));
    driven.pass(Duration::from_millis(900));
    assert!(!is_done(&driven, records(1, 3..4, 100)));
    driven.pass(Duration::from_millis(200));
    assert!(is_done(&driven, records(1, 4..5, 100)));
    assert_eq!(read_all(&driven.log), records(1, 0..5, 100));
}

#[test]
fn the_flush_in_the_background_takes_what_was_written_at_once() {
    let mut driven = begun(&asynchronous());
    // The flush, and then the marker of an idle log: nothing is due any more.
    driven.pass(Duration::from_secs(1));
    driven.pass(Duration::from_secs(1));
    let flushes = driven.log.counts().flushes;
    assert!(is_done(&driven, records(1, 1..2, 100)));
    assert!(driven.settle().is_some(), "the writer was told when to flush");
    driven.pass(asynchronous().flush_interval / 2);
    assert_eq!(driven.log.counts().flushes, flushes, "not yet");
    driven.pass(asynchronous().flush_interval / 2);
    assert_eq!(driven.log.counts().flushes, flushes + 1);
    let cut = driven.disk.crash(&CrashPolicy::LoseAll);
    assert_eq!(read_all(&Driven::open(&cut, &asynchronous()).expect("open").log).len(), 2);
}

#[test]
fn what_waits_for_a_flush_is_left_to_the_writer() {
    let mut driven = begun(&asynchronous());
    let mut synchronous = records(1, 1..2, 100);
    synchronous[0].sync = true;
    assert!(!is_done(&driven, synchronous));
    driven.settle();
    let mut driven = begun(&options());
    assert!(!is_done(&driven, records(1, 1..2, 100)));
    driven.settle();
    let cut = driven.disk.crash(&CrashPolicy::LoseAll);
    assert_eq!(read_all(&Driven::open(&cut, &options()).expect("open").log).len(), 2);
}

#[test]
fn nothing_overtakes_what_was_submitted_before() {
    let mut driven = begun(&asynchronous());
    let log = driven.log.clone();
    let vote = Vote { term: 2, voted_for: replica(1), committed: false };
    let mut voting = Box::pin(async move { log.save_vote(vote).await });
    assert!(now_or_never(&mut voting).is_none());
    let mut waiting = driven.submit(records(2, 1..2, 100));
    assert!(waiting.try_recv().is_err(), "behind the vote");
    driven.settle();
    assert!(matches!(now_or_never(voting), Some(Ok(()))));
    assert!(matches!(waiting.try_recv(), Ok(Ok(()))));
    driven.settle();
    assert!(is_done(&driven, records(2, 2..3, 100)), "nothing waits any more");
}

#[test]
fn large_appends_and_those_that_need_space_or_a_segment_are_left_to_the_writer() {
    let mut driven = begun(&LogOptions { segment_size: 1 << 20, ..asynchronous() });
    assert!(!is_done(&driven, records(1, 1..2, 70 << 10)));
    driven.settle();
    let (mut at_once, mut next) = (0, 2);
    while driven.log.segments().len() < 3 {
        if is_done(&driven, records(1, next..next + 1, 40 << 10)) {
            at_once += 1;
        } else {
            driven.settle();
        }
        next += 1;
    }
    assert!(at_once > 20, "{at_once} of {next}");
    assert_eq!(read_all(&driven.log).len() as u64, next);
}

#[test]
fn a_write_at_once_that_fails_poisons_the_log() {
    let mut driven = begun(&asynchronous());
    driven.disk.fail_nth_change(0, Fault::Eio);
    let failed = driven.submit(records(1, 1..2, 100)).try_recv().expect("told");
    assert!(matches!(*failed.expect_err("not written"), StorageError::Io { .. }));
    let changes = driven.disk.changes();
    let refused = driven.append(records(1, 2..3, 100)).expect("told").expect_err("I10");
    assert!(matches!(*refused, StorageError::Poisoned { .. }));
    assert_eq!(driven.disk.changes(), changes, "I10");
}

#[test]
fn what_threads_write_at_once_is_all_there_and_in_order() {
    let place = Place { options: asynchronous(), ..Place::new() };
    let log = place.open();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    // The writer's thread flushes in between: a flush interval is 50 ms, and a segment 1 MiB.
    for index in 0..20_000u64 {
        let told = Arc::clone(&told);
        let done = move |result: Done| {
            result.expect("appended");
            told.lock().expect("no panic").push(index);
        };
        log.append(records(1, index..index + 1, 200), Box::new(done));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(log.close()).expect("close");
    let told = std::mem::take(&mut *told.lock().expect("no panic"));
    assert!(told.into_iter().eq(0..20_000), "I6");
    let reopened = place.open();
    assert_eq!(reopened.watermarks().end, 20_000);
}

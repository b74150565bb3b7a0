//! Readers beside the writer, and several logs on few threads.

use std::sync::atomic::{AtomicBool, Ordering};

use super::driven::{DIR, Driven};
use super::*;
use crate::seam::disk::sim::{Random, SimDisk};

fn assert_send<T: Send>(value: T) -> T {
    value
}

/// Stops the readers even if the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads here and there until told to stop; whatever it gets must be in order and whole.
fn read_around(log: &Log, stop: &AtomicBool, seed: u64) -> usize {
    let mut random = Random(seed);
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        let marks = log.watermarks();
        let span = (marks.end - marks.begin).max(1) as usize;
        let from = marks.begin + random.below(span) as u64;
        let entries = log.read(from, from + 50, 20_000, true).expect("read");
        if let Some(first) = entries.first() {
            assert!(first.id.index >= from, "seed {seed}: begins later only if it was purged");
            let indexes = first.id.index..first.id.index + entries.len() as u64;
            for (entry, index) in entries.iter().zip(indexes) {
                let expected = record(entry.id.term, index, entry.payload.len());
                assert_eq!(*entry, expected, "seed {seed}: I9");
            }
        }
        seen += entries.len();
    }
    seen
}

#[test]
fn readers_see_whole_entries_in_order_whatever_the_writer_does() {
    let options = LogOptions { segment_size: 16 << 10, tail_cache_max: 4 << 10, ..options() };
    let place = Place { options: LogOptions { flush: Flush::Async, ..options }, ..Place::new() };
    let log = place.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(append(&log, records(1, 0..10, 200)));
    let stop = AtomicBool::new(false);
    let seen: usize = std::thread::scope(|scope| {
        let readers = [1, 2].map(|seed| {
            let (log, stop) = (log.clone(), &stop);
            scope.spawn(move || read_around(&log, stop, seed))
        });
        let running = StopOnDrop(&stop);
        runtime.block_on(async {
            let mut end = 10;
            for round in 1..120u64 {
                append(&log, records(round, end..end + 20, 200)).await;
                end += 20;
                if round % 5 == 0 {
                    let cut = log.read(end - 8, end - 7, 0, false).expect("read")[0].id;
                    log.truncate_after(Some(cut)).await.expect("truncate");
                    end -= 7;
                }
                let committed = log.id_at(end - 15).expect("id").expect("held");
                log.set_committed(committed).expect("readable");
                if round % 10 == 0 {
                    let upto = log.id_at(end - 100).expect("id").expect("held");
                    log.purge(upto).await.expect("purge");
                }
            }
        });
        drop(running);
        readers.map(|reader| reader.join().expect("no panic")).iter().sum()
    });
    assert!(seen > 1000, "{seen}");
    runtime.block_on(assert_send(log.close())).expect("close");
}

#[tokio::test]
async fn many_logs_share_few_threads() {
    let place = Place::new();
    let pool = WriterPool::start(2).expect("threads");
    let logs: Vec<Log> = (0..10)
        .map(|number| {
            let options = LogOptions { log_id: LogId(number), ..options() };
            let dir = place.dir.with_file_name(format!("{number:016x}"));
            Log::open(Arc::clone(&place.disk), &dir, options, &pool).expect("open")
        })
        .collect();
    let mut pending = Vec::new();
    for index in 0..50 {
        for log in &logs {
            pending.push(submit(log, records(1, index..index + 1, 100)));
        }
    }
    for done in pending {
        done.await.expect("called").expect("appended");
    }
    for log in &logs {
        assert_eq!(read_all(log), records(1, 0..50, 100));
        let counts = log.counts();
        assert!(counts.flushes <= counts.groups && counts.groups <= 50, "{counts:?}");
        assert!(counts.wakeups <= counts.groups + 5, "one wake-up a group at most: {counts:?}");
    }
    pool.shutdown().await;
}

#[tokio::test]
async fn watchers_wake_for_commits_and_not_for_appends() {
    let place = Place::new();
    let log = place.open();
    let mut watch = log.watch();
    append(&log, records(1, 1..5, 9)).await;
    watch.mark_unchanged();
    append(&log, records(1, 5..9, 9)).await;
    assert!(!watch.has_changed().expect("open"), "only the end moved");
    assert_eq!(watch.borrow().end, 9, "but it is up to date");
    log.set_committed(id(1, 6)).expect("readable");
    assert!(watch.has_changed().expect("open"));
    assert_eq!(watch.borrow_and_update().committed, 7);
    log.truncate_after(Some(id(1, 7))).await.expect("truncate");
    assert!(watch.has_changed().expect("open"));
}

#[test]
fn what_the_writer_stores_of_dropped_entries_does_not_evict_their_successors() {
    let disk = SimDisk::new();
    let options = LogOptions { tail_cache_max: 0, ..options() };
    let mut driven = Driven::open(&disk, &options).expect("open");
    driven.append(records(1, 0..10, 50)).expect("called").expect("appended");
    let (sender, receiver) = std::sync::mpsc::channel();
    let log = driven.log.clone();
    let done = move |result: Done| drop(sender.send(result.map(|()| read_all(&log))));
    driven.log.append(records(1, 10..20, 50), Box::new(done));
    let log = driven.log.clone();
    let mut cut = Box::pin(async move { log.truncate_after(Some(id(1, 4))).await });
    assert!(now_or_never(&mut cut).is_none(), "queued");
    let pending = submit(&driven.log, records(2, 5..8, 50));
    driven.settle();
    // While the writer was between the first append and the cut, the log was already this:
    let mut expected = records(1, 0..5, 50);
    expected.extend(records(2, 5..8, 50));
    assert_eq!(receiver.recv().expect("called").expect("appended"), expected);
    assert_eq!(read_all(&driven.log), expected);
    drop((cut, pending));
}

#[test]
fn a_sealed_segment_is_mapped_once_its_last_entry_is_committed() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_size: 8 << 10, tail_cache_max: 0, ..options() };
    let mut driven = Driven::open(&disk, &options).expect("open");
    for index in 0..10 {
        driven.append(records(1, index..index + 1, 1500)).expect("called").expect("appended");
    }
    let path = Path::new(DIR).join("0000000000000001.seg");
    let last = driven.log.segments()[0].last.expect("entries");
    driven.log.set_committed(EntryId { index: last.index - 1, ..last }).expect("readable");
    assert_eq!(read_all(&driven.log), records(1, 0..10, 1500));
    assert!(!disk.is_mapped(&path), "I7: its last entry may yet be truncated");
    driven.log.set_committed(last).expect("readable");
    assert_eq!(read_all(&driven.log), records(1, 0..10, 1500));
    assert!(disk.is_mapped(&path));
}

#[tokio::test]
async fn a_log_is_removed_once_the_checkpoint_that_is_being_saved_is_done() {
    let place = Place::new();
    let log = place.open();
    append(&log, records(1, 0..5, 9)).await;
    let saver = Saver::new(log.clone(), &place.pool);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (sender, begun) = oneshot::channel();
    let files = Box::new(move || {
        let _ = sender.send(());
        held.recv().map_err(std::io::Error::other)
    });
    let state = || log.drafted(id(1, 4), b"state").expect("memory takes it");
    let saving = saver.save(saver.turn().await, state(), files);
    begun.await.expect("it flushes first what the checkpoint names");
    assert!(saver.try_turn().is_none(), "one at a time");
    assert_eq!(log.checkpoints(), [], "it counts once it is durable");
    let removed = log.clone();
    let mut removing = tokio::spawn(async move { removed.destroy().await });
    // paced: that nothing happens can only be seen over time.
    let early = tokio::time::timeout(Duration::from_millis(50), &mut removing).await;
    assert!(early.is_err(), "removed under a checkpoint that is being saved");
    release.send(()).expect("it waits");
    saving.saved().await.expect("its directory is there");
    removing.await.expect("no panic").expect("removed");
    assert!(!place.dir.exists());
    let late = saver.save(saver.turn().await, state(), Box::new(|| Ok(())));
    late.saved().await.expect_err("the log is gone");
    place.pool.shutdown().await;
    let late = saver.save(saver.turn().await, state(), Box::new(|| Ok(())));
    late.saved().await.expect_err("nobody is left to save it");
    assert!(!place.dir.exists());
}

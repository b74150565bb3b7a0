//! What a log does while nothing goes wrong.

use std::sync::Mutex;

use super::*;
use crate::watermarks::Watermarks;

#[tokio::test]
async fn entries_survive_a_restart_byte_for_byte() {
    let place = Place::new();
    let log = place.open();
    assert_eq!((log.last_id(), log.committed(), log.purged()), (None, None, None));
    let mut expected = vec![membership(1, 0)];
    expected.extend(records(1, 1..50, 300));
    expected.push(Entry::new(id(2, 50), EntryKind::Blank, true, Batch::SINGLE, Bytes::new()));
    expected.extend(records(2, 51..60, 0));
    append(&log, expected.clone()).await;
    assert_eq!(read_all(&log), expected, "from the tail");
    log.save_vote(Vote { term: 2, voted_for: replica(3), committed: true }).await.expect("vote");
    log.set_committed(id(2, 55)).expect("readable");
    log.close().await.expect("close");
    assert!(log.read(0, 1, 1, true).is_err(), "closed");

    let log = place.open();
    assert_eq!(log.last_id(), Some(id(2, 59)));
    assert_eq!(log.vote(), Some(Vote { term: 2, voted_for: replica(3), committed: true }));
    assert_eq!(log.committed(), Some(id(2, 55)), "it rode on the closing marker");
    assert_eq!(read_all(&log), expected, "from the segment");
    assert_eq!(log.membership_at(70).map(|m| m.id), Some(id(1, 0)));
    assert_eq!(log.watermarks(), Watermarks::new(0, 56, 60));
    append(&log, records(2, 60..61, 10)).await;
    assert_eq!(log.read(58, 61, usize::MAX, true).expect("read").len(), 3, "across both");
}

#[tokio::test]
async fn a_log_rolls_over_segments_and_reads_across_them_in_any_way() {
    let place =
        Place { options: LogOptions { segment_size: 8 << 10, ..options() }, ..Place::new() };
    let log = place.open();
    let mut expected = Vec::new();
    for first in (0..200).step_by(5) {
        let entries = records(1, first..first + 5, 200);
        expected.extend(entries.clone());
        append(&log, entries).await;
    }
    assert!(log.segments().len() > 5, "{:?}", log.segments());
    log.set_committed(id(1, 150)).expect("readable");
    let small = LogOptions { tail_cache_max: 0, ..place.options.clone() };
    for restart in [false, true] {
        let log = if restart {
            log.close().await.expect("close");
            Log::open(Arc::clone(&place.disk), &place.dir, small.clone(), &place.pool)
                .expect("open")
        } else {
            log.clone()
        };
        assert_eq!(read_all(&log), expected);
        for from in (0..200).step_by(7) {
            let some = log.read(from, from + 9, 1000, true).expect("read");
            let to = (from as usize + 4).min(200);
            assert_eq!(some, expected[from as usize..to], "248 bytes each, and 1000 at most");
            assert_eq!(log.read(from, from + 1, 0, true).expect("read").len(), 1);
            assert_eq!(log.id_at(from).expect("id"), Some(id(1, from)));
        }
        let headers = log.read(0, 200, usize::MAX, false).expect("read");
        assert!(headers.iter().all(|entry| entry.payload.is_empty()));
        assert_eq!(headers.len(), 200);
        assert_eq!(log.id_at(200).expect("id"), None);
    }
}

#[tokio::test]
async fn completions_come_in_the_order_of_submission() {
    let place = Place { options: LogOptions { flush: Flush::Async, ..options() }, ..Place::new() };
    let log = place.open();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut last = None;
    for index in 0..200 {
        let mut entry = record(1, index, 64);
        entry.sync = index % 17 == 0;
        let called = Arc::clone(&order);
        let (sender, receiver) = oneshot::channel();
        let done = move |result: Done| {
            called.lock().expect("lock").push(index);
            drop(sender.send(result));
        };
        log.append(vec![entry], Box::new(done));
        if index == 100 {
            append(&log, Vec::new()).await;
            assert_eq!(order.lock().expect("lock").len(), 101, "an empty append waits its turn");
        }
        last = Some(receiver);
    }
    last.expect("some").await.expect("called").expect("appended");
    assert_eq!(*order.lock().expect("lock"), (0..200).collect::<Vec<u64>>());
    let counts = log.counts();
    assert!(counts.groups <= 200 && counts.entries == 200, "{counts:?}");
    log.close().await.expect("close");
}

#[tokio::test]
async fn truncation_drops_the_suffix_for_good() {
    let place =
        Place { options: LogOptions { segment_size: 8 << 10, ..options() }, ..Place::new() };
    let mut log = place.open();
    for first in (0..100).step_by(10) {
        append(&log, records(1, first..first + 10, 200)).await;
    }
    // In the active segment, in a sealed one, at a segment's end, and back to the beginning.
    let cuts = [95, 77, 40, 19, 0];
    for (term, cut) in (2..).zip(cuts) {
        log.truncate_after(Some(id(1, cut))).await.expect("truncate");
        assert_eq!(log.last_id(), Some(id(1, cut)));
        assert_eq!(read_all(&log), records(1, 0..cut + 1, 200));
        append(&log, records(term, cut + 1..cut + 4, 20)).await;
        log.close().await.expect("close");
        log = place.open();
        let kept = read_all(&log);
        assert_eq!(kept[..=cut as usize], records(1, 0..cut + 1, 200));
        assert_eq!(kept[cut as usize + 1..], records(term, cut + 1..cut + 4, 20));
        log.truncate_after(Some(id(1, cut))).await.expect("truncate");
    }
    log.truncate_after(None).await.expect("truncate");
    assert_eq!((log.last_id(), read_all(&log).len()), (None, 0));
    append(&log, records(9, 3..6, 20)).await;
    log.close().await.expect("close");
    assert_eq!(read_all(&place.open()), records(9, 3..6, 20), "an empty log may begin anywhere");
}

#[tokio::test]
async fn appends_may_follow_a_truncation_that_is_not_durable_yet() {
    let place = Place { options: LogOptions { tail_cache_max: 0, ..options() }, ..Place::new() };
    let log = place.open();
    append(&log, records(1, 0..10, 50)).await;
    let first = submit(&log, records(1, 10..20, 50));
    let mut cut = Box::pin(log.truncate_after(Some(id(1, 4))));
    // Polled once: it has taken effect.
    assert!(futures_util::poll!(&mut cut).is_pending());
    let second = submit(&log, records(2, 5..8, 50));
    let mut expected = records(1, 0..5, 50);
    expected.extend(records(2, 5..8, 50));
    assert_eq!(read_all(&log), expected);
    cut.await.expect("truncate");
    first.await.expect("called").expect("it was durable once");
    second.await.expect("called").expect("appended");
    assert_eq!(read_all(&log), expected);
    log.close().await.expect("close");
    assert_eq!(read_all(&place.open()), expected);
}

#[tokio::test]
async fn a_read_of_what_lies_before_all_segments_gives_nothing() {
    let place =
        Place { options: LogOptions { segment_size: 8 << 10, ..options() }, ..Place::new() };
    let log = place.open();
    append(&log, vec![membership(1, 0)]).await;
    for first in (1..101).step_by(10) {
        append(&log, records(1, first..first + 10, 200)).await;
    }
    log.purge(id(1, 95)).await.expect("purge");
    // Its cache is empty then.
    log.close().await.expect("close");
    let log = place.open();
    assert_eq!(log.read(1, 5, usize::MAX, true).expect("read"), []);
}

#[tokio::test]
async fn purge_moves_the_boundary_and_drops_whole_segments() {
    let place =
        Place { options: LogOptions { segment_size: 8 << 10, ..options() }, ..Place::new() };
    let log = place.open();
    append(&log, vec![membership(1, 0)]).await;
    for first in (1..101).step_by(10) {
        append(&log, records(1, first..first + 10, 200)).await;
    }
    let before = log.disk_bytes();
    log.purge(id(1, 60)).await.expect("purge");
    log.purge(id(1, 50)).await.expect("no effect");
    assert_eq!(log.purged(), Some(id(1, 60)));
    assert_eq!(log.committed(), Some(id(1, 60)), "what is purged was committed");
    assert!(log.disk_bytes() < before);
    let segments = log.segments();
    assert!(segments[0].base_index <= 61 && segments[0].last >= Some(id(1, 61)), "{segments:?}");
    log.close().await.expect("close");
    let log = place.open();
    assert_eq!(log.purged(), Some(id(1, 60)));
    assert_eq!(log.watermarks(), Watermarks::new(61, 61, 101));
    assert_eq!(log.membership_at(61).map(|m| m.id), Some(id(1, 0)), "it outlives its segment");
    assert_eq!(log.id_at(60).expect("id"), Some(id(1, 60)));
    assert_eq!(log.read(61, 63, usize::MAX, true).expect("read"), records(1, 61..63, 200));

    log.purge(id(2, 500)).await.expect("beyond the tail");
    assert_eq!(log.last_id(), Some(id(2, 500)));
    assert!(read_all(&log).is_empty());
    log.close().await.expect("close");
    let log = place.open();
    assert_eq!((log.last_id(), log.purged()), (Some(id(2, 500)), Some(id(2, 500))));
    append(&log, records(2, 501..503, 10)).await;
    assert_eq!(log.watermarks(), Watermarks::new(501, 501, 503));
}

#[tokio::test]
async fn a_boundary_that_the_log_holds_is_noted_and_another_fences_the_log_off() {
    let place = Place::new();
    let log = place.open();
    append(&log, records(1, 0..10, 50)).await;
    let stored = StoredMembership { id: id(1, 3), payload: Bytes::from_static(b"abc") };
    log.install(id(1, 5), Some(stored.clone())).await.expect("held");
    assert_eq!(log.membership_at(4), Some(stored.clone()));
    assert_eq!(read_all(&log).len(), 10, "nothing is dropped");
    assert_eq!(log.committed(), Some(id(1, 5)));

    let newer = StoredMembership { id: id(3, 90), payload: Bytes::from_static(b"def") };
    log.install(id(3, 100), Some(newer.clone())).await.expect("not held");
    assert!(read_all(&log).is_empty());
    assert_eq!(log.watermarks(), Watermarks::new(101, 101, 101));
    append(&log, records(3, 101..103, 50)).await;
    log.close().await.expect("close");
    let log = place.open();
    assert_eq!(read_all(&log), records(3, 101..103, 50));
    assert_eq!(log.membership_at(101), Some(newer));
    assert_eq!(log.segments().len(), 1);
}

#[tokio::test]
async fn a_batch_is_shown_whole_or_not_at_all() {
    let place = Place::new();
    let log = place.open();
    let batch = |position, count| Batch { position, count };
    append(&log, vec![record(1, 0, 9), record_in(1, 1, 9, batch(0, 3))]).await;
    append(&log, vec![record_in(1, 2, 9, batch(1, 3)), record_in(1, 3, 9, batch(2, 3))]).await;
    // Of this one only a part came before the leader changed.
    append(&log, vec![record_in(1, 4, 9, batch(0, 2)), record(2, 5, 9)]).await;
    let watch = log.watch();
    let committed = [(1, 0, 1), (1, 1, 1), (1, 2, 1), (1, 3, 4), (1, 4, 4), (2, 5, 6)];
    for (term, index, shown) in committed {
        log.set_committed(id(term, index)).expect("readable");
        assert_eq!(log.watermarks().committed, shown, "committed up to {index}");
        assert_eq!(watch.borrow().committed, shown);
        assert_eq!(log.committed(), Some(id(term, index)));
    }
    let visible = |entries: Vec<Entry>| -> Vec<u64> {
        let visible = log.visible(entries).expect("visible");
        visible.iter().map(|entry| entry.id.index).collect()
    };
    assert_eq!(visible(read_all(&log)), [0, 1, 2, 3, 5], "the torn batch never shows");
    assert_eq!(visible(log.read(2, 3, 100, true).expect("read")), [2], "its batch is whole");
}

#[tokio::test]
async fn committed_may_be_ahead_of_the_tail_and_votes_may_repeat() {
    let place = Place::new();
    let log = place.open();
    append(&log, records(1, 2..4, 9)).await;
    log.set_committed(id(3, 8)).expect("readable");
    assert_eq!(log.watermarks(), Watermarks::new(2, 4, 4));
    assert_eq!(log.committed(), Some(id(3, 8)));
    append(&log, records(1, 4..6, 9)).await;
    assert_eq!(log.watermarks(), Watermarks::new(2, 6, 6));
    let vote = Vote { term: 100, voted_for: replica(1), committed: false };
    log.save_vote(vote).await.expect("vote");
    log.save_vote(vote).await.expect("again");
    log.save_vote(Vote { voted_for: replica(2), committed: true, ..vote })
        .await
        .expect("its leader");
    log.close().await.expect("close");
    let log = place.open();
    assert_eq!(log.committed(), Some(id(1, 5)), "clamped to the tail");
    assert_eq!(log.vote(), Some(Vote { voted_for: replica(2), committed: true, ..vote }));
}

#[tokio::test]
#[should_panic(expected = "I5")]
async fn a_second_vote_in_one_term_is_a_programming_error() {
    let place = Place::new();
    let log = place.open();
    log.save_vote(Vote { term: 2, voted_for: replica(1), committed: false }).await.expect("vote");
    let _ = log.save_vote(Vote { term: 2, voted_for: replica(2), committed: false }).await;
}

#[tokio::test]
#[should_panic(expected = "I4")]
async fn truncating_a_committed_entry_is_a_programming_error() {
    let place = Place::new();
    let log = place.open();
    append(&log, records(1, 0..5, 9)).await;
    log.set_committed(id(1, 3)).expect("readable");
    let _ = log.truncate_after(Some(id(1, 2))).await;
}

#[tokio::test]
async fn checkpoints_survive_and_the_boundary_needs_its_own() {
    let place = Place::new();
    let log = place.open();
    append(&log, records(1, 0..100, 9)).await;
    log.set_committed(id(1, 99)).expect("readable");
    for index in [10, 20, 30, 40] {
        log.save_state(id(1, index), format!("state {index}").as_bytes()).expect("save");
    }
    assert_eq!(log.load_state(id(1, 20)).expect("load"), "state 20");
    assert!(log.load_state(id(1, 21)).is_err());
    log.purge(id(1, 20)).await.expect("purge");
    assert_eq!(log.checkpoints(), [id(1, 20), id(1, 30), id(1, 40)]);
    log.close().await.expect("close");
    assert_eq!(place.open().checkpoints(), [id(1, 20), id(1, 30), id(1, 40)]);
    std::fs::remove_file(place.dir.join("00000000000000000020.ckpt")).expect("remove");
    let error = place.try_open().err().expect("the boundary's is gone");
    assert!(matches!(&error, StorageError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn a_destroyed_log_is_gone_and_a_new_one_is_empty() {
    let place = Place::new();
    let log = place.open();
    append(&log, records(1, 0..5, 9)).await;
    log.destroy().await.expect("destroy");
    assert!(!place.dir.exists());
    assert_eq!(std::fs::read_dir(place.dir.parent().expect("logs")).expect("list").count(), 0);
    assert!(submit(&log, records(1, 5..6, 9)).await.expect("called").is_err());
    assert!(read_all(&place.open()).is_empty());
}

#[tokio::test]
async fn shutdown_does_what_was_submitted_and_refuses_the_rest() {
    let place = Place { options: LogOptions { flush: Flush::Async, ..options() }, ..Place::new() };
    let log = place.open();
    let pending: Vec<_> = (0..50).map(|i| submit(&log, records(1, i..i + 1, 100))).collect();
    place.pool.shutdown().await;
    place.pool.shutdown().await;
    for done in pending {
        done.await.expect("called").expect("appended");
    }
    let error = submit(&log, records(1, 50..51, 9)).await.expect("called").expect_err("closed");
    assert!(error.to_string().contains("cannot use"), "{error}");
    let place = Place { pool: WriterPool::start(2).expect("threads"), ..place };
    assert_eq!(read_all(&place.open()), records(1, 0..50, 100));
}

#[tokio::test]
async fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let place =
        Place { options: LogOptions { segment_size: 4 << 10, ..options() }, ..Place::new() };
    let log = place.open();
    let entries = vec![record(1, 0, 10), record(1, 1, 9 << 20), record(1, 2, 10)];
    append(&log, entries.clone()).await;
    assert_eq!(read_all(&log), entries);
    log.close().await.expect("close");
    let log = place.open();
    assert_eq!(read_all(&log), entries);
    let infos = log.segments();
    assert_eq!(infos.iter().map(|info| info.base_index).collect::<Vec<_>>(), [0, 1, 2]);
}

//! What the most expensive records cost, with the state at its limits. Prints figures and asserts none: it is for people
//! who change this (`cargo test --release --features broker --lib broker::state::tests::cost -- --ignored --nocapture`).

use std::time::Instant;

use super::super::topics::follow::{Follow, TOPICS_OF_RECORD};
use super::*;
use crate::limits::{LOCKING_GROUPS_MAX, TOPICS_OF_GROUP_MAX};

/// Topics that one record deletes.
const DELETED: usize = 1024;
/// Offsets that fill a log.
const GROUPS: usize = 64;

fn name(n: usize) -> String {
    format!("topic-{n}")
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let done = work();
    eprintln!("{what}: {:?}", since.elapsed());
    done
}

/// A log whose topics hold keys, whose groups have consumed all topics, and whose table of locks is full.
fn full() -> Log {
    let mut log = Log::new();
    for n in 0..TOPICS_OF_GROUP_MAX {
        log.topic(&name(n), 1);
    }
    for n in 0..KEYS_MAX {
        let properties = format!("UNIQ_KEY\u{1}{n}\u{2}");
        let message = Message { properties, ..message(&name(n % DELETED), 0) };
        log.apply(record(&[message], true));
    }
    for group in 0..GROUPS {
        let offsets = (0..TOPICS_OF_GROUP_MAX).map(|topic| OffsetChange {
            group: format!("group-{group}"),
            topic: name(topic),
            queue: 0,
            offset: 1,
        });
        let offsets: Vec<_> = offsets.collect();
        offsets.chunks(4096).for_each(|some| drop(log.change(Change::Offsets(some.to_vec()))));
    }
    for group in 0..LOCKING_GROUPS_MAX {
        let queues = vec![(name(group % DELETED), 0)];
        let (group, client) = (format!("group-{group}"), "client".to_owned());
        let request = LockRequest { group, client, queues };
        log.change(Change::Lock { request, now_ms: 0 });
    }
    log
}

#[test]
#[ignore = "takes minutes; it is a measurement"]
fn the_most_expensive_records_and_questions() {
    let mut log = timed("filling the state", full);
    let unadopted = timed("asking which topics the registry has not taken over", || {
        log.shared.state().unadopted().len()
    });
    assert_eq!(unadopted, TOPICS_OF_RECORD);
    let topics = (0..DELETED).map(|n| (name(n), None)).collect();
    let follow = Change::Follow(Follow { from: 0, to: 1, topics });
    let payload = change(&follow);
    let record = Record::new(log.index, 1, payload);
    let applied = timed("a record that deletes 1,024 topics", || log.machine.apply(&record));
    applied.expect("this build knows it");
    assert!(log.shared.state().topic(&name(0)).is_none());
}

#[test]
#[ignore = "takes minutes; it is a measurement"]
fn a_topic_that_all_groups_have_consumed() {
    let mut log = Log::new();
    log.topic("T", 1);
    let mut groups = 0;
    while groups == log.shared.state().groups(ALL).count() {
        let offsets = (groups..groups + 4096).map(|n| OffsetChange {
            group: format!("group-{n}"),
            topic: "T".to_owned(),
            queue: 0,
            offset: 1,
        });
        log.change(Change::Offsets(offsets.collect()));
        groups += 4096;
    }
    let what = format!(
        "deleting a topic that {} groups have consumed",
        log.shared.state().groups(ALL).count()
    );
    timed(&what, || log.change(Change::DeleteTopic { name: "T".to_owned() }));
    assert_eq!(log.shared.state().groups(ALL).count(), 0);
}

//! Records over a limit change nothing, and what the state counts is what it holds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::limits::{
    ADDR_BYTES_MAX, CLIENT_BYTES_MAX, GROUP_BYTES_MAX, LOCK_QUEUES_MAX, LOCKING_CLIENTS_MAX,
    LOCKING_GROUPS_MAX, LOCKS_OF_GROUP_MAX, NODES_MAX, QUEUES_MAX, STORED_TOPIC_BYTES_MAX,
    TOPICS_OF_GROUP_MAX,
};
use crate::state::locks::Locks;
use crate::state::offsets::Offsets;

fn offset(group: &str, topic: &str, queue: u32, offset: u64) -> OffsetChange {
    OffsetChange { group: group.to_owned(), topic: topic.to_owned(), queue, offset }
}

fn locking(group: &str, client: &str, topic: &str, queues: std::ops::Range<u32>) -> LockRequest {
    LockRequest {
        group: group.to_owned(),
        client: client.to_owned(),
        queues: queues.map(|queue| (topic.to_owned(), queue)).collect(),
    }
}

/// As an older build may have let them in.
#[test]
fn changes_with_names_or_numbers_over_a_limit_are_refused_and_nothing_of_them_stays() {
    let mut log = Log::new();
    log.topic("T", 4);
    log.change(Change::Lead { node: 1, addr: "127.0.0.1:1".to_owned() });
    let long = |bytes: usize| "n".repeat(bytes + 1);
    let (group, client) = (long(GROUP_BYTES_MAX), long(CLIENT_BYTES_MAX));
    let topic = long(STORED_TOPIC_BYTES_MAX);
    let config = TopicConfig::with_queues(1);
    let many = TopicConfig { read_queues: QUEUES_MAX + 1, ..config };
    let lock = |request| Change::Lock { request, now_ms: 0 };
    let mut repeated = locking("g", "c", "T", 0..1);
    repeated.queues = vec![("T".to_owned(), 0); LOCK_QUEUES_MAX + 1];
    let before = log.shared.state().clone();
    for bad in [
        Change::Lead { node: 2, addr: long(ADDR_BYTES_MAX) },
        Change::PutTopic { name: topic.clone(), config },
        Change::PutTopic { name: String::new(), config },
        Change::PutTopic { name: "U".to_owned(), config: many },
        Change::EnsureTopic { name: topic.clone(), config },
        lock(locking(&group, "c", "T", 0..1)),
        lock(locking("g", &client, "T", 0..1)),
        lock(locking("g", "c", &topic, 0..1)),
        lock(locking("g", "c", "T", QUEUES_MAX..QUEUES_MAX + 1)),
        lock(repeated),
    ] {
        let answer = log.change(bad.clone());
        assert!(matches!(answer, Answer::Refused(Refusal::TooLarge(_))), "{bad:?}: {answer:?}");
    }
    for bad in
        [offset(&group, "T", 0, 1), offset("g", &topic, 0, 1), offset("g", "T", QUEUES_MAX, 1)]
    {
        let answer = log.change(Change::Offsets(vec![bad.clone()]));
        assert!(
            matches!(&answer, Answer::OffsetsRefused(all) if matches!(all[..], [(0, Refusal::TooLarge(_))])),
            "{bad:?}: {answer:?}"
        );
    }
    assert_eq!(*log.shared.state(), before);
}

#[test]
fn an_offset_that_is_refused_holds_up_no_other_of_its_record() {
    let mut log = Log::new();
    log.topic("T", 1);
    let long = "g".repeat(900_000);
    let changes = vec![
        offset(&long, "T", 0, 1),
        offset("a", "T", 0, 2),
        offset("b", "", 0, 3),
        offset("b", "T", 0, 4),
    ];
    let Answer::OffsetsRefused(refused) = log.change(Change::Offsets(changes)) else {
        panic!("two of them cannot be noted")
    };
    assert_eq!(refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 2]);
    let state = log.shared.state();
    assert_eq!((state.offset("a", "T", 0), state.offset("b", "T", 0)), (Some(2), Some(4)));
}

#[test]
fn a_clients_id_is_kept_once_however_many_queues_it_locks() {
    let mut log = Log::new();
    let client = "c".repeat(CLIENT_BYTES_MAX);
    let mut locked = 0;
    for n in 0..4 {
        let request = locking("g", &client, &format!("T{n}"), 0..QUEUES_MAX);
        match log.change(Change::Lock { request, now_ms: 0 }) {
            Answer::Locked(queues) => locked += queues.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(locked, 4 * QUEUES_MAX as usize);
    let bytes = log.checkpoint();
    let ids = bytes.windows(client.len()).filter(|bytes| *bytes == client.as_bytes()).count();
    assert_eq!(ids, 1);
    assert!(bytes.len() < 100_000, "{} bytes for 4,096 locks", bytes.len());
}

/// Every client of the group, and each queue, has its place; no more than there may be.
#[test]
fn locks_stop_at_their_limits_and_abandoned_ones_make_room() {
    let mut locks = Locks::default();
    let mut lock = |group: &str, client: &str, topic: &str, queues, now_ms| {
        locks.lock(locking(group, client, topic, queues), now_ms).map(|locked| locked.len())
    };
    for n in 0..LOCKS_OF_GROUP_MAX / QUEUES_MAX as usize {
        assert_eq!(lock("g", "c", &format!("T{n}"), 0..QUEUES_MAX, 0), Ok(QUEUES_MAX as usize));
    }
    assert_eq!(lock("g", "c", "more", 0..1, 0), Ok(0), "the group's queues are at their limit");
    assert_eq!(lock("g", "c", "T0", 0..2, 0), Ok(2), "what is held can be renewed");
    for n in 0..LOCKING_CLIENTS_MAX {
        assert_eq!(lock("h", &format!("c{n}"), "T", n as u32..n as u32 + 1, 0), Ok(1));
    }
    assert_eq!(lock("h", "one more", "U", 0..1, 0), Ok(0), "the group's clients are");
    for n in 0..LOCKING_GROUPS_MAX - 2 {
        assert_eq!(lock(&format!("group-{n}"), "c", "T", 0..1, 0), Ok(1));
    }
    assert!(matches!(lock("late", "c", "T", 0..1, 0), Err(Refusal::Full(_))));
    assert_eq!(lock("late", "c", "T", 0..1, LOCK_LEASE_MS), Ok(1), "the others were not renewed");
    assert_eq!(lock("h", "one more", "U", 0..1, LOCK_LEASE_MS), Ok(1));
}

#[test]
fn a_groups_topics_and_the_nodes_that_have_led_are_bounded() {
    let mut offsets = Offsets::default();
    for n in 0..TOPICS_OF_GROUP_MAX {
        assert_eq!(offsets.set("g", &format!("T{n}"), 0, 1), Ok(()));
    }
    assert!(matches!(offsets.set("g", "more", 0, 1), Err(Refusal::Full(_))));
    assert_eq!((offsets.set("g", "T7", 0, 2), offsets.set("h", "more", 0, 1)), (Ok(()), Ok(())));
    let mut log = Log::new();
    for node in 1..=NODES_MAX as u64 + 5 {
        log.change(Change::Lead { node, addr: "127.0.0.1:1".to_owned() });
    }
    let state = log.shared.state();
    assert_eq!((1..2000).filter(|node| state.address(*node).is_some()).count(), NODES_MAX);
    assert_eq!((state.address(5), state.leader()), (None, NODES_MAX as u64 + 5));
}

/// Before, the offsets of all groups were counted for each new one: 5.4 s for the last record of 20,000 groups.
#[test]
fn a_record_of_new_offsets_takes_as_long_with_200_000_groups_as_with_none() {
    let mut log = Log::new();
    log.topic("T", 4);
    let all: Vec<_> = (0..200_000).map(|n| offset(&format!("group-{n}"), "T", n % 4, 1)).collect();
    let mut times: Vec<Duration> = Vec::new();
    for some in all.chunks(4096) {
        let since = Instant::now();
        assert_eq!(log.change(Change::Offsets(some.to_vec())), Answer::Done);
        times.push(since.elapsed());
    }
    // Medians, since other programs run.
    let median = |some: &[Duration]| {
        let mut some = some.to_vec();
        some.sort_unstable();
        some[some.len() / 2]
    };
    let (first, last) = (median(&times[..9]), median(&times[times.len() - 9..]));
    eprintln!("4,096 new groups take {first:?} at first and {last:?} among 200,000");
    assert!(last < first * 8, "{first:?}, then {last:?}");
    let since = Instant::now();
    log.change(Change::DeleteTopic { name: "other".to_owned() });
    assert!(log.shared.state().groups_of_topic("other", ALL).next().is_none());
    let other = since.elapsed();
    eprintln!("a topic that none of them consumes is looked up and deleted in {other:?}");
    assert!(other < last * 8, "{other:?} beside {last:?}");
}

/// What a lock table is without regard to limits: group, topic and queue, and client and time.
type Model = BTreeMap<(String, String, u32), (String, i64)>;

proptest! {
    #[test]
    fn locks_are_those_of_a_plain_table(
        steps in proptest::collection::vec((0..4_u8, 0..3_u8, 0..2_u8, 0..4_u32, 0..30_000_i64, any::<bool>()), 1..80)
    ) {
        let (mut locks, mut model, mut now) = (Locks::default(), Model::new(), 0);
        for (group, client, topic, queue, pause, unlocks) in steps {
            now += pause;
            let (group, client, topic) = (format!("g{group}"), format!("c{client}"), format!("T{topic}"));
            let request = locking(&group, &client, &topic, queue..queue + 2);
            model.retain(|_, (_, since)| now - *since < LOCK_LEASE_MS);
            if unlocks {
                locks.unlock(&request);
                model.retain(|(of, on, at), (by, _)| {
                    *of != group || *on != topic || *by != client || !(queue..queue + 2).contains(at)
                });
                continue;
            }
            let mut expected = Vec::new();
            for at in queue..queue + 2 {
                let key = (group.clone(), topic.clone(), at);
                if model.get(&key).is_none_or(|(by, _)| *by == client) {
                    model.insert(key, (client.clone(), now));
                    expected.push((topic.clone(), at));
                }
            }
            prop_assert_eq!(locks.lock(request, now), Ok(expected));
        }
        // What nobody renews is gone in the end, and all that was counted for it.
        for n in 0..8 {
            let _ = locks.lock(locking("z", "c", "T", 0..1), now + LOCK_LEASE_MS * (n + 1));
        }
        locks.unlock(&locking("z", "c", "T", 0..1));
        prop_assert_eq!((locks.groups(), locks.topics()), (0, 0));
        prop_assert_eq!(locks.bytes(), 0);
    }

    #[test]
    fn offsets_are_those_of_a_plain_table(
        steps in proptest::collection::vec((0..4_u8, 0..4_u8, 0..4_u32, any::<u64>(), 0..12_u8), 1..80)
    ) {
        let (mut offsets, mut model) = (Offsets::default(), BTreeMap::new());
        for (group, topic, queue, offset, step) in steps {
            let (group, topic) = (format!("g{group}"), format!("T{topic}"));
            if step == 0 {
                offsets.remove_topics(&[topic.as_str()].into());
                model.retain(|(_, of, _), _| *of != topic);
            } else {
                prop_assert_eq!(offsets.set(&group, &topic, queue, offset), Ok(()));
                model.insert((group, topic, queue), offset);
            }
            for ((group, topic, queue), offset) in &model {
                prop_assert_eq!(offsets.get(group, topic, *queue), Some(*offset));
            }
            let groups: std::collections::BTreeSet<_> = model.keys().map(|key| key.0.as_str()).collect();
            prop_assert!(offsets.groups(ALL).eq(groups.iter().copied()));
            for topic in (0..4).map(|n| format!("T{n}")) {
                let of_topic = model.keys().filter(|key| key.1 == topic).map(|key| key.0.as_str());
                let of_topic: std::collections::BTreeSet<_> = of_topic.collect();
                prop_assert!(offsets.groups_of_topic(&topic, ALL).eq(of_topic));
            }
            prop_assert_eq!(offsets.len(), model.len());
        }
        let topics = ["T0", "T1", "T2", "T3", "T4", "T5"];
        offsets.remove_topics(&topics.into());
        prop_assert_eq!(offsets, Offsets::default());
    }
}

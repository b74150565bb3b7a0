//! What records do to the state, and that a checkpoint is all of it.

mod cost;
mod delayed;
mod index;
mod limits;
mod locks;
mod newer_build;
mod old_build;
mod places;
mod registry;
mod version2;
mod version3;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use quorumlog::seam::SystemClock;
use quorumlog::simulation::SimDisk;
use quorumlog::{ApplyError, FlushFiles, Record, StateDir, StateMachine};

use super::command::{
    self, Answer, Change, LockRequest, OffsetChange, Placed, Refusal, ReportedOffset, change,
    deliveries, delivery,
};
use super::locks::LOCK_LEASE_MS;
use super::machine::{Machines, Shared, machine_with_state};
use super::message_at;
use super::offsets::ALL;
use super::queue::physical;
use super::recent::{Digest, KEYS_MAX, Recent};
use super::rules::Rules;
use super::topics::{DEAD_DELAYED_TOPIC, DELAY_TOPIC, TopicConfig};
use crate::LOG_PREFIX;
use crate::record::Message;

/// Where the state machine has its files.
const DIR: &str = "/state";

struct Log {
    machine: Box<dyn StateMachine>,
    shared: std::sync::Arc<Shared>,
    disk: SimDisk,
    index: u64,
    /// What was applied, from index 1 on.
    records: Vec<Record>,
}

impl Log {
    fn new() -> Self {
        Self::on(SimDisk::new())
    }

    fn on(disk: SimDisk) -> Self {
        let log = Self::old_on(disk);
        log.shared.change(|state| state.raise(Rules::NEWEST));
        log
    }

    /// A log that begins with records of the oldest builds.
    fn old() -> Self {
        Self::old_on(SimDisk::new())
    }

    fn old_on(disk: SimDisk) -> Self {
        let (machine, shared) = machine_with_state(StateDir::new(disk.shared(), disk.clock(), DIR));
        Self { machine, shared, disk, index: 1, records: Vec::new() }
    }

    fn checkpoint(&self) -> Vec<u8> {
        let (bytes, flush) = self.begin_checkpoint();
        flush().expect("the disk takes it");
        bytes
    }

    /// A checkpoint that does not count yet: what it names is not flushed.
    fn begin_checkpoint(&self) -> (Vec<u8>, FlushFiles) {
        let mut bytes = Vec::new();
        self.machine.checkpoint(&mut bytes).expect("memory takes it");
        (bytes, self.machine.flush_files())
    }

    fn try_apply(&mut self, payload: Bytes) -> Result<Answer, ApplyError> {
        let record = Record::new(self.index, 1, payload);
        self.index += 1;
        self.records.push(record.clone());
        self.machine.apply(&record).map(|answer| Answer::decode(&answer))
    }

    fn apply(&mut self, payload: Bytes) -> Answer {
        self.try_apply(payload).expect("this build knows it")
    }

    fn change(&mut self, what: Change) -> Answer {
        self.apply(change(&what))
    }

    fn topic(&mut self, name: &str, queues: u32) {
        let config = TopicConfig::with_queues(queues);
        assert_eq!(self.change(Change::PutTopic { name: name.to_owned(), config }), Answer::Done);
    }

    fn offsets(&mut self, payload: Bytes) -> Vec<u64> {
        match self.apply(payload) {
            Answer::Stored(placed) => placed.iter().map(|placed| placed.offset).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_state_of_a_log_that_is_opened_again_begins_again_for_those_who_hold_it() {
    let (machines, disk) = (Machines::default(), SimDisk::new().shared());
    let name = quorumlog::LogName::new(format!("{LOG_PREFIX}0")).expect("a valid name");
    let open = || {
        machines
            .machine(&name, StateDir::new(disk.clone(), std::sync::Arc::new(SystemClock), DIR))
            .expect("a broker's")
    };
    let held = || machines.shared(name.as_str()).expect("it was opened");
    let mut machine = open();
    let config = TopicConfig::with_queues(1);
    let payload = change(&Change::PutTopic { name: "orders".to_owned(), config });
    machine.apply(&Record::new(1, 1, payload)).expect("this build knows it");
    let before = held();
    assert!(before.state().topic_since("orders").is_some());
    let mut changed = before.changed.subscribe();
    changed.mark_unchanged();
    let number = before.number();
    let waiting = before.arrivals.wait_for("orders", 0);
    let mut arrival = std::pin::pin!(waiting.notified());
    arrival.as_mut().enable();
    drop(machine);
    let _again = open();
    assert_ne!(before.number(), number, "what was found before counts for nothing");
    assert!(arrival.now_or_never().is_some(), "who waits for a message looks again");
    assert!(std::sync::Arc::ptr_eq(&before, &held()), "connections hold it");
    assert!(before.state().topic_since("orders").is_none(), "it may be lost");
    assert!(changed.has_changed().expect("it lives"), "nobody was told");
}

fn record(of: &[Message], once: bool) -> Bytes {
    command::messages(&mut BytesMut::new(), of, once)
}

fn messages(of: &[Message]) -> Bytes {
    record(of, false)
}

fn message(topic: &str, queue: i32) -> Message {
    Message {
        topic: topic.to_owned(),
        queue,
        flag: 0,
        system_flag: 0,
        born_ms: 1,
        born_host: "127.0.0.1:1".parse().expect("an address"),
        stored_ms: 5,
        store_host: "127.0.0.1:2".parse().expect("an address"),
        reconsumed: 0,
        body: Bytes::from_static(b"x"),
        properties: "TAGS\u{1}TagA\u{2}".to_owned(),
    }
}

#[test]
fn records_that_share_memory_are_as_those_made_alone() {
    let mut room = BytesMut::new();
    let sizes = [0, 1, 1_000, 16_000, 17_000, 100_000, 60_000, 5];
    let batches: Vec<Vec<Message>> = (0..40)
        .map(|n| {
            let size = sizes[n % sizes.len()];
            let body = Bytes::from(vec![n as u8; size]);
            vec![Message { body, ..message("T", n as i32) }; 1 + n % 3]
        })
        .collect();
    let records: Vec<_> =
        batches.iter().map(|batch| command::messages(&mut room, batch, false)).collect();
    for (batch, made) in batches.iter().zip(records) {
        assert_eq!(made, messages(batch));
    }
}

#[test]
fn messages_of_a_queue_are_numbered_without_gaps_in_the_order_of_the_log() {
    let mut log = Log::new();
    log.topic("T", 2);
    assert_eq!(log.offsets(messages(&[message("T", 0)])), [0]);
    assert_eq!(
        log.offsets(messages(&[message("T", 1), message("T", 0), message("T", 0)])),
        [0, 1, 2]
    );
    let entries = log.shared.slice("T", 0, 0, 9).expect("nothing is lost").entries;
    assert_eq!(entries[1].tags, 2_598_919);
    let entries: Vec<_> = entries.iter().map(|entry| (entry.index(), entry.part())).collect();
    assert_eq!(entries, [(2, 0), (3, 1), (3, 2)]);
    let find = |at| log.shared.find("T", 0, at).expect("nothing is lost");
    assert_eq!(find(physical(3, 2)).map(|entry| entry.offset), Some(2));
    assert_eq!(find(physical(3, 0)), None, "it is another queue's");
}

#[test]
fn a_record_with_a_message_that_cannot_be_stored_stores_none() {
    let mut log = Log::new();
    log.topic("T", 1);
    for bad in [message("T", 1), message("T", -1), message("U", 0)] {
        let answer = log.apply(messages(&[message("T", 0), bad.clone()]));
        assert!(matches!(answer, Answer::Refused(_)), "{bad:?}: {answer:?}");
    }
    assert_eq!(log.offsets(messages(&[message("T", 0)])), [0]);
}

#[test]
fn a_message_that_is_sent_again_is_stored_once_if_asked_for() {
    let mut log = Log::new();
    log.topic("T", 2);
    log.topic("U", 2);
    let keyed = |topic: &str, queue: i32, key: &str| {
        let properties = format!("UNIQ_KEY\u{1}{key}\u{2}");
        [Message { properties, ..message(topic, queue) }]
    };
    let first = log.apply(record(&keyed("T", 0, "k"), true));
    // A producer's retry may choose another queue.
    assert_eq!(log.apply(record(&keyed("T", 1, "k"), true)), first);
    assert_eq!(log.offsets(record(&keyed("T", 0, "other"), true)), [1]);
    assert_eq!(log.offsets(record(&keyed("U", 0, "k"), true)), [0], "another topic");
    assert_eq!(log.offsets(record(&keyed("T", 0, "k"), false)), [2], "not asked for");
    assert_eq!(log.offsets(record(&[message("T", 1)], true)), [0], "a message without a key");
}

#[test]
fn the_oldest_key_is_forgotten_for_the_newest() {
    let mut recent = Recent::default();
    let key = |n: usize| Digest::of("T", &n.to_string());
    let placed = |n: usize| Placed { queue: 0, offset: n as u64, physical: 0 };
    for n in 0..=KEYS_MAX {
        recent.put(key(n), placed(n));
    }
    assert_eq!((recent.get(&key(0)), recent.get(&key(1))), (None, Some(placed(1))));
    assert_eq!(recent.get(&key(KEYS_MAX)), Some(placed(KEYS_MAX)));
    recent.put(Digest::of("U", "1"), placed(0));
    recent.forget_topic("T");
    let mut other = Recent::default();
    other.put(Digest::of("U", "1"), placed(0));
    assert_eq!(recent, other, "another topic's keys stay");
}

#[test]
fn each_message_of_a_record_is_found_again() {
    let batch = [message("T", 0), message("T", 1)];
    let payload = messages(&batch);
    for (part, message) in batch.iter().enumerate() {
        let found = message_at(&payload, part).expect("a message");
        assert_eq!(Message::decode(found).as_ref(), Ok(message));
    }
    assert!(message_at(&payload, 2).is_err());
    let payload = deliveries(3, 9, &batch);
    for (part, message) in batch.iter().enumerate() {
        let found = message_at(&payload, part).expect("a message");
        assert_eq!(Message::decode(found).as_ref(), Ok(message));
    }
    assert!(message_at(&payload, 2).is_err());
    let payload = delivery(3, 9, &batch[1]);
    let found = message_at(&payload, 0).expect("a message");
    assert_eq!(Message::decode(found).as_ref(), Ok(&batch[1]));
    assert!(message_at(&payload, 1).is_err());
    assert!(message_at(&change(&Change::Offsets(Vec::new())), 0).is_err());
}

#[test]
fn a_lock_is_held_for_a_lease_and_no_longer() {
    let mut log = Log::new();
    let request = |client: &str| LockRequest {
        group: "g".to_owned(),
        client: client.to_owned(),
        queues: vec![("T".to_owned(), 0), ("T".to_owned(), 1)],
    };
    let lock = |log: &mut Log, client: &str, now_ms: i64| match log
        .change(Change::Lock { request: request(client), now_ms })
    {
        Answer::Locked(queues) => queues.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(lock(&mut log, "a", 0), 2);
    assert_eq!(lock(&mut log, "b", LOCK_LEASE_MS - 1), 0);
    assert_eq!(lock(&mut log, "a", LOCK_LEASE_MS - 1), 2, "renewed");
    assert_eq!(lock(&mut log, "b", LOCK_LEASE_MS), 0);
    log.change(Change::Unlock(request("b")));
    assert_eq!(lock(&mut log, "b", LOCK_LEASE_MS), 0, "only its holder gives it back");
    log.change(Change::Unlock(request("a")));
    assert_eq!(lock(&mut log, "b", LOCK_LEASE_MS), 2);
    assert_eq!(lock(&mut log, "a", 2 * LOCK_LEASE_MS), 2, "not renewed");
}

#[test]
fn a_topic_that_is_deleted_takes_its_offsets_along() {
    let mut log = Log::new();
    log.topic("T", 1);
    log.offsets(messages(&[message("T", 0)]));
    let offset = |topic: &str| OffsetChange {
        group: "g".to_owned(),
        topic: topic.to_owned(),
        queue: 0,
        offset: 1,
    };
    log.topic("U", 1);
    log.change(Change::Offsets(vec![offset("T"), offset("U")]));
    log.change(Change::DeleteTopic { name: "T".to_owned() });
    assert_eq!(log.shared.state().offset("g", "T", 0), None);
    assert_eq!(log.shared.state().offset("g", "U", 0), Some(1));
    log.topic("T", 1);
    assert_eq!(log.offsets(messages(&[message("T", 0)])), [0], "a new topic of the same name");
}

#[test]
fn a_topic_can_grow_while_it_is_used() {
    let mut log = Log::new();
    log.topic("T", 1);
    log.offsets(messages(&[message("T", 0)]));
    assert!(matches!(
        log.apply(messages(&[message("T", 3)])),
        Answer::Refused(Refusal::NoQueue(..))
    ));
    log.topic("T", 4);
    assert_eq!(log.offsets(messages(&[message("T", 3), message("T", 0)])), [0, 1]);
}

#[test]
fn a_checkpoint_is_the_whole_state_and_replay_goes_on_from_it() {
    let mut log = Log::new();
    log.change(Change::Lead { node: 2, addr: "127.0.0.1:10911".to_owned() });
    log.topic("T", 4);
    for n in 0..1500 {
        log.offsets(messages(&[message("T", n % 4)]));
    }
    log.offsets(messages(&[message(DELAY_TOPIC, 0)]));
    log.offsets(delivery(1, 0, &message("T", 0)));
    let queues = vec![("T".to_owned(), 0)];
    let request = LockRequest { group: "g".to_owned(), client: "c".to_owned(), queues };
    log.change(Change::Lock { request, now_ms: 3 });
    let bytes = log.checkpoint();
    let mut restored = Log::on(log.disk.clone());
    restored.machine.restore(&mut &bytes[..]).expect("our own bytes");
    assert_eq!(*restored.shared.state(), *log.shared.state());
    let next = Record::new(log.index, 1, messages(&[message("T", 0)]));
    assert_eq!(restored.machine.apply(&next), log.machine.apply(&next));
    assert_eq!(*restored.shared.state(), *log.shared.state());
}

#[test]
fn a_checkpoint_that_is_none_is_refused_and_the_state_stays() {
    let mut log = Log::new();
    log.topic("T", 1);
    let bytes = log.checkpoint();
    let before = log.shared.state().clone();
    let cut = &bytes[..bytes.len() - 1];
    for bad in
        [&b""[..], b"QLBS", b"QLBS\x02", b"QLBS\x03", b"QLBS\x04", b"QLBS\x01", b"XXXX\x04", cut]
    {
        assert!(log.machine.restore(&mut &bad[..]).is_err(), "{bad:?}");
        assert_eq!(*log.shared.state(), before);
    }
}

#[test]
fn a_checkpoint_of_another_version_is_named_in_the_error() {
    let mut log = Log::new();
    let error = log.machine.restore(&mut &b"QLBS\x01"[..]).expect_err("an older version");
    assert_eq!(
        error.to_string(),
        "the broker's state is of version 1, and this program reads 2 to 4"
    );
}

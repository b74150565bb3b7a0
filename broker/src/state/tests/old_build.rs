//! Logs that older builds began. A node that replays all of their records and one that goes on from a checkpoint of such a
//! build come to the same state, to the byte. What that build did is written down here once more.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use quorumlog::codec;
use serde::Serialize;

use super::super::command::Payload;
use super::super::index::index_files::{FileName, IndexFiles};
use super::super::index::keys::{Key, Keys, hash_of};
use super::super::index::voids::Voids;
use super::super::queue::Queue;
use super::super::rules::Rules;
use super::super::topics::LEVELS;
use super::super::topics::registry::{Decision, HOME_LOG};
use super::*;
use crate::limits::{ALL_QUEUES_MAX, OFFSETS_MAX, QUEUES_MAX, TOPICS_MAX};
use crate::record::{Outline, Properties, java_hash, names};

#[derive(Serialize)]
struct Topic {
    config: TopicConfig,
    queues: Vec<Queue>,
}

#[derive(Serialize)]
struct Holder {
    client: String,
    since_ms: i64,
}

#[derive(Default, Serialize)]
struct Remembered {
    order: VecDeque<(String, String)>,
    places: BTreeMap<(String, String), Placed>,
}

/// The state of the build that wrote checkpoints of version 2.
#[derive(Default, Serialize)]
struct State {
    topics: BTreeMap<String, Topic>,
    offsets: BTreeMap<String, BTreeMap<(String, u32), u64>>,
    locks: BTreeMap<String, BTreeMap<(String, u32), Holder>>,
    nodes: BTreeMap<u64, String>,
    leader: u64,
    delivered: BTreeMap<u8, u64>,
    stored_ms: i64,
    recent: Remembered,
    keys: Keys,
    voids: Voids,
}

struct OldBuild {
    state: State,
    files: IndexFiles,
}

impl OldBuild {
    fn new() -> Self {
        let disk = SimDisk::new();
        let files = IndexFiles::new(StateDir::new(disk.shared(), disk.clock(), DIR));
        Self { state: State::default(), files }
    }

    fn checkpoint(&self) -> Vec<u8> {
        let mut bytes = b"QLBS\x02".to_vec();
        bytes.extend(codec::encode(&(&self.state, Vec::<FileName>::new())));
        bytes
    }

    fn apply(&mut self, record: &Record) {
        let stored = match Payload::decode(record.payload.clone()) {
            Ok(Payload::Change(change)) => return self.change(change),
            Ok(Payload::Messages { once, records }) => self.store(record.index, once, &records),
            Ok(Payload::Delivery(of)) => {
                if of.offset < self.state.delivered.get(&of.level).copied().unwrap_or(0) {
                    None
                } else {
                    self.state.delivered.insert(of.level, of.offset + 1);
                    self.store(record.index, false, &[of.record])
                }
            }
            Ok(Payload::Deliveries(_)) | Err(_) => return,
        };
        if stored.is_none() {
            self.state.voids.push(record.index);
        }
    }

    fn store(&mut self, index: u64, once: bool, records: &[Bytes]) -> Option<()> {
        let outlines: Vec<_> =
            records.iter().map(|record| Message::outline(record)).collect::<Result<_, _>>().ok()?;
        for Outline { topic, queue, .. } in &outlines {
            let queues = match self.state.topics.get(*topic) {
                Some(topic) => topic.config.queues(),
                None if *topic == DELAY_TOPIC => u32::from(LEVELS),
                None => return None,
            };
            u32::try_from(*queue).ok().filter(|queue| *queue < queues)?;
        }
        let key = outlines.first().filter(|_| once).and_then(|first| {
            let key = Properties::find(first.properties, names::UNIQUE_KEY)?;
            Some((first.topic.to_owned(), key.to_owned()))
        });
        if key.as_ref().is_some_and(|key| self.state.recent.places.contains_key(key)) {
            return None;
        }
        let mut first = None;
        for (part, outline) in outlines.iter().enumerate() {
            let Outline { topic, queue, stored_ms, properties } = *outline;
            let (queue, at) = (queue as u32, physical(index, part));
            let config = TopicConfig::with_queues(LEVELS.into());
            let new = || Topic { config, queues: Vec::new() };
            let topics = &mut self.state.topics;
            let held = topics.entry(topic.to_owned()).or_insert_with(new);
            if held.queues.len() <= queue as usize {
                held.queues.resize_with(queue as usize + 1, Queue::default);
            }
            self.state.stored_ms = self.state.stored_ms.max(stored_ms);
            let tags = Properties::find(properties, names::TAGS).filter(|tags| !tags.is_empty());
            let tags = tags.map_or(0, java_hash);
            let newest = self.state.stored_ms;
            let offset = held.queues[queue as usize].push(at, tags, newest, &self.files);
            first.get_or_insert(Placed { queue, offset, physical: at });
            let unique = Properties::find(properties, names::UNIQUE_KEY);
            let others = Properties::find(properties, names::KEYS).unwrap_or_default();
            for key in unique.into_iter().chain(others.split(' ').filter(|key| !key.is_empty())) {
                let key = Key::new(hash_of(topic, key), stored_ms, at);
                self.state.keys.push(key, &self.files);
            }
        }
        if let Some((key, first)) = key.zip(first) {
            let recent = &mut self.state.recent;
            recent.order.push_back(key.clone());
            recent.places.insert(key, first);
        }
        first.map(drop)
    }

    fn change(&mut self, change: Change) {
        let state = &mut self.state;
        match change {
            Change::Lead { node, addr } => {
                state.nodes.insert(node, addr);
                state.leader = node;
            }
            Change::PutTopic { name, config } => {
                if let Some(topic) = state.topics.get_mut(&name) {
                    topic.config = config;
                } else if state.topics.len() < TOPICS_MAX {
                    state.topics.insert(name, Topic { config, queues: Vec::new() });
                }
            }
            Change::EnsureTopic { name, config } => {
                if !state.topics.contains_key(&name) && state.topics.len() < TOPICS_MAX {
                    state.topics.insert(name, Topic { config, queues: Vec::new() });
                }
            }
            Change::DeleteTopic { name } => {
                state.topics.remove(&name);
                state.recent.order.retain(|(of, _)| *of != name);
                state.recent.places.retain(|(of, _), _| *of != name);
                state.offsets.values_mut().for_each(|of| of.retain(|(topic, _), _| *topic != name));
                state.offsets.retain(|_, of| !of.is_empty());
            }
            Change::Offsets(changes) => {
                for OffsetChange { group, topic, queue, offset } in changes {
                    let key = (topic, queue);
                    let known = state.offsets.get(&group).is_some_and(|of| of.contains_key(&key));
                    if !known
                        && state.offsets.values().map(BTreeMap::len).sum::<usize>() >= OFFSETS_MAX
                    {
                        return;
                    }
                    state.offsets.entry(group).or_default().insert(key, offset);
                }
            }
            Change::Lock { request, now_ms } => {
                let held = state.locks.entry(request.group).or_default();
                for queue in request.queues {
                    let taken = held.get(&queue).is_some_and(|holder| {
                        holder.client != request.client && now_ms - holder.since_ms < LOCK_LEASE_MS
                    });
                    if !taken {
                        let holder = Holder { client: request.client.clone(), since_ms: now_ms };
                        held.insert(queue, holder);
                    }
                }
            }
            Change::Unlock(request) => {
                let Some(held) = state.locks.get_mut(&request.group) else { return };
                for queue in &request.queues {
                    if held.get(queue).is_some_and(|holder| holder.client == request.client) {
                        held.remove(queue);
                    }
                }
                if held.is_empty() {
                    state.locks.remove(&request.group);
                }
            }
            _ => unreachable!("that build had no such records"),
        }
    }
}

/// Names of topics, groups, clients and addresses: plain ones, and ones that are too long today.
fn name(n: u8, long: usize) -> String {
    match n {
        0..4 => format!("T{n}"),
        4 => "%RETRY%g".to_owned(),
        _ => "n".repeat(long + usize::from(n)),
    }
}

fn sent(topic: &str, queue: i32, key: u8, delayed: bool, stored_ms: i64) -> Message {
    let mut properties = format!("UNIQ_KEY\u{1}k{key}\u{2}KEYS\u{1}a b{key}\u{2}TAGS\u{1}t\u{2}");
    let (mut at, mut queue) = (topic.to_owned(), queue);
    if delayed {
        properties += &format!("REAL_TOPIC\u{1}{topic}\u{2}REAL_QID\u{1}{queue}\u{2}");
        (at, queue) = (DELAY_TOPIC.to_owned(), 2);
    }
    Message { properties, stored_ms, ..message(&at, queue) }
}

/// A record of an old build, made of small numbers.
fn old_record((kind, a, b, c): (u8, u8, u8, u8), now_ms: i64) -> Bytes {
    let (topic, group) = (name(a % 7, 300), format!("g{}", name(b % 6, 400)));
    let config = TopicConfig::with_queues(u32::from(c % 4) + 1);
    let queues = (0..u32::from(c % 5)).map(|queue| (topic.clone(), queue)).collect();
    let request = || LockRequest { group: group.clone(), client: name(c % 6, 500), queues };
    match kind {
        0 => change(&Change::PutTopic { name: topic, config }),
        1 => change(&Change::EnsureTopic { name: topic, config }),
        2 => change(&Change::DeleteTopic { name: topic }),
        3 | 4 => {
            let offset = |queue: u32| OffsetChange {
                group: group.clone(),
                topic: topic.clone(),
                queue: if c == 9 { QUEUES_MAX + queue } else { queue },
                offset: now_ms as u64,
            };
            change(&Change::Offsets((0..u32::from(c % 3) + 1).map(offset).collect()))
        }
        5 | 6 => change(&Change::Lock { request: request(), now_ms }),
        7 => change(&Change::Unlock(request())),
        8 => change(&Change::Lead { node: u64::from(a), addr: name(b % 6, 300) }),
        9..13 => record(&[sent(&topic, i32::from(b % 4), c % 5, kind == 9, now_ms)], kind % 2 == 1),
        13 => delivery(3, u64::from(a % 6), &sent(&topic, 0, c, false, now_ms)),
        14 => Bytes::from_static(b"\x02junk"),
        _ => Bytes::from_static(b"\x63"),
    }
}

/// What a newer build writes behind it: each answer depends on what the old records left.
fn new_records(now_ms: i64) -> Vec<Bytes> {
    let mut all = vec![change(&Change::Rules { version: Rules::NEWEST.version() })];
    for n in 0..5 {
        let topic = name(n, 0);
        for key in 0..5 {
            all.push(record(&[sent(&topic, 0, key, false, now_ms)], true));
            all.push(record(&[sent(&topic, 0, key, true, now_ms)], true));
        }
        let queues = vec![(topic.clone(), 0), (topic.clone(), 3)];
        let request = LockRequest { group: "gT1".to_owned(), client: "T2".to_owned(), queues };
        all.push(change(&Change::Lock { request, now_ms }));
        let (group, since) = ("gT1".to_owned(), 0);
        let reported = ReportedOffset { group, topic: topic.clone(), queue: 0, offset: 9, since };
        all.push(change(&Change::ReportedOffsets(vec![reported])));
        if n == 1 {
            all.push(change(&Change::Decide(Decision::Delete { name: topic })));
        } else if n < 4 {
            let config = TopicConfig::with_queues(2);
            all.push(change(&Change::Decide(Decision::Put { name: topic, log: HOME_LOG, config })));
        }
    }
    all
}

impl Log {
    fn state_bytes(&self) -> Vec<u8> {
        codec::encode(&*self.shared.state())
    }

    /// A log that goes on from a checkpoint at this index.
    fn from_checkpoint(bytes: &[u8], index: u64) -> Self {
        let mut log = Self::old();
        log.machine.restore(&mut &*bytes).expect("a checkpoint of an old build");
        log.index = index;
        log
    }
}

proptest! {
    #[test]
    fn replay_and_an_old_checkpoint_come_to_the_same_state(
        steps in proptest::collection::vec((0..16_u8, any::<u8>(), any::<u8>(), 0..10_u8, 0..30_000_i64), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(steps.len() + 1);
        let (mut old, mut replayed, mut now_ms) = (OldBuild::new(), Log::old(), 1);
        let mut restored = None;
        for (at, (kind, a, b, c, pause)) in steps.into_iter().enumerate() {
            if at == cut {
                restored = Some(Log::from_checkpoint(&old.checkpoint(), replayed.index));
            }
            now_ms += pause;
            let payload = old_record((kind, a, b, c), now_ms);
            old.apply(&Record::new(replayed.index, 1, payload.clone()));
            replayed.apply(payload.clone());
            if let Some(restored) = &mut restored {
                restored.apply(payload);
            }
        }
        let mut restored = restored.unwrap_or_else(|| Log::from_checkpoint(&old.checkpoint(), replayed.index));
        prop_assert_eq!(&*replayed.shared.state(), &*restored.shared.state());
        // A checkpoint of ours in between is as good.
        let mut again = Log::from_checkpoint(&replayed.checkpoint(), replayed.index);
        for payload in new_records(now_ms) {
            let answer = replayed.apply(payload.clone());
            prop_assert_eq!(&restored.apply(payload.clone()), &answer);
            prop_assert_eq!(&again.apply(payload), &answer);
        }
        prop_assert_eq!(&*replayed.shared.state(), &*restored.shared.state());
        prop_assert_eq!(replayed.state_bytes(), restored.state_bytes());
        prop_assert_eq!(replayed.state_bytes(), again.state_bytes());
    }
}

/// Raised, the rules of today hold for what comes.
#[test]
fn topics_of_old_records_may_have_more_queues_than_topics_may_have_today() {
    let (mut old, mut replayed) = (OldBuild::new(), Log::old());
    let count = ALL_QUEUES_MAX / QUEUES_MAX as usize + 3;
    for n in 0..count {
        let config = TopicConfig::with_queues(QUEUES_MAX);
        let payload = change(&Change::PutTopic { name: format!("T{n}"), config });
        old.apply(&Record::new(replayed.index, 1, payload.clone()));
        assert_eq!(replayed.apply(payload), Answer::Done);
    }
    let mut restored = Log::from_checkpoint(&old.checkpoint(), replayed.index);
    for log in [&mut replayed, &mut restored] {
        log.change(Change::Rules { version: Rules::NEWEST.version() });
        assert_eq!(log.shared.state().topics().count(), count);
        let (name, config) = ("%RETRY%g".to_owned(), TopicConfig::with_queues(1));
        let answer = log.change(Change::EnsureTopic { name, config });
        assert!(matches!(answer, Answer::Refused(Refusal::Full(_))), "{answer:?}");
    }
    assert_eq!(replayed.state_bytes(), restored.state_bytes());
}

#[test]
fn a_message_that_an_old_build_delayed_is_not_delayed_twice() {
    let delayed = |topic: &str| record(&[sent(topic, 0, 1, true, 5)], true);
    let mut log = Log::old();
    log.topic("T0", 1);
    assert_eq!(log.offsets(delayed("T0")), [0]);
    assert_eq!(log.offsets(delayed("T0")), [0], "as that build did");
    log.change(Change::Rules { version: Rules::NEWEST.version() });
    assert_eq!(log.offsets(delayed("T0")), [0], "its key is remembered under the old name");
    assert_eq!(
        log.offsets(record(&[sent("T0", 0, 1, false, 5)], true)),
        [0],
        "it is another queue's"
    );
}

#[test]
fn the_first_record_that_older_builds_did_not_have_raises_the_rules() {
    let raising =
        [change(&Change::Decide(Decision::Delete { name: "T".to_owned() })), deliveries(3, 0, &[])];
    for payload in raising {
        let mut log = Log::old();
        log.apply(payload);
        assert_eq!(log.shared.state().rules(), Rules::Version3);
        log.change(Change::Rules { version: 2 });
        assert_eq!(log.shared.state().rules(), Rules::Version3, "they never go back");
        log.change(Change::Rules { version: 4 });
        assert_eq!(log.shared.state().rules(), Rules::Version4);
    }
}

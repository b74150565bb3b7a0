//! Checkpoints of version 2, which had few limits. All of it is taken over, as by the rules 2; what is over a limit goes
//! when the rules are raised (`rules`). Only of names that are too long it is what stands for them that is kept.

use std::collections::{BTreeMap, VecDeque};

use quorumlog::codec::{self, CodecError};
use serde::Deserialize;

use super::super::State;
use super::super::command::Placed;
use super::super::index::index_files::FileName;
use super::super::index::keys::Keys;
use super::super::index::voids::Voids;
use super::super::name::bounded;
use super::super::queue::Queue;
use super::super::recent::{Digest, Recent};
use super::super::topics::{Topic, TopicConfig};
use super::old_locks::OldLocks;

type QueueName<'a> = (&'a str, u32);

#[derive(Deserialize)]
struct Holder<'a> {
    client: &'a str,
    since_ms: i64,
}

#[derive(Deserialize)]
struct OldTopic {
    config: TopicConfig,
    queues: Vec<Queue>,
}

impl OldTopic {
    /// A topic that no registry has taken over.
    fn into_topic(self) -> Topic {
        Topic { config: self.config, incarnation: 0, since: 0, queues: self.queues }
    }
}

#[derive(Deserialize)]
struct OldRecent<'a> {
    #[serde(borrow)]
    order: VecDeque<(&'a str, &'a str)>,
    places: BTreeMap<(&'a str, &'a str), Placed>,
}

/// Names are borrowed: what is left out is never copied.
#[derive(Deserialize)]
struct OldState<'a> {
    #[serde(borrow)]
    topics: BTreeMap<&'a str, OldTopic>,
    offsets: BTreeMap<&'a str, BTreeMap<QueueName<'a>, u64>>,
    locks: BTreeMap<&'a str, BTreeMap<QueueName<'a>, Holder<'a>>>,
    nodes: BTreeMap<u64, &'a str>,
    leader: u64,
    delivered: BTreeMap<u8, u64>,
    stored_ms: i64,
    recent: OldRecent<'a>,
    keys: Keys,
    voids: Voids,
}

/// Reads what follows the version.
///
/// # Errors
/// It is no state of that version.
pub(in crate::state) fn decode(body: &[u8]) -> Result<(State, Vec<FileName>), CodecError> {
    let (old, files): (OldState<'_>, _) = codec::decode_large(body)?;
    let mut state = State {
        leader: old.leader,
        delivered: old.delivered,
        stored_ms: old.stored_ms,
        keys: old.keys,
        voids: old.voids,
        ..State::default()
    };
    let topics = old.topics.into_iter();
    let topics = topics.map(|(name, topic)| (bounded(name).into_owned(), topic.into_topic()));
    state.topics = topics.collect::<BTreeMap<_, _>>().into();
    for (group, offsets) in old.offsets {
        for ((topic, queue), offset) in offsets {
            // It was within the limit.
            let _ = state.offsets.set_old(&bounded(group), &bounded(topic), queue, offset);
        }
    }
    state.old_locks = restore_locks(old.locks);
    let nodes = old.nodes.into_iter();
    state.nodes = nodes.map(|(node, addr)| (node, bounded(addr).into_owned())).collect();
    state.recent = restore_recent(&old.recent);
    Ok((state, files))
}

fn restore_locks(old: BTreeMap<&str, BTreeMap<QueueName<'_>, Holder<'_>>>) -> OldLocks {
    let mut locks = OldLocks::default();
    for (group, held) in old {
        locks.put_group(group);
        for ((topic, queue), Holder { client, since_ms }) in held {
            locks.put(group, topic, queue, client, since_ms);
        }
    }
    locks
}

fn restore_recent(old: &OldRecent<'_>) -> Recent {
    let mut recent = Recent::default();
    for (topic, key) in &old.order {
        if let Some(placed) = old.places.get(&(*topic, *key)) {
            recent.put(Digest::of(topic, key), *placed);
        }
    }
    recent
}

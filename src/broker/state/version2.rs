//! Checkpoints of version 2, which had few limits: what is over one is left out as they are read.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use super::command::{LockRequest, Placed};
use super::index_files::FileName;
use super::keys::Keys;
use super::queue::Queue;
use super::recent::{Digest, Recent};
use super::topics::{State, Topic, TopicConfig};
use super::voids::Voids;
use crate::broker::limits::{
    ADDR_BYTES_MAX, LOCK_QUEUES_MAX, NODES_MAX, STORED_TOPIC_BYTES_MAX, TOPICS_MAX,
};
use crate::format::codec::{self, CodecError};

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
pub(super) fn decode(body: &[u8]) -> Result<(State, Vec<FileName>), CodecError> {
    let (old, files): (OldState<'_>, _) = codec::decode_large(body)?;
    let mut state = State {
        leader: old.leader,
        delivered: old.delivered,
        stored_ms: old.stored_ms,
        keys: old.keys,
        voids: old.voids,
        ..State::default()
    };
    let mut left_out = 0_usize;
    let topics = old.topics.into_iter().filter(|(name, _)| name.len() <= STORED_TOPIC_BYTES_MAX);
    let topics = topics.take(TOPICS_MAX).map(|(name, topic)| (name.to_owned(), topic.into_topic()));
    state.topics = topics.collect::<BTreeMap<_, _>>().into();
    for (group, offsets) in old.offsets {
        for ((topic, queue), offset) in offsets {
            let noted = state.offsets.set(group, topic, queue, offset);
            left_out += usize::from(noted.is_err());
        }
    }
    for (group, held) in old.locks {
        left_out += restore_locks(&mut state, group, held);
    }
    let nodes = old.nodes.into_iter().rev().filter(|(_, addr)| addr.len() <= ADDR_BYTES_MAX);
    state.nodes = nodes.take(NODES_MAX).map(|(node, addr)| (node, addr.to_owned())).collect();
    state.recent = restore_recent(&old.recent);
    if left_out > 0 {
        tracing::warn!(left_out, "offsets and locks of an older checkpoint were over the limits");
    }
    Ok((state, files))
}

/// Takes a group's locks over, each as of when it was renewed; returns how many could not be.
fn restore_locks(
    state: &mut State,
    group: &str,
    held: BTreeMap<QueueName<'_>, Holder<'_>>,
) -> usize {
    let mut left_out = 0;
    let mut requests: BTreeMap<(i64, &str), Vec<QueueName<'_>>> = BTreeMap::new();
    for (queue, Holder { client, since_ms }) in held {
        requests.entry((since_ms, client)).or_default().push(queue);
    }
    for ((since_ms, client), queues) in requests {
        for queues in queues.chunks(LOCK_QUEUES_MAX) {
            let request = LockRequest {
                group: group.to_owned(),
                client: client.to_owned(),
                queues: queues.iter().map(|(topic, queue)| ((*topic).to_owned(), *queue)).collect(),
            };
            let locked = state.locks.lock(request, since_ms).map_or(0, |locked| locked.len());
            left_out += queues.len() - locked;
        }
    }
    left_out
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

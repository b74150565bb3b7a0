//! Checkpoints of version 3.

use std::collections::BTreeMap;
use std::io::{self, Read};

use quorumlog::codec;
use serde::Deserialize;

use super::super::State;
use super::super::index::index_files::FileName;
use super::super::index::keys::Keys;
use super::super::index::voids::Voids;
use super::super::locks::Locks;
use super::super::offsets::Offsets;
use super::super::recent::Recent;
use super::super::rules::Rules;
use super::super::topics::Topics;
use super::super::topics::registry::RegistryVersion3;

#[derive(Deserialize)]
struct StateVersion3 {
    topics: Topics,
    offsets: Offsets,
    locks: Locks,
    nodes: BTreeMap<u64, String>,
    leader: u64,
    delivered: BTreeMap<u8, u64>,
    stored_ms: i64,
    recent: Recent,
    keys: Keys,
    voids: Voids,
    registry: RegistryVersion3,
    followed: u64,
}

/// Reads what follows the version.
///
/// # Errors
/// It is no state of that version.
pub(in crate::state) fn decode(from: &mut dyn Read) -> io::Result<(State, Vec<FileName>)> {
    let (old, files): (StateVersion3, _) = codec::decode_from(from)?;
    let state = State {
        topics: old.topics,
        offsets: old.offsets,
        locks: old.locks,
        nodes: old.nodes,
        leader: old.leader,
        delivered: old.delivered,
        stored_ms: old.stored_ms,
        recent: old.recent,
        keys: old.keys,
        voids: old.voids,
        registry: old.registry.into(),
        followed: old.followed,
        rules: Rules::Version3,
        ..State::default()
    };
    Ok((state, files))
}

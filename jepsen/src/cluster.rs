//! What a history says about the nodes: what they said of themselves, what they held, what was done to them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The value that stands for a payload in a history: FNV-1a of its bytes, in 63 bits so that it is a number in
/// every language that reads histories.
pub fn value_of(payload: &[u8]) -> u64 {
    let hash = payload.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    // The last bytes have reached only the low bits.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed ^ (mixed >> 32)) >> 1
}

/// Whom a node has voted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Term of the vote.
    pub term: u64,
    /// The candidate.
    pub node: u64,
    /// Whether a majority is known to have voted for it, so that it leads.
    pub committed: bool,
}

/// What a node said about itself at one moment. Positions are half open, as quorumlog's watermarks are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// When. The [`Recorder`](crate::Recorder) sets it.
    pub time: u64,
    /// Which node.
    pub node: u64,
    /// Which data directory of it. A node whose disk was replaced has another, and starts anew.
    #[serde(default)]
    pub incarnation: u64,
    /// How often it was started with this data directory. What it keeps in memory only may go back when this grows.
    pub restarts: u64,
    /// Its term.
    pub term: u64,
    /// Its vote, if that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote: Option<Vote>,
    /// First index that it holds.
    pub begin: u64,
    /// One past the last index that its readers may see.
    pub committed: u64,
    /// One past the last index that it applied, if that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
    /// One past the last index in its log.
    pub end: u64,
}

/// A node that was seen to lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// When that was first seen.
    pub time: u64,
    /// Which node.
    pub node: u64,
    /// In which term.
    pub term: u64,
}

/// From `time` on, retention was allowed to remove everything below `before`.
///
/// What lies below the highest of these may be gone without being lost; what lies above may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trim {
    /// When.
    pub time: u64,
    /// First index that has to stay.
    pub before: u64,
}

/// So many voters lost pages that they could not tell what the others had: what no majority had flushed may be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When they became too many.
    pub time: u64,
    /// When enough of them were trusted again; none if that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The first index that no majority had flushed.
    pub from: u64,
    /// What was acknowledged before this had to be flushed by a majority.
    pub since: u64,
}

/// A fault was put in, or one that was put in before took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub time: u64,
    /// Which kind, such as `kill` or `partition`.
    pub kind: String,
    /// How often it was put in: 1, or 0 if this only tells of bites.
    pub injected: u64,
    /// How often it took effect: processes that died, frames that were lost, bytes that were torn.
    pub bites: u64,
}

/// Sums over one kind of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    /// How often it was put in.
    pub injected: u64,
    /// How often it took effect.
    pub bites: u64,
}

/// Kinds of entries in a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Appended by a client. The only kind that readers see.
    Record,
    /// A new leader's first entry.
    Blank,
    /// A change of members.
    Membership,
}

/// One entry of a replica. In text a vector: `[index, term, kind, value]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, EntryKind, u64)", into = "(u64, u64, EntryKind, u64)")]
pub struct Entry {
    /// Position in the log.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Of a record, the value that its append had; of others, a hash of what they hold.
    pub value: u64,
}

impl From<(u64, u64, EntryKind, u64)> for Entry {
    fn from((index, term, kind, value): (u64, u64, EntryKind, u64)) -> Self {
        Self { index, term, kind, value }
    }
}

impl From<Entry> for (u64, u64, EntryKind, u64) {
    fn from(entry: Entry) -> Self {
        (entry.index, entry.term, entry.kind, entry.value)
    }
}

/// What one member held in the end. All entries are to be read from its storage, not from its cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// When. The [`Recorder`](crate::Recorder) sets it.
    pub time: u64,
    /// Which node.
    pub node: u64,
    /// Index and term of the last entry that retention or a snapshot has removed; none if nothing is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<(u64, u64)>,
    /// First index that it holds.
    pub begin: u64,
    /// One past the last committed index.
    pub committed: u64,
    /// Every entry from `begin` on, in the order in which they lie, uncommitted ones too.
    pub entries: Vec<Entry>,
}

impl Replica {
    /// One past the last index that it holds.
    pub fn end(&self) -> u64 {
        self.entries.last().map_or(self.begin, |entry| entry.index.saturating_add(1))
    }
}

/// What a run must have gone through, so that its passing shows something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Kinds of faults that must have bitten.
    #[serde(default)]
    pub faults: BTreeSet<String>,
    /// How often the leader must have changed.
    #[serde(default)]
    pub leader_changes: u64,
    /// At least so many of a hundred appends and reads must have been `ok`.
    pub ok_percent: u64,
    /// How soon the cluster must be well after the faults; none if the run has no such phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Liveness>,
}

impl Default for Requirements {
    fn default() -> Self {
        Self { faults: BTreeSet::new(), leader_changes: 0, ok_percent: 30, liveness: None }
    }
}

/// How soon the cluster must be well after the last fault was taken out. Nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// All replicas are equal within this time.
    pub converge_within: u64,
    /// Of the appends and reads called after that, 99 of 100 are answered within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond_within: Option<u64>,
}

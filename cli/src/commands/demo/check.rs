//! Compares what was acknowledged with what each node holds. Pure, so that tests can plant losses.

use std::collections::HashMap;
use std::fmt;

use quorumlog::NodeId;

use super::ledger::Ledger;
use super::records::id_of;

/// Problems that are told one by one; the others are only counted.
const TOLD_MAX: usize = 20;

/// One record as a node holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) struct HeldRecord {
    index: u64,
    term: u64,
    crc: u32,
    /// The number that its payload carries, if it is one of ours.
    id: Option<u64>,
}

/// All records of one node, in the order in which it gave them.
#[derive(Debug, Clone)]
pub(in crate::commands) struct Held {
    node: NodeId,
    records: Vec<HeldRecord>,
}

impl Held {
    pub(in crate::commands) fn new(node: NodeId) -> Self {
        Self { node, records: Vec::new() }
    }

    pub(in crate::commands) fn push(&mut self, index: u64, term: u64, payload: &[u8]) {
        let (crc, id) = (crc32fast::hash(payload), id_of(payload));
        self.records.push(HeldRecord { index, term, crc, id });
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum Problem {
    /// A node does not hold an acknowledged record at its index.
    Missing { node: NodeId, id: u64, index: u64 },
    /// A node holds something else there.
    Changed { node: NodeId, id: u64, index: u64 },
    /// A record lies before one that was acknowledged before its append began.
    Reordered { id: u64, index: u64, floor: u64 },
    /// Indexes or terms of a node do not rise.
    Unordered { node: NodeId, index: u64, before: u64 },
    /// A node holds more copies of a record than appends can have made.
    Duplicated { node: NodeId, id: u64, copies: u64, allowed: u64 },
    /// A node holds a record that nobody appended.
    Foreign { node: NodeId, index: u64 },
    /// Two nodes differ in their record number `at`, counted from 0.
    Differs { node: NodeId, from: NodeId, at: usize },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { node, id, index } => {
                write!(f, "node {node} lacks record {id}, acknowledged at index {index}")
            }
            Self::Changed { node, id, index } => {
                write!(f, "node {node} holds something else than record {id} at index {index}")
            }
            Self::Reordered { id, index, floor } => write!(
                f,
                "record {id} is at index {index}, though {floor} was acknowledged before it was sent"
            ),
            Self::Unordered { node, index, before } => {
                write!(f, "node {node} gave index {index} after {before}, or a lower term")
            }
            Self::Duplicated { node, id, copies, allowed } => {
                write!(
                    f,
                    "node {node} holds {copies} copies of record {id}, at most {allowed} sent"
                )
            }
            Self::Foreign { node, index } => {
                write!(f, "node {node} holds a record at index {index} that nobody sent")
            }
            Self::Differs { node, from, at } => {
                write!(f, "node {node} differs from node {from} in its record number {at}")
            }
        }
    }
}

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::commands) struct Findings {
    /// Acknowledged records found at their index with their checksum, over all nodes.
    pub(in crate::commands) verified: u64,
    /// Records on the first node beyond the first copy of each: appends of unknown outcome that
    /// happened after all.
    pub(in crate::commands) duplicates: u64,
    /// The first problems.
    pub(in crate::commands) told: Vec<Problem>,
    /// All problems.
    pub(in crate::commands) problems: u64,
}

impl Findings {
    fn add(&mut self, problem: Problem) {
        self.problems += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(problem);
        }
    }
}

/// Compares. Every node must hold every acknowledged record, and all the same records.
pub(in crate::commands) fn check(ledger: &Ledger, nodes: &[Held]) -> Findings {
    let mut findings = Findings::default();
    for (id, entry) in ledger.iter() {
        if let Some((index, _)) = entry.acknowledged
            && index < entry.floor
        {
            findings.add(Problem::Reordered { id, index, floor: entry.floor - 1 });
        }
    }
    for (at, held) in nodes.iter().enumerate() {
        check_order(held, &mut findings);
        check_acknowledged(ledger, held, &mut findings);
        let duplicates = check_copies(ledger, held, &mut findings);
        match nodes.first() {
            Some(first) if at > 0 => check_same(first, held, &mut findings),
            _ => findings.duplicates = duplicates,
        }
    }
    findings
}

fn check_order(held: &Held, findings: &mut Findings) {
    for pair in held.records.windows(2) {
        let [before, after] = pair else { continue };
        if after.index <= before.index || after.term < before.term {
            let (index, before) = (after.index, before.index);
            findings.add(Problem::Unordered { node: held.node, index, before });
        }
    }
}

fn check_acknowledged(ledger: &Ledger, held: &Held, findings: &mut Findings) {
    let at: HashMap<u64, &HeldRecord> =
        held.records.iter().map(|record| (record.index, record)).collect();
    let node = held.node;
    for (id, entry) in ledger.iter() {
        let Some((index, term)) = entry.acknowledged else { continue };
        match at.get(&index) {
            None => findings.add(Problem::Missing { node, id, index }),
            Some(record)
                if record.id != Some(id) || record.crc != entry.crc || record.term != term =>
            {
                findings.add(Problem::Changed { node, id, index });
            }
            Some(_) => findings.verified += 1,
        }
    }
}

/// Returns how many records are further copies.
fn check_copies(ledger: &Ledger, held: &Held, findings: &mut Findings) -> u64 {
    let node = held.node;
    let mut copies: HashMap<u64, u64> = HashMap::new();
    for record in &held.records {
        match record.id.and_then(|id| Some((id, ledger.get(id)?))) {
            Some((id, entry)) if entry.crc == record.crc => *copies.entry(id).or_default() += 1,
            _ => findings.add(Problem::Foreign { node, index: record.index }),
        }
    }
    let mut duplicates = 0;
    for (id, copies) in copies {
        let Some(entry) = ledger.get(id) else { continue };
        let allowed = u64::from(entry.unknown) + u64::from(entry.acknowledged.is_some());
        if copies > allowed {
            findings.add(Problem::Duplicated { node, id, copies, allowed });
        }
        duplicates += copies - 1;
    }
    duplicates
}

fn check_same(first: &Held, held: &Held, findings: &mut Findings) {
    let (ours, theirs) = (&held.records, &first.records);
    let differs = ours.iter().zip(theirs).position(|(a, b)| a != b);
    let shorter = (ours.len() != theirs.len()).then_some(ours.len().min(theirs.len()));
    if let Some(at) = differs.or(shorter) {
        findings.add(Problem::Differs { node: held.node, from: first.node, at });
    }
}

#[cfg(test)]
mod tests;

//! Makes legal histories illegal, each time in one way.

mod clients;
mod cluster;

use jepsen::{Action, Anomaly, EntryKind, History, Operation, Outcome};

use crate::generator::Random;

/// Changes a history, or finds nothing in it to change.
type Change = fn(&mut History, &mut Random) -> Option<()>;

/// A way to break a history, and what the checker must find then.
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    pub(crate) anomaly: Anomaly,
    pub(crate) change: Change,
}

/// Every way.
pub(crate) fn all() -> Vec<Mutation> {
    let table = clients::MUTATIONS.iter().chain(cluster::MUTATIONS);
    table.map(|&(name, anomaly, change)| Mutation { name, anomaly, change }).collect()
}

type Row = (&'static str, Anomaly, Change);

/// Indexes of the operations that fit.
fn places(history: &History, fits: impl Fn(&Operation) -> bool) -> Vec<usize> {
    (0..history.operations.len()).filter(|at| fits(&history.operations[*at])).collect()
}

/// Some operation that fits.
fn some(
    history: &History,
    random: &mut Random,
    fits: impl Fn(&Operation) -> bool,
) -> Option<usize> {
    random.pick(&places(history, fits)).copied()
}

/// First index of an acknowledged append.
fn acknowledged(op: &Operation) -> Option<u64> {
    match op.action {
        Action::Append { index, .. } | Action::AppendBatch { index, .. }
            if op.outcome == Outcome::Ok =>
        {
            index
        }
        _ => None,
    }
}

/// What readers were given, in the order given.
fn records(op: &mut Operation) -> Option<&mut Vec<(u64, u64)>> {
    match &mut op.action {
        Action::Read { records, .. } | Action::Deliver { records, .. } => Some(records),
        _ => None,
    }
}

/// Below this, some replica or the final read holds nothing.
fn begin(history: &History) -> u64 {
    history.replicas.iter().map(|replica| replica.begin).max().unwrap_or(0)
}

/// One past the last index.
fn end(history: &History) -> u64 {
    history.replicas.iter().map(|replica| replica.committed).max().unwrap_or(0)
}

/// Makes a record a blank, in the end and on all nodes.
fn blank_out(history: &mut History, index: u64) {
    for replica in &mut history.replicas {
        for entry in replica.entries.iter_mut().filter(|entry| entry.index == index) {
            (entry.kind, entry.value) = (EntryKind::Blank, 0);
        }
    }
    for op in &mut history.operations {
        if let Action::FinalRead { records, .. } = &mut op.action {
            records.retain(|record| record.0 != index);
        }
    }
}

/// Adds a committed record to the end, on all nodes.
fn add_record(history: &mut History, value: u64) {
    let index = end(history);
    for replica in &mut history.replicas {
        if let Some(mut entry) = replica.entries.last().copied() {
            (entry.index, entry.kind, entry.value) = (index, EntryKind::Record, value);
            replica.entries.push(entry);
            replica.committed = index + 1;
        }
    }
    for op in &mut history.operations {
        if let Action::FinalRead { to, records, .. } = &mut op.action {
            records.push((index, value));
            *to = index + 1;
        }
    }
}

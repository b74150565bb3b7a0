//! C1, C3, C4: every acknowledged append is in the log at its place, and nothing else is in the log.

use super::attempts::Attempts;
use super::truth::Truth;
use crate::cluster::Replica;
use crate::history::{History, Operation, Outcome};
use crate::report::{Anomaly, Violations};

pub(super) fn check(
    history: &History,
    attempts: &Attempts<'_>,
    truth: &Truth,
    violations: &mut Violations,
) {
    for op in &history.operations {
        acknowledged(op, truth, violations);
        in_term(op, &history.replicas, violations);
        batch(op, truth, violations);
    }
    origins(attempts, truth, violations);
}

/// What was acknowledged lies where the client was told, unless retention was allowed to remove it.
fn acknowledged(op: &Operation, truth: &Truth, violations: &mut Violations) {
    let Some((first, _)) = op.action.acknowledged().filter(|_| op.outcome == Outcome::Ok) else {
        return;
    };
    for (index, &value) in (first..).zip(op.action.values()) {
        let there = truth.at(index);
        if there == Some(value) {
            if index < truth.held.start && index >= truth.trimmable {
                let detail = || format!("{value} was acknowledged, and nobody had trimmed the log");
                violations.add(Anomaly::LostWrite, Some(index), detail);
            }
            continue;
        }
        if truth.position(value).is_none() && truth.losses.may_lose(op, index) {
            continue;
        }
        match (truth.position(value), there) {
            (Some(found), _) => {
                let detail = || format!("{value} was acknowledged here, and lies at {found}");
                violations.add(Anomaly::MovedWrite, Some(index), detail);
            }
            (None, _) if index >= truth.held.start => {
                let detail = || format!("{value} was acknowledged by {op:?}");
                violations.add(Anomaly::LostWrite, Some(index), detail);
            }
            // Two values were seen at an index that is gone: reported as such.
            (None, _) => {}
        }
        if let Some(there) = there.filter(|_| index >= truth.held.start) {
            let detail = || format!("{value} was acknowledged, and {there} is there");
            violations.add(Anomaly::InconsistentOffsets, Some(index), detail);
        }
    }
}

/// What was acknowledged in a term was committed in it.
fn in_term(op: &Operation, replicas: &[Replica], violations: &mut Violations) {
    let acknowledged = op.action.acknowledged().filter(|_| op.outcome == Outcome::Ok);
    let Some((index, Some(term))) = acknowledged else { return };
    for replica in replicas {
        let found = replica.entries.binary_search_by_key(&index, |entry| entry.index);
        let Some(entry) = found.ok().and_then(|at| replica.entries.get(at)) else { continue };
        if entry.term != term && op.action.values().first() == Some(&entry.value) {
            let (held, node) = (entry.term, replica.node);
            let detail =
                || format!("acknowledged in term {term}, and of term {held} on node {node}");
            violations.add(Anomaly::MovedWrite, Some(index), detail);
        }
    }
}

/// A batch lies in a row, and all of it is there or nothing. What was trimmed cannot be told.
fn batch(op: &Operation, truth: &Truth, violations: &mut Violations) {
    let values = op.action.values();
    if values.len() < 2 {
        return;
    }
    let places: Vec<_> = values.iter().map(|value| truth.position(*value)).collect();
    let Some((at, found)) = places.iter().zip(0u64..).find_map(|(place, at)| Some((at, (*place)?)))
    else {
        return;
    };
    let expected = |position: u64| (found + position).checked_sub(at);
    let misplaced = places.iter().zip(0..).find(|&(place, position)| {
        let due = expected(position);
        *place != due && (place.is_some() || due.is_none_or(|index| index >= truth.held.start))
    });
    if let Some((place, position)) = misplaced {
        let detail = || {
            let due = expected(position);
            format!(
                "record {position} of a batch should be at {due:?}, and is at {place:?}: {op:?}"
            )
        };
        violations.add(Anomaly::TornBatch, Some(found), detail);
    }
}

/// Everything in the log was appended by somebody, and had not failed.
fn origins(attempts: &Attempts<'_>, truth: &Truth, violations: &mut Violations) {
    for &(index, value) in &truth.records {
        match attempts.of(value).map(|attempt| attempts.operation(attempt).outcome) {
            None => {
                let detail = || format!("nobody appended {value}");
                violations.add(Anomaly::Phantom, Some(index), detail);
            }
            Some(Outcome::Fail) => {
                let detail = || format!("the append of {value} had failed");
                violations.add(Anomaly::AbortedWrite, Some(index), detail);
            }
            Some(Outcome::Ok | Outcome::Info) => {}
        }
    }
}

//! C7, and the replicas' part of C3: nodes never go back, and hold the same.

use std::collections::BTreeMap;

use super::losses::Losses;
use crate::cluster::{Entry, Observation, Replica, Vote};
use crate::history::History;
use crate::report::{Anomaly, Violations};

/// How many facts were looked at; none if nothing was recorded.
pub(super) fn check(history: &History, violations: &mut Violations) -> u64 {
    observations(&history.observations, &Losses::new(history), violations);
    leaders(history, violations);
    for replica in &history.replicas {
        log(replica, violations);
    }
    agreement(&history.replicas, violations);
    let entries: usize = history.replicas.iter().map(|replica| replica.entries.len()).sum();
    (history.observations.len() + history.leaders.len() + history.replicas.len() + entries) as u64
}

fn observations(observations: &[Observation], losses: &Losses, violations: &mut Violations) {
    let mut last: BTreeMap<(u64, u64), &Observation> = BTreeMap::new();
    for now in observations {
        let Observation { node, time, begin, committed, end, .. } = *now;
        if !(begin <= committed && committed <= end) {
            let detail = || format!("node {node} at {time}: begin {begin}, end {end}");
            violations.add(Anomaly::WatermarksDisordered, Some(committed), detail);
        }
        if let Some(before) = last.insert((node, now.incarnation), now) {
            durable(before, now, violations);
            if before.restarts == now.restarts {
                volatile(before, now, losses, violations);
            }
        }
    }
}

/// Term and vote are on disk before anybody is told of them: they survive every restart.
fn durable(before: &Observation, now: &Observation, violations: &mut Violations) {
    let (node, time) = (now.node, now.time);
    if now.term < before.term {
        let detail = || format!("node {node} at {time}: from {} to {}", before.term, now.term);
        violations.add(Anomaly::TermRegressed, None, detail);
    }
    let rank = |vote: Vote| (vote.term, vote.committed);
    match (before.vote, now.vote) {
        (Some(old), Some(new)) if rank(new) < rank(old) => {
            let detail = || format!("node {node} at {time}: from {old:?} to {new:?}");
            violations.add(Anomaly::VoteRegressed, None, detail);
        }
        (Some(old), Some(new)) if rank(new) == rank(old) && new.node != old.node => {
            let detail = || format!("node {node} at {time}: {old:?} and {new:?}");
            violations.add(Anomaly::DoubleVote, None, detail);
        }
        _ => {}
    }
}

/// Watermarks are kept in memory, and set from what is on disk at a start: a node that lost power may know less
/// than before of what is committed. While it runs they only grow, unless the cluster has lost records.
fn volatile(before: &Observation, now: &Observation, losses: &Losses, violations: &mut Violations) {
    let (node, time) = (now.node, now.time);
    let applied = before.applied.zip(now.applied);
    let watermarks = [
        ("begin", before.begin, now.begin),
        ("committed", before.committed, now.committed),
        ("applied", applied.map_or(0, |pair| pair.0), applied.map_or(0, |pair| pair.1)),
    ];
    // What the others have lost is not committed any more where it was not lost.
    let rewound = losses.may_rewind(time);
    let allowed = |name: &str| rewound && name != "begin";
    let back = watermarks.into_iter().filter(|(name, old, new)| new < old && !allowed(name));
    for (name, old, new) in back {
        let detail = || format!("node {node} at {time}: {name} went from {old} to {new}");
        violations.add(Anomaly::WatermarkRegressed, Some(new), detail);
    }
}

fn leaders(history: &History, violations: &mut Violations) {
    let mut of_term: BTreeMap<u64, u64> = BTreeMap::new();
    for leader in &history.leaders {
        let first = *of_term.entry(leader.term).or_insert(leader.node);
        if first != leader.node {
            let detail = || format!("nodes {first} and {} in term {}", leader.node, leader.term);
            violations.add(Anomaly::TwoLeaders, None, detail);
        }
    }
}

/// Indexes of a replica follow one another, and its terms never go back.
fn log(replica: &Replica, violations: &mut Violations) {
    let node = replica.node;
    let mut due = replica.begin;
    let mut term = replica.boundary.map_or(0, |(_, term)| term);
    if let Some((index, _)) = replica.boundary.filter(|(index, _)| index + 1 != replica.begin) {
        let detail = || format!("node {node} begins at {}, behind {index}", replica.begin);
        violations.add(Anomaly::LogGap, Some(index), detail);
    }
    for entry in &replica.entries {
        if entry.index != due {
            let detail = || format!("node {node} has no {due}");
            violations.add(Anomaly::LogGap, Some(entry.index), detail);
        }
        if entry.term < term {
            let detail = || format!("node {node}: term {} behind term {term}", entry.term);
            violations.add(Anomaly::LogTermRegressed, Some(entry.index), detail);
        }
        due = entry.index.saturating_add(1);
        term = term.max(entry.term);
    }
    if due < replica.committed {
        let detail = || format!("node {node} ends at {due} and has committed more");
        violations.add(Anomaly::LogGap, Some(replica.committed), detail);
    }
}

/// What two replicas have committed is the same entry, whatever it is.
fn agreement(replicas: &[Replica], violations: &mut Violations) {
    let mut known: BTreeMap<u64, (u64, Entry)> = BTreeMap::new();
    for replica in replicas {
        let node = replica.node;
        for entry in replica.entries.iter().filter(|entry| entry.index < replica.committed) {
            let (peer, other) = *known.entry(entry.index).or_insert((node, *entry));
            if other != *entry {
                let detail = || format!("node {node} has {entry:?}, node {peer} has {other:?}");
                violations.add(Anomaly::DivergentReplica, Some(entry.index), detail);
            }
        }
    }
    for replica in replicas {
        let Some((index, term)) = replica.boundary else { continue };
        if let Some((peer, other)) = known.get(&index).filter(|(_, other)| other.term != term) {
            let node = replica.node;
            let detail =
                || format!("node {node} dropped it in term {term}, node {peer} has {other:?}");
            violations.add(Anomaly::DivergentReplica, Some(index), detail);
        }
    }
}

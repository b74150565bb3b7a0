//! C9: once the faults are over, the cluster is soon well.

use crate::cluster::{Entry, Liveness, Replica};
use crate::history::{Action, History, Operation, Outcome};
use crate::report::{Anomaly, Check, Finding, Violations};

pub(super) fn check(history: &History) -> Finding {
    let Some(required) = &history.required.liveness else {
        return Finding::NotApplicable(
            "no time was set within which the cluster must be well".into(),
        );
    };
    let Some(healed) = history.healed else {
        return Finding::CannotTell("nothing says when the faults were over".to_owned());
    };
    if history.replicas.is_empty() {
        return Finding::CannotTell("no replica was recorded".to_owned());
    }
    let mut violations = Violations::default();
    converged(history, required, healed, &mut violations);
    equal(&history.replicas, &mut violations);
    let later = serving(history, required, healed, &mut violations);
    let entries: usize = history.replicas.iter().map(|replica| replica.entries.len()).sum();
    violations.finding(Check::C9, (later + entries) as u64)
}

fn converged(history: &History, required: &Liveness, healed: u64, violations: &mut Violations) {
    let limit = required.converge_within;
    let took = history.converged.map(|time| time.saturating_sub(healed));
    if took.is_none_or(|took| took > limit) {
        let took = took.map_or("never".to_owned(), |took| format!("after {took} ns"));
        let detail = || format!("all replicas were equal {took}, and {limit} ns are allowed");
        violations.add(Anomaly::NotConverged, None, detail);
    }
}

/// Every replica holds the same from where the last of them begins, and has committed all of it.
fn equal(replicas: &[Replica], violations: &mut Violations) {
    let start = replicas.iter().map(|replica| replica.begin).max().unwrap_or(0);
    let Some((first, others)) = replicas.split_first() else { return };
    let held = |replica: &Replica| -> Vec<Entry> {
        replica.entries.iter().filter(|entry| entry.index >= start).copied().collect()
    };
    let expected = held(first);
    for other in others {
        let entries = held(other);
        let ends = (first.end(), first.committed) == (other.end(), other.committed);
        if ends && entries == expected {
            continue;
        }
        let differs = expected.iter().zip(&entries).find(|(a, b)| a != b).map(|(a, _)| a.index);
        let shorter = start.max(first.end().min(other.end()));
        let detail = || {
            let tell = |it: &Replica| {
                format!("node {} ends at {} and has committed {}", it.node, it.end(), it.committed)
            };
            format!("{}, {}", tell(first), tell(other))
        };
        violations.add(Anomaly::ReplicasDiffer, Some(differs.unwrap_or(shorter)), detail);
    }
    if first.committed < first.end() {
        let detail = || format!("committed is {}, end is {}", first.committed, first.end());
        violations.add(Anomaly::ReplicasDiffer, Some(first.committed), detail);
    }
}

/// Appends are acknowledged after the faults, and answers come in time. How many there were.
fn serving(
    history: &History,
    required: &Liveness,
    healed: u64,
    violations: &mut Violations,
) -> usize {
    let asks =
        |op: &&Operation| !matches!(op.action, Action::FinalRead { .. } | Action::Deliver { .. });
    let after = |time: u64| history.operations.iter().filter(asks).filter(move |op| op.call > time);
    let served = |op: &Operation| op.outcome == Outcome::Ok && !op.action.values().is_empty();
    if !after(healed).any(served) {
        let detail = || "no append that was called after the faults was acknowledged".to_owned();
        violations.add(Anomaly::NotServing, None, detail);
    }
    let settled = history.converged.unwrap_or(healed).max(healed);
    // What failed or never came back took for ever.
    let took = |op: &Operation| {
        let ret = op.ret.filter(|_| op.outcome == Outcome::Ok);
        ret.map_or(u64::MAX, |ret| ret - op.call.min(ret))
    };
    let mut times: Vec<_> = after(settled).map(took).collect();
    times.sort_unstable();
    let slowest = times.len().checked_sub(1 + times.len() / 100).and_then(|at| times.get(at));
    if let (Some(limit), Some(&slowest)) = (required.respond_within, slowest)
        && slowest > limit
    {
        let detail = || {
            let took = if slowest == u64::MAX { "no time".into() } else { format!("{slowest} ns") };
            format!("99 of 100 of {} operations took {took}, {limit} ns are allowed", times.len())
        };
        violations.add(Anomaly::Slow, None, detail);
    }
    after(healed).count()
}

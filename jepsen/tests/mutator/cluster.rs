//! What nodes may say or hold that contradicts them, and runs that show nothing: C3, C7, C9, C10.

use jepsen::{Action, Anomaly, EntryKind, History, Leader, Observation, Operation, Outcome, Vote};

use super::{Row, begin};
use crate::generator::Random;

pub(super) const MUTATIONS: &[Row] = &[
    ("a replica has a hole", Anomaly::LogGap, gap),
    ("a replica ends before its commit", Anomaly::LogGap, short),
    ("a term went back", Anomaly::TermRegressed, term_back),
    ("a term went back over a restart", Anomaly::TermRegressed, term_back_at_restart),
    ("a vote went back over a restart", Anomaly::VoteRegressed, vote_back),
    ("a node voted twice in a term", Anomaly::DoubleVote, double_vote),
    ("committed went back", Anomaly::WatermarkRegressed, committed_back),
    ("applied went back", Anomaly::WatermarkRegressed, applied_back),
    ("a node has committed what it does not hold", Anomaly::WatermarksDisordered, disorder),
    ("a term had two leaders", Anomaly::TwoLeaders, two_leaders),
    ("terms of a replica go back", Anomaly::LogTermRegressed, log_term_back),
    ("replicas have different blanks", Anomaly::DivergentReplica, diverge),
    ("a replica dropped another entry", Anomaly::DivergentReplica, diverge_at_boundary),
    ("the replicas never became equal", Anomaly::NotConverged, never_converged),
    ("the replicas became equal too late", Anomaly::NotConverged, late),
    ("a replica lacks the end", Anomaly::ReplicasDiffer, lag),
    ("a replica holds what is not committed", Anomaly::ReplicasDiffer, tail_left),
    ("no append was taken after the faults", Anomaly::NotServing, refuse),
    ("answers were slow after the faults", Anomaly::Slow, slow),
    ("a fault was never put in", Anomaly::FaultNeverBit, no_fault),
    ("a fault was put in and never bit", Anomaly::FaultNeverBit, no_bite),
    ("hardly anything succeeded", Anomaly::FewSuccesses, few_successes),
    ("the leader never changed", Anomaly::FewLeaderChanges, no_leader_change),
];

fn gap(history: &mut History, random: &mut Random) -> Option<()> {
    let replica = &mut history.replicas[random.below(3) as usize];
    // Not the last: without it the replica just ends earlier.
    let inner = (replica.entries.len() as u64).checked_sub(2).filter(|inner| *inner > 0)?;
    replica.entries.remove(1 + random.below(inner) as usize);
    Some(())
}

fn short(history: &mut History, random: &mut Random) -> Option<()> {
    history.replicas[random.below(3) as usize].entries.pop().map(|_| ())
}

/// Two observations of one node, one after the other, that fit.
fn pair(
    history: &History,
    random: &mut Random,
    fits: impl Fn(&Observation, &Observation) -> bool,
) -> Option<(usize, usize)> {
    let all = &history.observations;
    let mut pairs = Vec::new();
    for (second, now) in all.iter().enumerate() {
        let first = all[..second].iter().rposition(|before| before.node == now.node);
        pairs.extend(first.filter(|at| fits(&all[*at], now)).map(|first| (first, second)));
    }
    random.pick(&pairs).copied()
}

fn term_back(history: &mut History, random: &mut Random) -> Option<()> {
    let (first, second) = pair(history, random, |a, b| a.term > 0 && a.restarts == b.restarts)?;
    history.observations[second].term = history.observations[first].term - 1;
    Some(())
}

fn term_back_at_restart(history: &mut History, random: &mut Random) -> Option<()> {
    let (first, second) = pair(history, random, |a, b| a.term > 0 && a.restarts < b.restarts)?;
    history.observations[second].term = history.observations[first].term - 1;
    Some(())
}

fn vote_back(history: &mut History, random: &mut Random) -> Option<()> {
    let (first, second) = pair(history, random, |a, b| {
        a.vote.is_some_and(|vote| vote.term > 0) && b.vote.is_some() && a.restarts < b.restarts
    })?;
    let vote = history.observations[first].vote?;
    history.observations[second].vote = Some(Vote { term: vote.term - 1, ..vote });
    Some(())
}

fn double_vote(history: &mut History, random: &mut Random) -> Option<()> {
    let (first, second) = pair(history, random, |a, b| a.vote.is_some() && b.vote.is_some())?;
    let vote = history.observations[first].vote?;
    history.observations[second].vote = Some(Vote { node: vote.node % 3 + 1, ..vote });
    Some(())
}

fn committed_back(history: &mut History, random: &mut Random) -> Option<()> {
    let (first, second) =
        pair(history, random, |a, b| a.restarts == b.restarts && b.begin < a.committed)?;
    history.observations[second].committed = history.observations[first].committed - 1;
    Some(())
}

fn applied_back(history: &mut History, random: &mut Random) -> Option<()> {
    let (first, second) = pair(history, random, |a, b| {
        a.restarts == b.restarts && a.applied.is_some_and(|applied| applied > 0)
    })?;
    let applied = history.observations[first].applied?;
    history.observations[second].applied = Some(applied - 1);
    Some(())
}

fn disorder(history: &mut History, random: &mut Random) -> Option<()> {
    let at = random.below((history.observations.len() as u64).max(1)) as usize;
    let observation = history.observations.get_mut(at)?;
    observation.committed = observation.end + 1;
    Some(())
}

fn two_leaders(history: &mut History, random: &mut Random) -> Option<()> {
    let leader = random.pick(&history.leaders)?.clone();
    let node = leader.node % 3 + 1;
    history.leaders.push(Leader { node, ..leader });
    Some(())
}

fn log_term_back(history: &mut History, random: &mut Random) -> Option<()> {
    let replica = &mut history.replicas[random.below(3) as usize];
    let rising = replica.entries.windows(2).position(|pair| pair[0].term < pair[1].term)?;
    replica.entries.swap(rising, rising + 1);
    let first = replica.entries[rising].index;
    replica.entries[rising].index = replica.entries[rising + 1].index;
    replica.entries[rising + 1].index = first;
    Some(())
}

fn diverge(history: &mut History, random: &mut Random) -> Option<()> {
    let (begin, node) = (begin(history), random.below(3) as usize);
    let entries = &mut history.replicas[node].entries;
    let mut blanks = entries.iter_mut();
    let blank = blanks.find(|entry| entry.index >= begin && entry.kind != EntryKind::Record)?;
    blank.value += 1;
    Some(())
}

fn diverge_at_boundary(history: &mut History, _: &mut Random) -> Option<()> {
    let least = history.replicas.iter().map(|replica| replica.begin).min()?;
    let trimmed = |boundary: &(u64, u64)| boundary.0 >= least;
    let mut boundaries = history.replicas.iter_mut().filter_map(|r| r.boundary.as_mut());
    boundaries.find(|boundary| trimmed(boundary))?.1 += 1;
    Some(())
}

fn never_converged(history: &mut History, _: &mut Random) -> Option<()> {
    history.converged.take().map(|_| ())
}

fn late(history: &mut History, _: &mut Random) -> Option<()> {
    let required = history.required.liveness.as_mut()?;
    required.converge_within = history.converged? - history.healed? - 1;
    Some(())
}

fn lag(history: &mut History, random: &mut Random) -> Option<()> {
    let replica = &mut history.replicas[random.below(3) as usize];
    replica.committed = replica.entries.pop()?.index;
    Some(())
}

fn tail_left(history: &mut History, random: &mut Random) -> Option<()> {
    let replica = &mut history.replicas[random.below(3) as usize];
    let mut entry = *replica.entries.last()?;
    (entry.index, entry.kind) = (entry.index + 1, EntryKind::Blank);
    replica.entries.push(entry);
    Some(())
}

fn is_append(op: &Operation) -> bool {
    matches!(op.action, Action::Append { .. } | Action::AppendBatch { .. })
}

/// Makes it one of which nobody was told what came out.
fn forget(op: &mut Operation) {
    (op.outcome, op.ret) = (Outcome::Info, None);
}

fn refuse(history: &mut History, _: &mut Random) -> Option<()> {
    let healed = history.healed?;
    let appends = history.operations.iter_mut().filter(|op| is_append(op) && op.call > healed);
    appends.for_each(forget);
    Some(())
}

fn slow(history: &mut History, random: &mut Random) -> Option<()> {
    let converged = history.converged?;
    let limit = history.required.liveness.as_ref()?.respond_within?;
    let later = |op: &&mut Operation| {
        op.call > converged
            && !matches!(op.action, Action::FinalRead { .. } | Action::Deliver { .. })
    };
    let mut operations: Vec<_> = history.operations.iter_mut().filter(later).collect();
    // Two more than one of a hundred, of which there are fewer than a hundred.
    for _ in 0..2 {
        let at = random.below(operations.len() as u64) as usize;
        let op = operations.swap_remove(at);
        op.ret = Some(op.call + limit + 1);
    }
    Some(())
}

fn no_fault(history: &mut History, _: &mut Random) -> Option<()> {
    history.required.faults.insert("power cut".to_owned());
    Some(())
}

fn no_bite(history: &mut History, random: &mut Random) -> Option<()> {
    let kind = *random.pick(&["kill", "partition"])?;
    let faults = history.faults.iter_mut().filter(|fault| fault.kind == kind);
    faults.for_each(|fault| fault.bites = 0);
    Some(())
}

fn few_successes(history: &mut History, _: &mut Random) -> Option<()> {
    let healed = history.healed?;
    let asks = |op: &&mut Operation| !matches!(op.action, Action::Deliver { .. });
    let early = history.operations.iter_mut().filter(|op| op.call < healed).filter(asks);
    early.for_each(forget);
    // A little more, so that it is few in every run.
    history.required.ok_percent = 40;
    Some(())
}

fn no_leader_change(history: &mut History, _: &mut Random) -> Option<()> {
    history.leaders.truncate(1);
    Some(())
}

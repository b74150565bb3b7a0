//! What clients may be told that is not so: C1 to C6.

use jepsen::{Action, Anomaly, EntryKind, History, Loss, Operation, Outcome};

use super::{Row, acknowledged, add_record, begin, blank_out, end, places, records, some};
use crate::generator::Random;

pub(super) const MUTATIONS: &[Row] = &[
    ("an acknowledged append is nowhere", Anomaly::LostWrite, lose),
    ("the log was trimmed by nobody", Anomaly::LostWrite, trim_unasked),
    ("an append was acknowledged elsewhere", Anomaly::MovedWrite, move_index),
    ("an append was acknowledged in another term", Anomaly::MovedWrite, move_term),
    ("a read gave another value", Anomaly::InconsistentOffsets, change_read),
    ("a replica has another value", Anomaly::InconsistentOffsets, change_replica),
    ("two appends were acknowledged at one index", Anomaly::InconsistentOffsets, acknowledge_twice),
    ("a value lies at two indexes", Anomaly::Duplicate, duplicate),
    ("a batch lost its first record", Anomaly::TornBatch, tear_first),
    ("a final read shows a part of a batch", Anomaly::TornBatch, tear_final),
    ("a value is nobody's", Anomaly::Phantom, phantom),
    ("a failed append is there", Anomaly::AbortedWrite, abort),
    ("appends lie against their order in time", Anomaly::NonmonotonicSend, reorder),
    ("a linearizable read missed an append", Anomaly::StaleRead, stale_read),
    ("a read barrier missed an append", Anomaly::StaleRead, stale_tail),
    ("a read saw what came later", Anomaly::FutureRead, future_read),
    ("a read gave what is not there", Anomaly::PrecommittedRead, read_uncommitted),
    ("a read saw more than is there", Anomaly::PrecommittedRead, read_beyond),
    ("a reader missed a record", Anomaly::PollSkip, skip),
    ("a reader was given records out of order", Anomaly::NonmonotonicPoll, swap),
    ("a subscription gave a record twice", Anomaly::NonmonotonicPoll, deliver_twice),
    ("a reader went on behind a lost record", Anomaly::CrossedLoss, cross_loss),
];

/// Something may be lost, and a reader that got it got the next record as well.
fn cross_loss(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let two = |op: &Operation| match &op.action {
        Action::Read { records, .. } | Action::Deliver { records, .. } => {
            op.outcome == Outcome::Ok && records.len() > 1 && records[0].0 >= begin
        }
        _ => false,
    };
    let at = some(history, random, two)?;
    let (from, value) = records(&mut history.operations[at])?.first_mut()?;
    *value += 1;
    history.losses.push(Loss { time: 0, until: None, from: *from, since: 0 });
    Some(())
}

fn lose(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let at = some(history, random, |op| acknowledged(op).is_some_and(|index| index >= begin))?;
    blank_out(history, acknowledged(&history.operations[at])?);
    Some(())
}

fn trim_unasked(history: &mut History, _: &mut Random) -> Option<()> {
    // The most that anybody holds counts.
    let held = history.replicas.iter().map(|replica| replica.begin).min()?;
    let mut acknowledged = history.operations.iter().filter_map(acknowledged);
    let gone = acknowledged.any(|index| index < held);
    history.trims.clear();
    gone.then_some(())
}

fn move_index(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let at = some(history, random, |op| acknowledged(op).is_some_and(|index| index >= begin))?;
    if let Action::Append { index, .. } | Action::AppendBatch { index, .. } =
        &mut history.operations[at].action
    {
        *index = index.map(|index| index + 1 + random.below(3));
    }
    Some(())
}

fn move_term(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let at = some(history, random, |op| acknowledged(op).is_some_and(|index| index >= begin))?;
    if let Action::Append { term, .. } | Action::AppendBatch { term, .. } =
        &mut history.operations[at].action
    {
        *term = term.map(|term| term + 1);
    }
    Some(())
}

/// A value that somebody tried to append, and that is not `other`.
fn other_value(history: &History, random: &mut Random, other: u64) -> Option<u64> {
    let values: Vec<u64> = history
        .operations
        .iter()
        .filter_map(|op| match op.action {
            Action::Append { value, .. } if value != other => Some(value),
            _ => None,
        })
        .collect();
    random.pick(&values).copied()
}

fn change_read(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let at = some(history, random, |op| {
        records(&mut op.clone()).is_some_and(|records| records.iter().any(|r| r.0 >= begin))
    })?;
    let given = records(&mut history.operations[at])?.clone();
    let place = given.iter().position(|record| record.0 >= begin)?;
    let value = other_value(history, random, given[place].1)?;
    records(&mut history.operations[at])?[place].1 = value;
    Some(())
}

fn change_replica(history: &mut History, random: &mut Random) -> Option<()> {
    let (begin, node) = (begin(history), random.below(3) as usize);
    let entries = &history.replicas[node].entries;
    let shown = |at: &usize| {
        // Readers do not see the rest of a broken batch, whatever it is.
        let (index, value) = (entries[*at].index, entries[*at].value);
        let visible = |op: &Operation| matches!(&op.action, Action::FinalRead { records, .. } if records.contains(&(index, value)));
        index >= begin && history.operations.iter().any(visible)
    };
    let places: Vec<usize> = (0..entries.len()).filter(shown).collect();
    let at = *random.pick(&places)?;
    let value = other_value(history, random, entries[at].value)?;
    history.replicas[node].entries[at].value = value;
    Some(())
}

fn acknowledge_twice(history: &mut History, random: &mut Random) -> Option<()> {
    let (begin, end) = (begin(history), end(history));
    let taken = some(history, random, |op| {
        acknowledged(op).is_some_and(|index| (begin..end).contains(&index))
    })?;
    let place = acknowledged(&history.operations[taken])?;
    let at = some(
        history,
        random,
        |op| matches!(op.action, Action::Append { index: Some(index), .. } if index != place),
    )?;
    if let Action::Append { index, .. } = &mut history.operations[at].action {
        *index = Some(place);
    }
    Some(())
}

fn duplicate(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let at = some(
        history,
        random,
        |op| matches!(op.action, Action::Append { index: Some(index), .. } if index >= begin),
    )?;
    let Action::Append { value, .. } = history.operations[at].action else { return None };
    add_record(history, value);
    Some(())
}

/// First index and length of a batch that lies whole above where the replicas begin.
fn whole_batch(history: &History, random: &mut Random) -> Option<(u64, u64)> {
    let begin = begin(history);
    let at = some(history, random, |op| {
        let batch = matches!(op.action, Action::AppendBatch { .. });
        batch && acknowledged(op).is_some_and(|index| index > begin)
    })?;
    let Action::AppendBatch { values, index, .. } = &history.operations[at].action else {
        return None;
    };
    Some(((*index)?, values.len() as u64))
}

fn tear_first(history: &mut History, random: &mut Random) -> Option<()> {
    let (first, _) = whole_batch(history, random)?;
    blank_out(history, first);
    Some(())
}

fn tear_final(history: &mut History, random: &mut Random) -> Option<()> {
    // The final read may have begun later than the replicas, of which none is left.
    let shows = |op: &Operation| match op.action {
        Action::FinalRead { from, .. } => Some(from),
        _ => None,
    };
    let from = history.operations.iter().find_map(shows)?;
    let (first, length) = whole_batch(history, random).filter(|batch| batch.0 >= from)?;
    history.replicas.clear();
    blank_out(history, first + 1 + random.below(length - 1));
    Some(())
}

fn phantom(history: &mut History, random: &mut Random) -> Option<()> {
    add_record(history, 1_000_000 + random.below(1_000));
    Some(())
}

fn abort(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let at = some(history, random, |op| acknowledged(op).is_some_and(|index| index >= begin))?;
    history.operations[at].outcome = Outcome::Fail;
    Some(())
}

fn reorder(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let appends = places(history, |op| acknowledged(op).is_some_and(|index| index >= begin));
    let first = *random.pick(&appends)?;
    let (call, index) = (history.operations[first].call, acknowledged(&history.operations[first])?);
    let later = |at: &&usize| acknowledged(&history.operations[**at]) > Some(index);
    let behind: Vec<usize> = appends.iter().filter(later).copied().collect();
    let behind = &mut history.operations[*random.pick(&behind)?];
    (behind.call, behind.ret) = (call - 2, Some(call - 1));
    Some(())
}

/// The end that a linearizable read must not have seen any more, as an append was acknowledged before its call.
fn missed(history: &History, random: &mut Random, call: u64) -> Option<u64> {
    let begin = begin(history);
    let at = some(history, random, |op| {
        let before = op.ret.is_some_and(|ret| ret < call);
        before && acknowledged(op).is_some_and(|index| index >= begin)
    })?;
    acknowledged(&history.operations[at])
}

fn stale_read(history: &mut History, random: &mut Random) -> Option<()> {
    let at = some(history, random, |op| matches!(op.action, Action::Read { bound: Some(_), .. }))?;
    let missed = missed(history, random, history.operations[at].call)?;
    if let Action::Read { from, to, records, bound } = &mut history.operations[at].action {
        records.retain(|record| record.0 < missed);
        (*from, *to, *bound) = ((*from).min(missed), missed, Some(missed));
        // What it now covers more is not what this is about.
        records.clear();
        *from = *to;
    }
    Some(())
}

fn stale_tail(history: &mut History, random: &mut Random) -> Option<()> {
    let at = some(history, random, |op| matches!(op.action, Action::Tail { .. }))?;
    let missed = missed(history, random, history.operations[at].call)?;
    history.operations[at].action = Action::Tail { bound: Some(missed) };
    Some(())
}

fn future_read(history: &mut History, random: &mut Random) -> Option<()> {
    let at = some(history, random, |op| {
        records(&mut op.clone()).is_some_and(|records| !records.is_empty())
    })?;
    let given = records(&mut history.operations[at])?.clone();
    let call = history.operations.iter().find_map(|op| {
        let seen = acknowledged(op).is_some_and(|index| given.iter().any(|r| r.0 == index));
        seen.then_some(op.call)
    })?;
    let op = &mut history.operations[at];
    (op.call, op.ret) = (call - 2, Some(call - 1));
    Some(())
}

fn read_uncommitted(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let entries = &history.replicas.iter().max_by_key(|replica| replica.begin)?.entries;
    let blank = |index: u64| {
        entries.iter().any(|entry| entry.index == index && entry.kind != EntryKind::Record)
    };
    let covers = |op: &Operation| match op.action {
        Action::Read { from, to, .. } => (from.max(begin)..to).find(|index| blank(*index)),
        _ => None,
    };
    let at = some(history, random, |op| covers(op).is_some())?;
    let index = covers(&history.operations[at])?;
    let value = other_value(history, random, 0)?;
    let records = records(&mut history.operations[at])?;
    records.push((index, value));
    records.sort_unstable();
    Some(())
}

fn read_beyond(history: &mut History, random: &mut Random) -> Option<()> {
    let beyond = end(history) + 1 + random.below(3);
    let at = some(history, random, |op| {
        matches!(op.action, Action::Read { bound: None, .. } | Action::Tail { .. })
    })?;
    match &mut history.operations[at].action {
        Action::Read { to, .. } => *to = beyond,
        Action::Tail { bound } => *bound = Some(beyond),
        _ => return None,
    }
    Some(())
}

fn skip(history: &mut History, random: &mut Random) -> Option<()> {
    let begin = begin(history);
    let at = some(history, random, |op| {
        // Of a delivery the last record would only come later.
        let spare = usize::from(matches!(op.action, Action::Deliver { .. }));
        records(&mut op.clone())
            .is_some_and(|records| records.iter().filter(|r| r.0 >= begin).count() > spare)
    })?;
    let records = records(&mut history.operations[at])?;
    let place = records.iter().position(|record| record.0 >= begin)?;
    records.remove(place);
    Some(())
}

fn swap(history: &mut History, random: &mut Random) -> Option<()> {
    let at = some(history, random, |op| {
        records(&mut op.clone()).is_some_and(|records| records.len() > 1)
    })?;
    let records = records(&mut history.operations[at])?;
    let place = random.below(records.len() as u64 - 1) as usize;
    records.swap(place, place + 1);
    Some(())
}

fn deliver_twice(history: &mut History, random: &mut Random) -> Option<()> {
    let at = some(history, random, |op| matches!(op.action, Action::Deliver { .. }))?;
    let mut again = history.operations[at].clone();
    (again.call, again.ret) = (again.call + 1, again.ret.map(|ret| ret + 1));
    history.operations.insert(at + 1, again);
    Some(())
}

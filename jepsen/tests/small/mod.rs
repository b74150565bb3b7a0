//! Small histories, legal and illegal, for checkers that search all orders.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeSet;

use jepsen::{Action, History, Operation, Outcome};

use crate::generator::{Random, clients};

/// How large histories may be.
pub(crate) struct Size {
    /// At most so many operations, the final read among them.
    pub(crate) operations: u64,
    /// At most so many steps overlap at any moment: who searches all orders tries each of them before each other.
    /// Those that never returned overlap with all that come later.
    pub(crate) overlap: usize,
}

/// A history of a log that begins at 0 and was never trimmed; of three, two are changed somewhere, mostly into
/// illegal ones.
pub(crate) fn history(seed: u64, size: &Size) -> History {
    let mut random = Random(seed ^ 0x5EED);
    let mut history = loop {
        let count = 3 + random.below(size.operations - 3);
        let spread = 5 + random.below(25);
        let history = clients(random.below(u64::MAX), count, spread);
        if overlap(&steps(&history)) <= size.overlap {
            break history;
        }
    };
    if !seed.is_multiple_of(3) {
        for _ in 0..=random.below(2) {
            change(&mut history, &mut random);
        }
    }
    history
}

/// Changes something in a history.
fn change(history: &mut History, random: &mut Random) {
    let last = history.operations.len() - 1;
    let at = random.below(last as u64) as usize;
    let other = random.below(last as u64) as usize;
    let shift = random.below(100);
    let Action::FinalRead { to: end, records: held, .. } = &history.operations[last].action else {
        return;
    };
    let (end, held) = (*end, held.clone());
    let some = random.pick(&held).copied();
    match random.below(12) {
        0 => {
            let op = &mut history.operations[at];
            (op.call, op.ret) = (op.call.saturating_sub(shift), op.ret.map(|ret| ret - shift));
        }
        1 => {
            let op = &mut history.operations[at];
            (op.call, op.ret) = (op.call + shift, op.ret.map(|ret| ret + shift));
        }
        2 => sees_less(&mut history.operations[at], 1 + random.below(3)),
        3 => sees_less(&mut history.operations[last], 1),
        4 => swap_places(history, at, other),
        5 => on_records(&mut history.operations[at], |records| {
            records.pop();
        }),
        6 => on_records(&mut history.operations[last], |records| {
            let place = random.below(records.len().max(1) as u64) as usize;
            if place < records.len() {
                records.remove(place);
            }
        }),
        7 => on_records(&mut history.operations[last], |records| {
            if let Some((index, _)) = some {
                let place = records.iter().position(|record| record.0 == index).unwrap_or(0);
                let before = place.saturating_sub(1);
                (records[before].1, records[place].1) = (records[place].1, records[before].1);
            }
        }),
        8 => on_records(&mut history.operations[at], |records| {
            if let (Some(record), Some((_, value))) = (records.last_mut(), some) {
                record.1 = value;
            }
        }),
        9 => {
            let value = if random.chance(50) { 1_000 } else { some.map_or(1_000, |some| some.1) };
            if let Action::FinalRead { to, records, .. } = &mut history.operations[last].action {
                records.push((end, value));
                *to = end + 1;
            }
        }
        10 => {
            // It cannot have been told what it was not told.
            let op = &mut history.operations[at];
            if op.outcome == Outcome::Ok && !matches!(op.action, Action::Read { .. }) {
                (op.outcome, op.ret) = (Outcome::Info, None);
            }
        }
        _ => {
            if let Action::Tail { bound } | Action::Read { bound, .. } =
                &mut history.operations[at].action
            {
                *bound = bound.map(|bound| (bound + random.below(3)).saturating_sub(1));
            }
        }
    }
}

/// A read that saw `less` indexes less.
fn sees_less(op: &mut Operation, less: u64) {
    match &mut op.action {
        Action::Read { from, to, records, bound } => {
            *to = to.saturating_sub(less);
            *from = (*from).min(*to);
            *bound = bound.map(|_| *to);
            let to = *to;
            records.retain(|record| record.0 < to);
        }
        Action::FinalRead { to, records, .. } => {
            *to = to.saturating_sub(less);
            let to = *to;
            records.retain(|record| record.0 < to);
        }
        Action::Tail { bound: Some(bound) } => *bound = bound.saturating_sub(less),
        _ => {}
    }
}

fn on_records(op: &mut Operation, change: impl FnOnce(&mut Vec<(u64, u64)>)) {
    if let Action::Read { records, .. } | Action::FinalRead { records, .. } = &mut op.action {
        change(records);
    }
}

/// Exchanges where two appends were acknowledged.
fn swap_places(history: &mut History, at: usize, other: usize) {
    let place = |op: &Operation| match op.action {
        Action::Append { index, .. } => index,
        _ => None,
    };
    let places = (place(&history.operations[at]), place(&history.operations[other]));
    let (Some(first), Some(second)) = places else { return };
    for (at, place) in [(at, second), (other, first)] {
        if let Action::Append { index, .. } = &mut history.operations[at].action {
            *index = Some(place);
        }
    }
}

/// What a log may be asked, in small steps that take effect at one moment each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Append this.
    Append {
        value: u64,
        /// Where it was put, if that was told.
        at: Option<u64>,
        /// The value right before it, if it is not the first of its batch.
        after: Option<u64>,
        /// Whether it is the last of its batch, or alone.
        last: bool,
    },
    /// Raft took an index for itself. Nobody was told, and it may be at any time.
    Blank,
    /// One past the last index.
    Tail { bound: u64 },
    /// What lies in `from..to`, which is all committed by now.
    Prefix { from: u64, to: u64, records: Vec<(u64, u64)> },
    /// Everything.
    All { to: u64, records: Vec<(u64, u64)> },
}

/// A step and its time; `ret` is none if nobody knows whether it took effect.
#[derive(Debug, Clone)]
pub(crate) struct Timed {
    pub(crate) call: u64,
    pub(crate) ret: Option<u64>,
    pub(crate) step: Step,
}

/// The steps of a history. An index that no reader saw in the end was a blank's.
pub(crate) fn steps(history: &History) -> Vec<Timed> {
    let mut steps = Vec::new();
    for op in history.operations.iter().filter(|op| op.outcome != Outcome::Fail) {
        let ok = op.outcome == Outcome::Ok;
        let (call, ret) = (op.call, op.ret.filter(|_| ok));
        let mut push = |step| steps.push(Timed { call, ret, step });
        match op.action.clone() {
            Action::Append { value, index, .. } => {
                push(Step::Append { value, at: index.filter(|_| ok), after: None, last: true });
            }
            Action::AppendBatch { values, index, .. } => {
                for (position, &value) in values.iter().enumerate() {
                    let at = index.filter(|_| ok).map(|index| index + position as u64);
                    let after = position.checked_sub(1).map(|before| values[before]);
                    push(Step::Append { value, at, after, last: position + 1 == values.len() });
                }
            }
            Action::Read { from, to, records, bound } if ok => {
                // The barrier and the read behind it are two things.
                if let Some(bound) = bound {
                    push(Step::Tail { bound });
                }
                push(Step::Prefix { from, to, records });
            }
            Action::Tail { bound: Some(bound) } if ok => push(Step::Tail { bound }),
            Action::FinalRead { to, records, .. } if ok => {
                let seen: BTreeSet<u64> = records.iter().map(|record| record.0).collect();
                push(Step::All { to, records });
                let gaps = (0..to).filter(|index| !seen.contains(index));
                steps.extend(gaps.map(|_| Timed { call: 0, ret: None, step: Step::Blank }));
            }
            _ => {}
        }
    }
    steps
}

/// How many steps were under way when the most were.
fn overlap(steps: &[Timed]) -> usize {
    let under_way = |time: u64| {
        steps.iter().filter(|step| step.call <= time && step.ret.is_none_or(|r| r >= time)).count()
    };
    steps.iter().map(|step| under_way(step.call)).max().unwrap_or(0)
}

//! C5: the order of the log is one that the clients could have seen.
//!
//! Appends are ordered by where they lie, reads by how far they saw. That order is the only candidate for a
//! linearization, so the history is linearizable if no operation returned before one that precedes it in
//! the order was called: one pass with the latest call so far.

use std::fmt;

use super::attempts::Attempts;
use super::truth::Truth;
use crate::history::{Action, History, Outcome};
use crate::report::{Anomaly, Violations};

/// An operation's place in the only possible order, and its time.
struct Placed {
    /// An append at `i` is (i, 1); a read that saw everything below `i` is (i, 0).
    place: (u64, u8),
    call: u64,
    ret: u64,
    kind: Kind,
    process: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Append,
    /// A read that may not miss what was known before its call.
    Linearizable,
    /// A read that may be stale, so that it may lie in the past of its call; but not in its future.
    Stale,
}

pub(super) fn check(
    history: &History,
    attempts: &Attempts<'_>,
    truth: &Truth,
    violations: &mut Violations,
) {
    let mut order = reads(history);
    // Each record of a batch has its own place: who was acknowledged knows that all of it is committed, and
    // before that a read barrier may name an end in the middle of it.
    for &(index, value) in &truth.records {
        let Some(attempt) = attempts.of(value) else { continue };
        let op = attempts.operation(attempt);
        let (call, ret, process) = (op.call, op.done(), op.process);
        order.push(Placed { place: (index, 1), call, ret, kind: Kind::Append, process });
    }
    order.sort_by_key(|op| (op.place, op.call));
    // The latest call so far, of appends and of linearizable reads. Stale reads hold up nothing.
    let mut newest: [Option<&Placed>; 2] = [None, None];
    for op in &order {
        let too_late = |before: &&&Placed| op.ret < before.call && !op.saw_lost(before, truth);
        for before in newest.iter().flatten().filter(too_late) {
            let detail = || format!("{op} was over before {before} was called");
            violations.add(anomaly(before.kind, op.kind), Some(op.place.0), detail);
        }
        let newest = match op.kind {
            Kind::Append => &mut newest[0],
            Kind::Linearizable => &mut newest[1],
            Kind::Stale => continue,
        };
        if newest.is_none_or(|newest| newest.call < op.call) {
            *newest = Some(op);
        }
    }
}

/// What it is if something of kind `before` was called only after what lies behind it was over.
fn anomaly(before: Kind, behind: Kind) -> Anomaly {
    match (before, behind) {
        (Kind::Linearizable, _) => Anomaly::StaleRead,
        (Kind::Append, Kind::Append) => Anomaly::NonmonotonicSend,
        _ => Anomaly::FutureRead,
    }
}

impl Placed {
    /// True if it may have seen what was lost since: then its place says nothing about `before`.
    fn saw_lost(&self, before: &Self, truth: &Truth) -> bool {
        let of_read = (self.call, self.kind == Kind::Linearizable);
        self.kind != Kind::Append
            && truth.losses.may_have_seen_more(of_read, (before.place.0, before.ret))
    }
}

fn reads(history: &History) -> Vec<Placed> {
    let mut order = Vec::with_capacity(history.operations.len());
    for op in history.operations.iter().filter(|op| op.outcome == Outcome::Ok) {
        let (ret, process) = (op.done(), op.process);
        let mut place = |at: u64, kind: Kind| {
            order.push(Placed { place: (at, 0), call: op.call, ret, kind, process });
        };
        match &op.action {
            Action::Read { to, bound, .. } => {
                place(*to, Kind::Stale);
                if let Some(bound) = bound {
                    place(*bound, Kind::Linearizable);
                }
            }
            Action::Tail { bound: Some(bound) } => place(*bound, Kind::Linearizable),
            Action::Deliver { records, .. } => {
                if let Some(end) = records.iter().map(|record| record.0.saturating_add(1)).max() {
                    place(end, Kind::Stale);
                }
            }
            Action::FinalRead { to, .. } => place(*to, Kind::Stale),
            _ => {}
        }
    }
    order
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place: (at, _), call, ret, process, .. } = self;
        match self.kind {
            Kind::Append => write!(f, "process {process}'s append at {at}")?,
            Kind::Linearizable => write!(f, "process {process}'s linearizable read below {at}")?,
            Kind::Stale => write!(f, "process {process}'s read below {at}")?,
        }
        write!(f, " ({call}..{ret})")
    }
}

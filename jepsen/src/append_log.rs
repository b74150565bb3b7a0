//! The property of one append-only log: linearizable appends, committed reads, nothing lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use crate::checker::{Anomaly, Checker, Verdict, Violation};
use crate::history::{Action, History, Operation, Outcome};

/// Checks one log, in O(n log n).
///
/// Appends are ordered by where they lie, reads by how far they saw. That order is the only candidate for a
/// linearization, so the history is linearizable if no operation returned before one that precedes it
/// in the order was called: one pass with a running maximum of the call times.
///
/// Needs a [`FinalRead`](Action::FinalRead) for the order; if there are several, as of several nodes, the last
/// counts and the others must agree with it. Records below its beginning, which retention has dropped,
/// are judged by what was said about them before.
#[derive(Debug, Clone, Copy, Default)]
pub struct AppendLog;

/// A time that never comes.
const NEVER: u64 = u64::MAX;

impl Checker for AppendLog {
    fn name(&self) -> &'static str {
        "append-log"
    }

    fn check(&self, history: &History) -> Verdict {
        let ops = &history.operations;
        let last = match final_read(ops) {
            Ok(last) => last,
            Err(reason) => return Verdict::Unknown(reason),
        };
        let mut check = Check::new(last);
        check.appends(ops);
        check.reads(ops);
        check.origins();
        check.real_time(ops);
        if check.violations.is_empty() {
            Verdict::Valid
        } else {
            Verdict::Invalid(check.violations)
        }
    }
}

/// The last final read, or why the history cannot be judged.
fn final_read(ops: &[Operation]) -> Result<&Operation, String> {
    let is_final = |op: &&Operation| {
        op.outcome == Outcome::Ok && matches!(op.action, Action::FinalRead { .. })
    };
    let last = ops.iter().rfind(is_final).ok_or("there is no final read")?;
    let first_call = ops.iter().filter(is_final).map(|op| op.call).min().unwrap_or(last.call);
    let mut values = HashSet::new();
    for op in ops {
        let ok = op.outcome == Outcome::Ok;
        let fault = match &op.action {
            _ if op.ret.is_some_and(|ret| ret < op.call) => "it returned before its call",
            _ if ok && op.ret.is_none() => "it is ok and never returned",
            Action::Append { index: None, .. } if ok => "it was acknowledged without an index",
            Action::Append { value, .. } if !values.insert(value) => "its value is not its own",
            Action::Append { .. } | Action::Read { .. }
                if ok && op.ret.is_some_and(|ret| ret > first_call) =>
            {
                "it ended after the final read began"
            }
            _ => continue,
        };
        return Err(format!("{fault}: {op:?}"));
    }
    Ok(last)
}

/// An attempt to append; `ret` is `NEVER` unless it was acknowledged.
struct Attempt {
    call: u64,
    ret: u64,
    outcome: Outcome,
}

/// An operation's place in the only possible order, and its time.
struct Placed {
    /// An append at `i` is (i, 1); a read that saw everything below `i` is (i, 0).
    place: (u64, u8),
    call: u64,
    ret: u64,
    /// The value of an append, the process of a read.
    who: u64,
}

struct Check {
    violations: Vec<Violation>,
    attempts: HashMap<u64, Attempt>,
    /// Index to value: the final read, and below its beginning what was seen first.
    log: BTreeMap<u64, u64>,
    /// Value to index.
    positions: HashMap<u64, u64>,
    /// The range of the final read.
    held: Range<u64>,
}

impl Check {
    fn new(last: &Operation) -> Self {
        let mut check = Self {
            violations: Vec::new(),
            attempts: HashMap::new(),
            log: BTreeMap::new(),
            positions: HashMap::new(),
            held: 0..0,
        };
        if let Action::FinalRead { from, to, records } = &last.action {
            check.held = *from..*to;
            check.order(records);
            for &(index, value) in records {
                check.witness(index, value);
            }
        }
        check
    }

    fn report(&mut self, anomaly: Anomaly, index: u64, detail: String) {
        self.violations.push(Violation { anomaly, index, detail });
    }

    /// Notes that `value` was seen at `index`.
    fn witness(&mut self, index: u64, value: u64) {
        let at = *self.log.entry(index).or_insert(value);
        if at != value {
            self.report(Anomaly::Divergent, index, format!("both {at} and {value} were seen"));
            return;
        }
        let first = *self.positions.entry(value).or_insert(index);
        if first != index {
            self.report(Anomaly::Duplicate, index, format!("{value} lies at {first} already"));
        }
    }

    fn order(&mut self, records: &[(u64, u64)]) {
        for pair in records.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
            self.report(Anomaly::Disordered, pair[1].0, format!("given after {}", pair[0].0));
        }
    }

    /// No acknowledged append is lost, and each lies where it was acknowledged.
    fn appends(&mut self, ops: &[Operation]) {
        for op in ops {
            let Action::Append { value, index } = op.action else { continue };
            let acked = index.filter(|_| op.outcome == Outcome::Ok);
            let ret = if acked.is_some() { op.ret.unwrap_or(NEVER) } else { NEVER };
            self.attempts.insert(value, Attempt { call: op.call, ret, outcome: op.outcome });
            let Some(index) = acked else { continue };
            match self.positions.get(&value) {
                Some(&found) if found != index => {
                    self.report(Anomaly::Moved, index, format!("{value} lies at {found}"));
                }
                Some(_) => {}
                None if index < self.held.start => self.witness(index, value),
                None => self.report(Anomaly::Lost, index, format!("{value} was acknowledged")),
            }
        }
    }

    /// Reads saw what the log holds: nothing else, nothing less, and in its order.
    fn reads(&mut self, ops: &[Operation]) {
        let mut reads = Vec::new();
        for op in ops.iter().filter(|op| op.outcome == Outcome::Ok) {
            if let Action::Read { from, to, records, .. }
            | Action::FinalRead { from, to, records } = &op.action
            {
                reads.push((*from..(*to).max(*from), records));
            }
        }
        for (_, records) in &reads {
            self.order(records);
            for &(index, value) in *records {
                if index >= self.held.start && !self.log.contains_key(&index) {
                    self.report(Anomaly::Ghost, index, format!("{value} was read"));
                } else {
                    self.witness(index, value);
                }
            }
        }
        for (range, records) in reads {
            let seen: HashSet<u64> = records.iter().map(|&(index, _)| index).collect();
            let missed = self.log.range(range).filter(|(index, _)| !seen.contains(index));
            self.violations.extend(missed.map(|(&index, value)| Violation {
                anomaly: Anomaly::Skipped,
                index,
                detail: format!("a read left out {value}"),
            }));
        }
    }

    /// Everything in the log was appended by somebody, and had not failed.
    fn origins(&mut self) {
        for (&index, value) in &self.log {
            let anomaly = match self.attempts.get(value).map(|attempt| attempt.outcome) {
                None => Anomaly::Phantom,
                Some(Outcome::Fail) => Anomaly::Undead,
                Some(Outcome::Ok | Outcome::Info) => continue,
            };
            self.violations.push(Violation { anomaly, index, detail: format!("it is {value}") });
        }
    }

    /// The order of the log is one that the clients could have seen.
    fn real_time(&mut self, ops: &[Operation]) {
        let mut order = Vec::with_capacity(self.log.len() + ops.len());
        for (&index, value) in &self.log {
            if let Some(&Attempt { call, ret, .. }) = self.attempts.get(value) {
                order.push(Placed { place: (index, 1), call, ret, who: *value });
            }
        }
        for op in ops.iter().filter(|op| op.outcome == Outcome::Ok) {
            let Action::Read { to, bound, records, .. } = &op.action else { continue };
            let (ret, who) = (op.ret.unwrap_or(NEVER), op.process);
            if let Some(bound) = bound {
                order.push(Placed { place: (*bound, 0), call: op.call, ret, who });
            }
            if !records.is_empty() {
                // It may be stale, so it may lie in the past of its call; but not in its future.
                order.push(Placed { place: (*to, 0), call: 0, ret, who });
            }
        }
        order.sort_by_key(|op| (op.place, op.call));
        let mut newest: Option<&Placed> = None;
        for op in &order {
            if let Some(before) = newest.filter(|before| op.ret < before.call) {
                let detail = format!("{op} was over before {before} was called");
                let index = op.place.0;
                self.violations.push(Violation { anomaly: Anomaly::RealTime, index, detail });
            }
            if newest.is_none_or(|newest| newest.call < op.call) {
                newest = Some(op);
            }
        }
    }
}

impl std::fmt::Display for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            (index, 1) => write!(f, "the append of {} at {index}", self.who),
            (bound, _) => write!(f, "process {}'s read of all below {bound}", self.who),
        }
    }
}

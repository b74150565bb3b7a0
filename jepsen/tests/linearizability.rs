//! Our checker, which knows logs, against one that knows nothing of them and searches all orders.
//!
//! The other one is the `LinearizabilityTester` of stateright, the model checker. It is widely used, has tests and
//! its own history, and brings ten crates that we did not have. The crate `porcupine-rs` has a faster
//! search, which twelve operations do not need; but it names no repository, and brings criterion and an
//! unmaintained crate (RUSTSEC-2024-0436) as dependencies. The porcupine that people trust is a Go module:
//! `porcupine.rs` compares us with that one where Go is installed.

mod generator;
mod small;

use std::collections::BTreeSet;

use jepsen::{Anomaly, Verdict, check};
use small::{Size, Step, history, steps};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

const SEEDS: u64 = 4_000;
const SIZE: Size = Size { operations: 12, overlap: 5 };

/// A log that does one step after the other.
#[derive(Debug, Clone, Default)]
struct Log {
    /// None lies where Raft took an index for itself.
    entries: Vec<Option<u64>>,
    /// The last record, if the rest of its batch has to follow.
    torn: Option<u64>,
}

impl SequentialSpec for Log {
    type Op = Step;
    /// Whether the step could be told what it was told.
    type Ret = bool;

    fn invoke(&mut self, step: &Step) -> bool {
        let end = self.entries.len() as u64;
        let seen = |from: u64, to: u64| -> Vec<(u64, u64)> {
            let records = (0..).zip(&self.entries).filter(|entry| (from..to).contains(&entry.0));
            records.filter_map(|(index, value)| value.map(|value| (index, value))).collect()
        };
        match step {
            Step::Append { value, at, after, last } => {
                let follows = self.torn == *after;
                self.entries.push(Some(*value));
                // What breaks into a batch, or comes without what is before it, leaves it torn for ever.
                self.torn = if follows { (!last).then_some(*value) } else { Some(u64::MAX) };
                follows && at.is_none_or(|at| at == end)
            }
            Step::Blank => {
                self.entries.push(None);
                self.torn = self.torn.map(|_| u64::MAX);
                self.torn.is_none()
            }
            Step::Tail { bound } => *bound == end,
            Step::Prefix { from, to, records } => *to <= end && seen(*from, *to) == *records,
            Step::All { to, records } => {
                self.torn.is_none() && *to == end && seen(0, *to) == *records
            }
        }
    }
}

/// What stateright says of a history.
fn linearizable(history: &jepsen::History) -> bool {
    let steps = steps(history);
    let mut events = Vec::new();
    for (thread, step) in steps.iter().enumerate() {
        events.push((step.call, 0, thread));
        // At one time, calls come first: what touches overlaps.
        events.extend(step.ret.map(|ret| (ret, 1, thread)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(Log::default());
    for (_, kind, thread) in events {
        let fed = match kind {
            0 => tester.on_invoke(thread, steps[thread].step.clone()),
            _ => tester.on_return(thread, true),
        };
        fed.expect("each step has a thread of its own");
    }
    tester.is_consistent()
}

#[test]
fn the_checker_agrees_with_one_that_searches_all_orders() {
    let (mut legal, mut illegal) = (0, 0);
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let history = history(seed, &SIZE);
        let report = check(&history);
        // Whether enough was done is not what the other one judges.
        let ours = match report.verdict {
            Verdict::Valid | Verdict::Vacuous => true,
            Verdict::Invalid => false,
            Verdict::Unknown => panic!("seed {seed}: {report}"),
        };
        let theirs = linearizable(&history);
        assert_eq!(ours, theirs, "seed {seed}: {report}\n{}", history.to_json_lines());
        *if ours { &mut legal } else { &mut illegal } += 1;
        found.extend(report.anomalies());
    }
    assert!(illegal >= SEEDS / 4 && legal >= SEEDS / 4, "{legal} legal, {illegal} illegal");
    // All that can be wrong with clients alone was wrong somewhere, but for what only subscriptions and
    // definite failures show.
    let clients = [
        Anomaly::LostWrite,
        Anomaly::MovedWrite,
        Anomaly::InconsistentOffsets,
        Anomaly::Duplicate,
        Anomaly::TornBatch,
        Anomaly::Phantom,
        Anomaly::NonmonotonicSend,
        Anomaly::StaleRead,
        Anomaly::FutureRead,
        Anomaly::PrecommittedRead,
        Anomaly::PollSkip,
    ];
    assert!(found.is_superset(&BTreeSet::from(clients)), "{found:?}");
}

//! What a record comes to, and the state after it, are the same on every node: nothing depends on a node's clock, on the order
//! of a hash map, on settings, or on whether the node applied all records or continued from a checkpoint.

use std::collections::btree_map::Entry;
use std::sync::atomic::Ordering;

use quorumlog_broker::simulation::AppliedRecord;

use crate::sim::shared::Shared;

/// True if somebody has asked a node to let go of a part of the log. Retention alone takes nothing that waits.
fn was_trimmed(shared: &Shared, log: &str) -> bool {
    let mut logs = shared.logs().into_iter();
    logs.any(|of| of.name.as_str() == log && of.trimmed.load(Ordering::Relaxed) > 0)
}

/// A node applied a record: compares with the first that did.
pub(super) fn compare(shared: &Shared, node: u64, log: &str, applied: AppliedRecord) {
    let number = log.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX);
    let now_ms = shared.now_ms();
    let mut facts = shared.broker.facts();
    let (peer, _, first) = match facts.applied.entry((number, applied.index)) {
        Entry::Vacant(entry) => {
            let (index, passed_over) = (applied.index, applied.passed_over);
            entry.insert((node, now_ms, applied));
            drop(facts);
            if passed_over > 0 && !was_trimmed(shared, log) {
                let detail = format!("{passed_over} of {log}, by the record at {index}");
                shared.breach("delayed-passed-over", detail);
            }
            return;
        }
        Entry::Occupied(entry) => entry.get().clone(),
    };
    facts.applied_twice += 1;
    facts.states_compared += u64::from(!applied.state.is_empty());
    drop(facts);
    let index = applied.index;
    let differ = |what: &str| {
        shared.breach(
            "applied-differs",
            format!("{what} of {log} at {index}, nodes {peer} and {node}"),
        );
    };
    if first.record != applied.record {
        differ("the record");
    } else if first.answer != applied.answer {
        differ("what the record comes to");
    }
    for (one, other) in first.state.iter().zip(&applied.state).filter(|(one, other)| one != other) {
        let what = format!("the state's {} ({:x} and {:x})", one.0, one.1, other.1);
        differ(&what);
    }
}

//! The checker of one log against legal and broken histories.

mod generator;

use std::collections::HashSet;

use generator::{Random, legal};
use jepsen::{
    Action, Anomaly, AppendLog, Checker, History, Operation, Outcome, RequireFaults, Verdict,
};

fn op(call: u64, ret: u64, action: Action) -> Operation {
    Operation { process: 0, call, ret: Some(ret), outcome: Outcome::Ok, action }
}

fn append(call: u64, ret: u64, value: u64, index: u64) -> Operation {
    op(call, ret, Action::Append { value, index: Some(index) })
}

fn unsure(call: u64, value: u64, outcome: Outcome) -> Operation {
    Operation { outcome, ..op(call, call, Action::Append { value, index: None }) }
}

fn read(call: u64, ret: u64, to: u64, bound: Option<u64>, records: &[(u64, u64)]) -> Operation {
    op(call, ret, Action::Read { from: 0, to, records: records.to_vec(), bound })
}

fn last(from: u64, to: u64, records: &[(u64, u64)]) -> Operation {
    op(1_000, 1_001, Action::FinalRead { from, to, records: records.to_vec() })
}

fn check(operations: &[Operation]) -> Verdict {
    AppendLog.check(&History { operations: operations.to_vec() })
}

#[track_caller]
fn found(operations: &[Operation]) -> HashSet<Anomaly> {
    match check(operations) {
        Verdict::Invalid(violations) => violations.iter().map(|v| v.anomaly).collect(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn finds(anomaly: Anomaly, operations: &[Operation]) {
    assert_eq!(found(operations), HashSet::from([anomaly]));
}

#[test]
fn legal_histories_are_valid() {
    for seed in 0..300 {
        let verdict = AppendLog.check(&legal(seed, 60));
        assert_eq!(verdict, Verdict::Valid, "seed {seed}");
    }
}

#[test]
fn an_acknowledged_append_must_be_in_the_log_at_its_index() {
    let acked = [append(1, 2, 10, 1), append(3, 4, 11, 2)];
    let with = |end: Operation| [&acked[..], &[end]].concat();
    assert_eq!(check(&with(last(0, 3, &[(1, 10), (2, 11)]))), Verdict::Valid);
    finds(Anomaly::Lost, &with(last(0, 3, &[(1, 10)])));
    finds(Anomaly::Moved, &with(last(0, 4, &[(1, 10), (3, 11)])));
}

#[test]
fn an_append_of_unknown_outcome_may_be_there_or_not_but_a_failed_one_may_not() {
    for records in [&[][..], &[(1, 10)]] {
        assert_eq!(check(&[unsure(1, 10, Outcome::Info), last(0, 2, records)]), Verdict::Valid);
    }
    finds(Anomaly::Undead, &[unsure(1, 10, Outcome::Fail), last(0, 2, &[(1, 10)])]);
    finds(Anomaly::Phantom, &[last(0, 2, &[(1, 10)])]);
}

#[test]
fn each_index_has_one_value_and_each_value_one_index() {
    let start = [append(1, 2, 10, 1), unsure(3, 11, Outcome::Info)];
    let with = |rest: &[Operation]| [&start[..], rest].concat();
    let end = last(0, 2, &[(1, 10)]);
    finds(Anomaly::Divergent, &with(&[read(5, 6, 2, None, &[(1, 11)]), end.clone()]));
    let twice = last(0, 4, &[(1, 10), (2, 11), (3, 11)]);
    finds(Anomaly::Duplicate, &with(&[twice]));
    let other_node = last(0, 2, &[(1, 11)]);
    finds(Anomaly::Divergent, &with(&[other_node, end]));
}

#[test]
fn reads_show_committed_records_whole_and_in_order() {
    let start = [append(1, 2, 10, 1), append(3, 4, 11, 2), unsure(5, 12, Outcome::Info)];
    let end = last(0, 3, &[(1, 10), (2, 11)]);
    let with = |read: Operation| [&start[..], &[read, end.clone()]].concat();
    let all = [(1, 10), (2, 11)];
    assert_eq!(check(&with(read(6, 7, 3, Some(3), &all))), Verdict::Valid);
    finds(Anomaly::Ghost, &with(read(6, 7, 4, None, &[(1, 10), (2, 11), (3, 12)])));
    finds(Anomaly::Skipped, &with(read(6, 7, 3, None, &[(2, 11)])));
    finds(Anomaly::Disordered, &with(read(6, 7, 3, None, &[(2, 11), (1, 10)])));
}

#[test]
fn the_order_of_the_log_is_one_that_the_clients_could_have_seen() {
    let end = last(0, 3, &[(1, 10), (2, 11)]);
    finds(Anomaly::RealTime, &[append(3, 4, 10, 1), append(1, 2, 11, 2), end.clone()]);
    let appends = [append(1, 2, 10, 1), append(5, 9, 11, 2)];
    let with = |read: Operation| [&appends[..], &[read, end.clone()]].concat();
    finds(Anomaly::RealTime, &with(read(10, 11, 2, Some(2), &[(1, 10)])));
    finds(Anomaly::RealTime, &with(read(3, 4, 3, None, &[(1, 10), (2, 11)])));
    // A read without a bound may be stale, and what overlaps may come in either order.
    assert_eq!(check(&with(read(10, 11, 2, None, &[(1, 10)]))), Verdict::Valid);
    assert_eq!(check(&with(read(6, 7, 2, Some(2), &[(1, 10)]))), Verdict::Valid);
}

#[test]
fn what_retention_dropped_is_judged_by_what_was_said_before() {
    let end = last(2, 3, &[(2, 11)]);
    let acked = [append(1, 2, 10, 1), append(3, 4, 11, 2)];
    let with = |read: Operation| [&acked[..], &[read, end.clone()]].concat();
    assert_eq!(check(&with(read(5, 6, 3, None, &[(1, 10), (2, 11)]))), Verdict::Valid);
    finds(Anomaly::Skipped, &with(read(5, 6, 3, None, &[(2, 11)])));
    let mut other = with(read(5, 6, 2, None, &[(1, 12)]));
    other.push(unsure(1, 12, Outcome::Info));
    finds(Anomaly::Divergent, &other);
}

#[test]
fn a_history_that_cannot_tell_is_not_valid() {
    let end = last(0, 2, &[(1, 10)]);
    let good = append(1, 2, 10, 1);
    for operations in [
        vec![],
        vec![good.clone()],
        vec![append(2, 1, 10, 1), end.clone()],
        vec![good.clone(), unsure(3, 10, Outcome::Info), end.clone()],
        vec![append(1, 2_000, 10, 1), end.clone()],
        vec![op(1, 2, Action::Append { value: 10, index: None }), end.clone()],
    ] {
        assert!(matches!(check(&operations), Verdict::Unknown(_)), "{operations:?}");
    }
    assert_eq!(check(&[good, end]), Verdict::Valid);
}

#[test]
fn a_history_in_which_a_required_fault_never_bit_is_not_valid() {
    let fault = |bites| op(3, 4, Action::Fault { name: "kill".to_owned(), bites });
    let good = [append(1, 2, 10, 1), last(0, 2, &[(1, 10)])];
    let checker = RequireFaults { inner: AppendLog, faults: vec!["kill".to_owned()] };
    let check =
        |rest: &[Operation]| checker.check(&History { operations: [&good[..], rest].concat() });
    assert_eq!(check(&[fault(1)]), Verdict::Valid);
    assert!(matches!(check(&[fault(0)]), Verdict::Unknown(_)));
    assert!(matches!(check(&[]), Verdict::Unknown(_)));
    assert!(matches!(check(&[append(5, 6, 11, 2)]), Verdict::Invalid(_)), "a breach outweighs it");
}

/// Searches all orders of the appends and of the linearizable reads for a legal one.
fn linearizable(ops: &[(u64, u64, u64, bool)], done: u32, low: u64) -> bool {
    if done.count_ones() as usize == ops.len() {
        return true;
    }
    let left = || (0..ops.len()).filter(|i| done & (1 << i) == 0);
    let first_return = left().map(|i| ops[i].1).min().expect("some are left");
    left().any(|i| {
        let (call, _, at, is_append) = ops[i];
        // `low` is the least index that the next append may get. A read of all below `at` needs that
        // no append below `at` is left, and none at or above it done.
        let fits = if is_append {
            at >= low
        } else {
            at >= low && left().all(|j| !ops[j].3 || ops[j].2 >= at)
        };
        let low = if is_append { at + 1 } else { at };
        call <= first_return && fits && linearizable(ops, done | (1 << i), low)
    })
}

#[test]
fn the_checker_agrees_with_a_search_of_all_orders() {
    let (mut legal_count, mut broken_count) = (0, 0);
    for seed in 0..4_000 {
        let mut history = legal(seed, 9);
        let mut random = Random(seed);
        let at = random.below(9) as usize;
        let shift = random.below(150);
        let op = &mut history.operations[at];
        (op.call, op.ret) = (op.call - shift, op.ret.map(|ret| ret - shift));
        let Action::FinalRead { records, .. } = &history.operations[9].action else {
            panic!("the final read is the last");
        };
        let place = |value| records.iter().find(|record| record.1 == value);
        let ops: Vec<_> = history.operations[..9]
            .iter()
            .filter_map(|op| {
                let ok = op.outcome == Outcome::Ok;
                let ret = op.ret.filter(|_| ok).unwrap_or(u64::MAX);
                match op.action {
                    Action::Append { value, .. } => Some((op.call, ret, place(value)?.0, true)),
                    Action::Read { bound, .. } => Some((op.call, ret, bound?, false)),
                    _ => None,
                }
            })
            .collect();
        // Reads that may be stale are none of the search's business.
        history.operations.retain(|op| !matches!(op.action, Action::Read { bound: None, .. }));
        let verdict = AppendLog.check(&history);
        let expected = linearizable(&ops, 0, 0);
        assert_eq!(verdict == Verdict::Valid, expected, "seed {seed}: {verdict:?} {ops:?}");
        *if expected { &mut legal_count } else { &mut broken_count } += 1;
    }
    assert!(legal_count > 500 && broken_count > 500, "{legal_count} legal, {broken_count} broken");
}

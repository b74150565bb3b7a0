//! The checker against histories written by hand, for what random ones do not tell apart.

mod generator;

use std::collections::BTreeSet;

use generator::{clients, legal};
use jepsen::{
    Action, Anomaly, Check, Entry, EntryKind, Fault, Finding, History, Loss, Observation,
    Operation, Outcome, Replica, Report, Trim, Verdict, Vote, check,
};

fn op(call: u64, ret: u64, action: Action) -> Operation {
    Operation { process: 0, call, ret: Some(ret), outcome: Outcome::Ok, action }
}

fn append(call: u64, ret: u64, value: u64, index: u64) -> Operation {
    op(call, ret, Action::appended(value, index, 1))
}

fn batch(call: u64, ret: u64, values: &[u64], index: u64) -> Operation {
    op(call, ret, Action::batch_appended(values.to_vec(), index, 1))
}

fn unsure(call: u64, action: Action, outcome: Outcome) -> Operation {
    Operation { outcome, ..op(call, call, action) }
}

fn read(call: u64, ret: u64, to: u64, bound: Option<u64>, records: &[(u64, u64)]) -> Operation {
    op(call, ret, Action::Read { from: 0, to, records: records.to_vec(), bound })
}

fn tail(call: u64, ret: u64, bound: u64) -> Operation {
    op(call, ret, Action::Tail { bound: Some(bound) })
}

fn last(from: u64, to: u64, records: &[(u64, u64)]) -> Operation {
    op(1_000, 1_001, Action::FinalRead { from, to, records: records.to_vec() })
}

fn judge(operations: &[Operation]) -> Report {
    check(&History { operations: operations.to_vec(), ..History::default() })
}

#[track_caller]
fn holds(operations: &[Operation]) {
    let report = judge(operations);
    assert!(report.is_valid(), "{report}");
}

#[track_caller]
fn finds(anomalies: &[Anomaly], operations: &[Operation]) {
    let report = judge(operations);
    assert_eq!(report.anomalies(), BTreeSet::from_iter(anomalies.iter().copied()), "{report}");
    assert_eq!(report.verdict, Verdict::Invalid);
}

/// What is found if so many nodes lost their pages at 10, until 20, that what no majority had flushed may be gone: index
/// 2 and above, as far as it was acknowledged from 5 on.
fn lossy(flushed: &[u64], operations: &[Operation]) -> BTreeSet<Anomaly> {
    let losses = vec![Loss { time: 10, until: Some(20), from: 2, since: 5 }];
    let (operations, flushed) = (operations.to_vec(), flushed.to_vec());
    check(&History { operations, losses, flushed, ..History::default() }).anomalies()
}

#[test]
fn only_what_was_not_flushed_and_acknowledged_shortly_before_may_be_lost() {
    let kept = append(1, 2, 10, 1);
    let end = last(0, 3, &[(1, 10), (2, 30)]);
    let later = append(21, 22, 30, 2);
    let with = |lost: Operation| [kept.clone(), lost, later.clone(), end.clone()];
    let none = BTreeSet::new();
    let lost = BTreeSet::from([Anomaly::LostWrite, Anomaly::InconsistentOffsets]);
    assert_eq!(lossy(&[], &with(append(6, 7, 11, 2))), none);
    assert_eq!(lossy(&[11], &with(append(6, 7, 11, 2))), lost, "it asked for a flush");
    assert_eq!(lossy(&[], &with(append(3, 4, 11, 2))), lost, "long ago");
    assert_eq!(lossy(&[], &with(append(11, 12, 11, 2))), lost, "called behind the loss");
    let below = [append(6, 7, 10, 1), later.clone(), last(0, 3, &[(2, 30)])];
    assert_eq!(lossy(&[], &below), BTreeSet::from([Anomaly::LostWrite]), "a majority had it");
    // A batch whose end is lost is gone as a whole.
    let batch_of = |call, ret| batch(call, ret, &[10, 11], 1);
    let batch = [batch_of(6, 7), later.clone(), last(0, 3, &[(2, 30)])];
    assert_eq!(lossy(&[], &batch), none);
    // So it is if its begin is trimmed later, and only readers and producers know of it.
    let trimmed =
        [batch_of(6, 7), read(22, 23, 3, None, &[(2, 30)]), later, last(2, 3, &[(2, 30)])];
    assert_eq!(lossy(&[], &trimmed), none);
}

#[test]
fn who_was_given_what_is_lost_is_told_before_what_took_its_place() {
    let (kept, lost, later) = (append(1, 2, 10, 1), append(6, 7, 11, 2), append(21, 22, 30, 2));
    let end = [append(23, 24, 31, 3), last(0, 4, &[(1, 10), (2, 30), (3, 31)])];
    let with =
        |reads: &[Operation]| [&[kept.clone(), lost.clone(), later.clone()], reads, &end].concat();
    let deliver = |at: u64, subscription: u64, records: &[(u64, u64)]| {
        op(at, at, Action::Deliver { subscription, start: 1, records: records.to_vec() })
    };
    let none = BTreeSet::new();
    assert_eq!(lossy(&[], &with(&[deliver(8, 1, &[(1, 10), (2, 11)])])), none);
    // A node that was not there shows it until it hears of the others.
    assert_eq!(lossy(&[], &with(&[read(25, 26, 3, None, &[(1, 10), (2, 11)])])), none);
    let again = [deliver(8, 1, &[(1, 10), (2, 11)]), deliver(30, 2, &[(1, 10), (2, 30), (3, 31)])];
    assert_eq!(lossy(&[], &with(&again)), none);
    let crossed = [deliver(8, 1, &[(1, 10), (2, 11)]), deliver(30, 1, &[(3, 31)])];
    assert_eq!(lossy(&[], &with(&crossed)), BTreeSet::from([Anomaly::CrossedLoss]));
    // A barrier is of the history in force, once there is one.
    let linearizable = lossy(&[], &with(&[read(25, 26, 3, Some(3), &[(1, 10), (2, 11)])]));
    assert!(linearizable.contains(&Anomaly::InconsistentOffsets), "{linearizable:?}");
    assert_eq!(lossy(&[], &with(&[tail(8, 9, 4)])), none);
}

#[test]
fn legal_histories_are_valid() {
    for seed in 0..300 {
        let report = check(&legal(seed, 60));
        assert!(report.is_valid(), "seed {seed}: {report}");
        let groups = &report.findings[&Check::C8];
        assert!(matches!(groups, Finding::NotApplicable(_)), "seed {seed}: {report}");
    }
}

#[test]
fn what_clients_did_can_be_judged_without_the_nodes() {
    for seed in 0..300 {
        let report = check(&clients(seed, 60, 40));
        assert_eq!(report.verdict, Verdict::Valid, "seed {seed}: {report}");
        for unknown in [Check::C7, Check::C9] {
            assert!(matches!(report.findings[&unknown], Finding::NotApplicable(_)), "{report}");
        }
    }
}

#[test]
fn an_acknowledged_append_must_be_in_the_log_at_its_index() {
    let acked = [append(1, 2, 10, 1), append(3, 4, 11, 2)];
    let with = |end: Operation| [&acked[..], &[end]].concat();
    holds(&with(last(0, 3, &[(1, 10), (2, 11)])));
    finds(&[Anomaly::LostWrite], &with(last(0, 3, &[(1, 10)])));
    finds(&[Anomaly::LostWrite], &with(last(0, 2, &[(1, 10)])));
    finds(&[Anomaly::MovedWrite], &with(last(0, 4, &[(1, 10), (3, 11)])));
}

#[test]
fn an_append_of_unknown_outcome_may_be_there_or_not_but_a_failed_one_may_not() {
    let good = append(1, 2, 9, 0);
    for records in [&[(0, 9)][..], &[(0, 9), (1, 10)]] {
        holds(&[good.clone(), unsure(1, Action::append(10), Outcome::Info), last(0, 2, records)]);
    }
    let end = last(0, 2, &[(0, 9), (1, 10)]);
    let failed = unsure(1, Action::append(10), Outcome::Fail);
    finds(&[Anomaly::AbortedWrite], &[good.clone(), failed, end.clone()]);
    finds(&[Anomaly::Phantom], &[good, end]);
}

#[test]
fn a_batch_lies_in_a_row_and_is_there_whole_or_not_at_all() {
    let good = append(1, 2, 9, 0);
    let lost = unsure(3, Action::append_batch(vec![1, 2, 3]), Outcome::Info);
    let with = |end| [good.clone(), lost.clone(), end];
    holds(&with(last(0, 1, &[(0, 9)])));
    holds(&with(last(0, 5, &[(0, 9), (2, 1), (3, 2), (4, 3)])));
    for torn in
        [&[(0, 9), (2, 1), (3, 2)][..], &[(0, 9), (2, 1), (3, 2), (5, 3)], &[(0, 9), (1, 3)]]
    {
        finds(&[Anomaly::TornBatch], &with(last(0, 6, torn)));
    }
    // Retention may have taken its beginning.
    let trimmed = [&with(last(3, 5, &[(3, 2), (4, 3)]))[..], &[]].concat();
    let trims = vec![Trim { time: 9, before: 3 }];
    let report = check(&History { operations: trimmed, trims, ..History::default() });
    assert!(report.is_valid(), "{report}");
}

#[test]
fn readers_do_not_see_the_first_part_of_a_batch_whose_leader_died() {
    let entry = |index, term, kind, value| Entry { index, term, kind, value };
    let entries = vec![
        entry(0, 1, EntryKind::Record, 9),
        entry(1, 1, EntryKind::Record, 1),
        entry(2, 2, EntryKind::Blank, 0),
    ];
    let replica = Replica { node: 1, time: 900, committed: 3, entries, ..Replica::default() };
    let lost = unsure(3, Action::append_batch(vec![1, 2]), Outcome::Info);
    let run = |operations: &[Operation]| {
        let operations = [&[append(1, 2, 9, 0), lost.clone()][..], operations].concat();
        let replicas = vec![replica.clone()];
        check(&History { operations, replicas, ..History::default() })
    };
    let report = run(&[read(5, 6, 3, None, &[(0, 9)])]);
    assert!(report.is_valid(), "{report}");
    let report = run(&[read(5, 6, 3, None, &[(0, 9), (1, 1)])]);
    assert_eq!(report.anomalies(), BTreeSet::from([Anomaly::PrecommittedRead]), "{report}");
}

#[test]
fn the_order_of_the_log_is_one_that_the_clients_could_have_seen() {
    let end = last(0, 3, &[(1, 10), (2, 11)]);
    finds(&[Anomaly::NonmonotonicSend], &[append(3, 4, 10, 1), append(1, 2, 11, 2), end.clone()]);
    let appends = [append(1, 2, 10, 1), append(5, 9, 11, 2)];
    let with = |read: Operation| [&appends[..], &[read, end.clone()]].concat();
    finds(&[Anomaly::StaleRead], &with(read(10, 11, 2, Some(2), &[(1, 10)])));
    finds(&[Anomaly::StaleRead], &with(tail(10, 11, 2)));
    finds(&[Anomaly::FutureRead], &with(read(3, 4, 3, None, &[(1, 10), (2, 11)])));
    // A read without a bound may be stale, and what overlaps, or touches, may come in either order.
    holds(&with(read(10, 11, 2, None, &[(1, 10)])));
    holds(&with(read(6, 7, 2, Some(2), &[(1, 10)])));
    holds(&with(tail(9, 10, 2)));
    // What a stale read knew, a later barrier must know.
    let known = read(6, 7, 3, None, &[(1, 10), (2, 11)]);
    let stale = [&with(known)[..], &[tail(8, 9, 2)]].concat();
    finds(&[Anomaly::StaleRead], &stale);
}

#[test]
fn a_barrier_may_name_an_end_within_a_batch_until_that_is_acknowledged() {
    let end = last(0, 4, &[(0, 9), (1, 1), (2, 2), (3, 3)]);
    let with = |tail| [append(1, 2, 9, 0), batch(5, 9, &[1, 2, 3], 1), tail, end.clone()];
    holds(&with(tail(6, 7, 2)));
    finds(&[Anomaly::StaleRead], &with(tail(10, 11, 2)));
}

#[test]
fn what_retention_dropped_is_judged_by_what_was_said_before() {
    let end = last(2, 3, &[(2, 11)]);
    let acked = [append(1, 2, 10, 1), append(3, 4, 11, 2)];
    let run = |before: u64, read: Operation| {
        let trims = vec![Trim { time: 5, before }];
        let operations = [&acked[..], &[read, end.clone()]].concat();
        check(&History { operations, trims, ..History::default() })
    };
    let whole = read(5, 6, 3, None, &[(1, 10), (2, 11)]);
    assert!(run(2, whole.clone()).is_valid());
    let report = run(1, whole);
    assert_eq!(report.anomalies(), BTreeSet::from([Anomaly::LostWrite]), "not allowed: {report}");
    let report = run(2, read(5, 6, 3, None, &[(2, 11)]));
    assert_eq!(report.anomalies(), BTreeSet::from([Anomaly::PollSkip]), "{report}");
    let report = run(2, read(5, 6, 2, None, &[(1, 12)]));
    assert!(report.anomalies().contains(&Anomaly::InconsistentOffsets), "{report}");
}

#[test]
fn a_subscription_gives_each_record_once_and_skips_none() {
    let deliver = |at: u64, subscription, start, records: &[(u64, u64)]| {
        op(at, at, Action::Deliver { subscription, start, records: records.to_vec() })
    };
    let start =
        [append(1, 2, 10, 1), append(3, 4, 11, 2), append(5, 6, 12, 4), append(7, 8, 13, 5)];
    let end = last(0, 6, &[(1, 10), (2, 11), (4, 12), (5, 13)]);
    let with =
        |deliveries: &[Operation]| [&start[..], deliveries, std::slice::from_ref(&end)].concat();
    let first = deliver(10, 1, 0, &[(1, 10), (2, 11)]);
    holds(&with(&[first.clone(), deliver(11, 1, 0, &[(4, 12), (5, 13)])]));
    finds(&[Anomaly::PollSkip], &with(&[first.clone(), deliver(11, 1, 0, &[(5, 13)])]));
    finds(&[Anomaly::PollSkip], &with(&[deliver(11, 1, 0, &[(2, 11)])]));
    finds(&[Anomaly::NonmonotonicPoll], &with(&[first.clone(), first.clone()]));
    finds(&[Anomaly::NonmonotonicPoll], &with(&[deliver(11, 1, 3, &[(2, 11), (4, 12)])]));
    // Another subscription begins where it wants.
    holds(&with(&[first.clone(), deliver(11, 2, 5, &[(5, 13)]), deliver(12, 3, 0, &[(1, 10)])]));
    let twice = with(&[first, deliver(11, 1, 4, &[(4, 12)])]);
    assert_eq!(judge(&twice).verdict, Verdict::Unknown);
}

#[test]
fn what_a_node_keeps_in_memory_may_go_back_at_a_restart_and_its_vote_and_term_may_not() {
    let vote = Some(Vote { term: 5, node: 1, committed: true });
    let before = Observation {
        node: 1,
        term: 5,
        vote,
        begin: 2,
        committed: 9,
        applied: Some(9),
        end: 10,
        ..Observation::default()
    };
    let run = |after: Observation| {
        let operations = vec![append(1, 2, 10, 1), last(0, 2, &[(1, 10)])];
        let observations = vec![before.clone(), after];
        check(&History { operations, observations, ..History::default() })
    };
    let back =
        Observation { restarts: 1, committed: 3, applied: Some(2), end: 3, ..before.clone() };
    assert!(run(back.clone()).is_valid(), "{}", run(back));
    let report = run(Observation { committed: 8, ..before.clone() });
    assert_eq!(report.anomalies(), BTreeSet::from([Anomaly::WatermarkRegressed]));
    let report = run(Observation { restarts: 1, term: 4, ..before.clone() });
    assert_eq!(report.anomalies(), BTreeSet::from([Anomaly::TermRegressed]));
    // With another disk it is another node.
    let wiped = Observation { node: 1, incarnation: 1, ..Observation::default() };
    assert!(run(wiped.clone()).is_valid(), "{}", run(wiped));
}

#[test]
fn a_history_that_cannot_tell_is_not_valid() {
    let end = last(0, 2, &[(1, 10)]);
    let good = append(1, 2, 10, 1);
    let told_nothing = op(1, 2, Action::append(10));
    let never = Operation { ret: None, ..good.clone() };
    for operations in [
        vec![],
        vec![good.clone()],
        vec![append(2, 1, 10, 1), end.clone()],
        vec![good.clone(), unsure(3, Action::append(10), Outcome::Info), end.clone()],
        vec![append(1, 2_000, 10, 1), end.clone()],
        vec![told_nothing, end.clone()],
        vec![never, end.clone()],
    ] {
        assert_eq!(judge(&operations).verdict, Verdict::Unknown, "{operations:?}");
    }
    holds(&[good, end]);
}

#[test]
fn a_run_that_shows_nothing_is_vacuous_and_a_breach_outweighs_that() {
    let fault = |bites| Fault { time: 3, kind: "kill".to_owned(), injected: 1, bites };
    let run = |operations: &[Operation], faults: Vec<Fault>| {
        let mut history = History { operations: operations.to_vec(), faults, ..History::default() };
        history.required.faults.insert("kill".to_owned());
        check(&history)
    };
    let good = [append(1, 2, 10, 1), last(0, 2, &[(1, 10)])];
    assert_eq!(run(&good, vec![fault(0), fault(1)]).verdict, Verdict::Valid);
    assert_eq!(run(&good, vec![fault(0)]).verdict, Verdict::Vacuous);
    assert_eq!(run(&good, vec![]).verdict, Verdict::Vacuous);
    let broken = [append(1, 2, 10, 1), last(0, 2, &[])];
    assert_eq!(run(&broken, vec![]).verdict, Verdict::Invalid);
    // Nothing was appended, or hardly anything.
    assert_eq!(judge(&[last(0, 0, &[])]).verdict, Verdict::Vacuous);
    let failed = |at: u64| unsure(at, Action::append(100 + at), Outcome::Fail);
    let few = [&good[..], &[failed(3), failed(4), failed(5)]].concat();
    assert_eq!(judge(&few).verdict, Verdict::Vacuous);
    assert_eq!(judge(&few[..4]).verdict, Verdict::Valid);
}

#[test]
fn a_report_names_the_first_breaches_and_counts_all() {
    let appends: Vec<_> = (0..100).map(|at| append(at, at + 1, 1_000 + at, at)).collect();
    let report = judge(&[&appends[..], &[last(0, 100, &[])]].concat());
    let Finding::Failed { count, violations } = &report.findings[&Check::C1] else {
        panic!("{report}");
    };
    assert_eq!(*count, 100);
    assert!(violations.len() < 50, "{}", violations.len());
    let text = report.to_string();
    assert!(text.contains("C1") && text.contains("lost-write at index 0"), "{text}");
}

//! What a recorder takes down, from one thread and from many.

use std::sync::atomic::{AtomicU64, Ordering};

use jepsen::{Action, Observation, Outcome, Recorder, Replica, value_of};

#[test]
fn events_keep_their_order_when_the_clock_stands_still() {
    let recorder = Recorder::new(|| 7);
    let first = recorder.invoke(1, Action::append(10));
    recorder.fault("kill", 0);
    recorder.ok(first, Action::appended(10, 1, 1));
    let second = recorder.invoke(1, Action::append(11));
    recorder.fail(second);
    let third = recorder.invoke(2, Action::append(12));
    recorder.info(third);
    let _open = recorder.invoke(2, Action::append(13));
    recorder.bit("kill", 3);
    recorder.bit("kill", 0);
    let history = recorder.finish();
    let ops = &history.operations;
    let times: Vec<_> = ops.iter().flat_map(|op| [Some(op.call), op.ret]).collect();
    let expected = [7, 9, 10, 11, 12, 13, 14].map(Some);
    assert_eq!(times, [&expected[..], &[None]].concat());
    let outcomes: Vec<_> = ops.iter().map(|op| op.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Fail, Outcome::Info, Outcome::Info]);
    let counts = history.fault_counts();
    assert_eq!((counts["kill"].injected, counts["kill"].bites), (1, 3));
    assert_eq!(recorder.finish().operations, []);
}

#[test]
fn what_a_node_says_is_kept_when_it_is_news() {
    let recorder = Recorder::new(|| 1);
    let say = |node, committed| {
        recorder.observe(Observation { node, committed, end: 9, ..Observation::default() });
    };
    for (node, committed) in [(1, 3), (2, 3), (1, 3), (1, 4), (2, 3), (1, 3)] {
        say(node, committed);
    }
    for (node, term) in [(1, 1), (1, 1), (2, 2), (1, 1), (1, 2)] {
        recorder.leader(node, term);
    }
    recorder.healed();
    recorder.converged();
    recorder.converged();
    recorder.replica(Replica { node: 1, ..Replica::default() });
    let history = recorder.finish();
    let said: Vec<_> = history.observations.iter().map(|o| (o.node, o.committed)).collect();
    assert_eq!(said, [(1, 3), (2, 3), (1, 4), (1, 3)]);
    let led: Vec<_> = history.leaders.iter().map(|leader| (leader.node, leader.term)).collect();
    assert_eq!(led, [(1, 1), (2, 2), (1, 2)], "two that lead in one term are both kept");
    assert!(history.observations.is_sorted_by_key(|observation| observation.time));
    let (healed, converged) = (history.healed, history.converged);
    assert_eq!(converged, healed.map(|healed| healed + 1), "the first time counts");
    assert!(history.replicas[0].time > converged.unwrap_or(0));
}

#[test]
fn threads_may_record_at_once() {
    let ticks = AtomicU64::new(0);
    let recorder = Recorder::new(move || ticks.fetch_add(1, Ordering::Relaxed) / 3);
    std::thread::scope(|threads| {
        for process in 0..4 {
            let recorder = &recorder;
            threads.spawn(move || {
                for number in 0..500 {
                    let value = process * 1_000 + number;
                    let id = recorder.invoke(process, Action::append(value));
                    recorder.ok(id, Action::appended(value, value, 1));
                }
            });
        }
    });
    let operations = recorder.finish().operations;
    assert_eq!(operations.len(), 2_000);
    assert!(operations.is_sorted_by_key(|op| op.call));
    assert!(operations.iter().all(|op| op.ret.is_some_and(|ret| ret > op.call)));
    for process in 0..4 {
        let own: Vec<_> = operations.iter().filter(|op| op.process == process).collect();
        assert!(own.windows(2).all(|pair| pair[0].ret < Some(pair[1].call)), "one by one");
    }
}

#[test]
#[should_panic(expected = "ended twice")]
fn an_operation_ends_once() {
    let recorder = Recorder::new(|| 0);
    let id = recorder.invoke(1, Action::append(10));
    recorder.fail(id);
    recorder.info(id);
}

#[test]
#[should_panic(expected = "asked was append, and told was tail")]
fn an_operation_is_told_what_it_asked() {
    let recorder = Recorder::new(|| 0);
    let id = recorder.invoke(1, Action::append(10));
    recorder.ok(id, Action::Tail { bound: Some(1) });
}

#[test]
fn payloads_that_differ_in_a_bit_have_different_values() {
    let payload = b"a payload of some length".to_vec();
    let mut values = vec![value_of(&payload), value_of(b"")];
    for bit in 0..payload.len() * 8 {
        let mut other = payload.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        values.push(value_of(&other));
    }
    let count = values.len();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), count);
    assert!(values.iter().all(|value| *value <= i64::MAX as u64));
}

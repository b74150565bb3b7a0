//! Histories as JSON lines and as EDN.

mod generator;

use generator::{Random, legal};
use jepsen::{Action, Fault, History, Operation, Outcome, from_edn, to_edn};

#[test]
fn json_lines_give_back_what_was_written() {
    for seed in 0..20 {
        let history = legal(seed, 40);
        assert_eq!(History::from_json_lines(&history.to_json_lines()), Ok(history), "seed {seed}");
    }
}

#[test]
fn a_line_that_is_no_part_of_a_history_is_named() {
    let good = legal(1, 20).to_json_lines();
    let unknown = "{\"type\":\"operation\",\"kind\":\"append\"}";
    for bad in ["{}", "[", unknown, "null", "{\"type\":\"healed\"}"] {
        let error = History::from_json_lines(&format!("{good}\n{bad}\n")).expect_err(bad);
        assert_eq!(error.line, good.lines().count() + 2, "{bad}: {error}");
    }
}

#[test]
fn edn_gives_back_what_was_written() {
    for seed in 0..20 {
        let mut history = legal(seed, 60);
        // What was told of an operation that never returned is nowhere in EDN.
        let lost = |op: &&mut Operation| op.ret.is_none();
        assert!(history.operations.iter_mut().filter(lost).all(|op| op.outcome == Outcome::Info));
        let text = to_edn(&history);
        assert_eq!(from_edn(&text), Ok(history), "seed {seed}");
    }
}

#[test]
fn edn_has_the_events_that_checkers_of_jepsen_expect() {
    let action = Action::appended(7, 3, 2);
    let ok = Operation { process: 4, call: 10, ret: Some(12), outcome: Outcome::Ok, action };
    let action = Action::append(8);
    let unsure = Operation { process: 4, call: 13, ret: Some(15), outcome: Outcome::Info, action };
    let action = Action::Read { from: 3, to: 5, records: vec![(3, 7), (4, 8)], bound: Some(5) };
    let read = Operation { process: 4, call: 16, ret: Some(17), outcome: Outcome::Ok, action };
    let fault = Fault { time: 11, kind: "say \"kill\" \\".to_owned(), injected: 1, bites: 2 };
    let operations = vec![ok, unsure, read];
    let history = History { operations, faults: vec![fault], ..History::default() };
    let text = to_edn(&history);
    let nemesis = ":process :nemesis, :type :info, :f";
    let expected = [
        format!("{{:index 0, :time 0, {nemesis} :required, :value {{:faults [], :leader-changes 0, :ok-percent 30}}}}"),
        "{:index 1, :time 10, :process 4, :type :invoke, :f :append, :value 7, :offset nil, :term nil}".to_owned(),
        format!("{{:index 2, :time 11, {nemesis} :fault, :value {{:bites 2, :injected 1, :kind \"say \\\"kill\\\" \\\\\", :time 11}}}}"),
        "{:index 3, :time 12, :process 4, :type :ok, :f :append, :value 7, :offset 3, :term 2}".to_owned(),
        "{:index 4, :time 13, :process 4, :type :invoke, :f :append, :value 8, :offset nil, :term nil}".to_owned(),
        "{:index 5, :time 15, :process 4, :type :info, :f :append, :value 8, :offset nil, :term nil}".to_owned(),
        // It was not told what became of its append, so it is another process from then on.
        "{:index 6, :time 16, :process 9, :client 4, :type :invoke, :f :read, :from 3, :to 3, :value nil, :bound nil}".to_owned(),
        "{:index 7, :time 17, :process 9, :client 4, :type :ok, :f :read, :from 3, :to 5, :value [[3 7] [4 8]], :bound 5}".to_owned(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(from_edn(&text), Ok(history));
}

#[test]
fn text_that_is_no_edn_is_an_error_and_never_a_panic() {
    let event = "{:process 4, :type :invoke, :time 10, :f :append, :value 7, :offset nil}";
    for bad in [
        &event[..20],
        event,
        "{:process 4}",
        "{:process 5, :type :ok, :time 1, :f :append, :value 7, :offset 1}",
        "{:process 5, :type :invoke, :time 1, :f :read, :from 0, :to 1, :value [[[1]]]}",
        "{:process :nemesis, :type :info, :time 1, :f :fault, :value {:kind \"x, :bites 1}}",
        "{:process :nemesis, :type :info, :time 1, :f :fault, :value {:kind \"x\"}}",
        &"[".repeat(100_000),
    ] {
        assert_eq!(from_edn(&format!("{event}\n{bad}")).expect_err(bad).line, 2, "{bad}");
    }
    let mut random = Random(5);
    for _ in 0..2_000 {
        let mut bytes = event.as_bytes().to_vec();
        for _ in 0..3 {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = b"{}[]:\"\\ ,a0\xc3"[random.below(12) as usize];
        }
        // Only that it returns.
        drop(from_edn(&String::from_utf8_lossy(&bytes)));
    }
}

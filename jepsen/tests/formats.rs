//! Histories as JSON lines and as EDN.

mod generator;

use generator::{Random, legal};
use jepsen::{Action, History, Operation, Outcome, from_edn, to_edn};

#[test]
fn json_lines_give_back_what_was_written() {
    for seed in 0..20 {
        let history = legal(seed, 40);
        let text = history.to_json_lines();
        assert_eq!(text.lines().count(), history.operations.len());
        assert_eq!(History::from_json_lines(&text), Ok(history), "seed {seed}");
    }
}

#[test]
fn a_line_that_is_no_operation_is_named() {
    let good = legal(1, 1).to_json_lines();
    for bad in ["{}", "[", "{\"kind\":\"append\"}", "null"] {
        let error = History::from_json_lines(&format!("{good}\n{bad}\n")).expect_err(bad);
        assert_eq!(error.line, good.lines().count() + 2, "{bad}: {error}");
    }
}

#[test]
fn edn_gives_back_what_returned() {
    for seed in 0..20 {
        let mut history = legal(seed, 40);
        // Calls that overlap within one process cannot be told apart in EDN.
        for (process, op) in (0..).zip(&mut history.operations) {
            op.process = process;
        }
        assert_eq!(from_edn(&to_edn(&history)), Ok(history), "seed {seed}");
    }
}

#[test]
fn edn_has_the_events_that_checkers_of_jepsen_expect() {
    let action = Action::Append { value: 7, index: Some(3) };
    let ok = Operation { process: 4, call: 10, ret: Some(12), outcome: Outcome::Ok, action };
    let action = Action::Fault { name: "say \"kill\" \\".to_owned(), bites: 1 };
    let fault = Operation { process: 5, call: 11, ret: None, outcome: Outcome::Info, action };
    let history = History { operations: vec![ok, fault] };
    let text = to_edn(&history);
    assert_eq!(
        text,
        "{:process 4, :type :invoke, :time 10, :f :append, :value 7, :index nil}\n\
         {:process 5, :type :invoke, :time 11, :f :fault, :name \"say \\\"kill\\\" \\\\\", :value 1}\n\
         {:process 4, :type :ok, :time 12, :f :append, :value 7, :index 3}\n"
    );
    assert_eq!(from_edn(&text), Ok(history));
}

#[test]
fn text_that_is_no_edn_is_an_error_and_never_a_panic() {
    let event = "{:process 4, :type :invoke, :time 10, :f :append, :value 7, :index nil}";
    for bad in [
        &event[..20],
        "{:process 4}",
        "{:process 5, :type :ok, :time 1, :f :append, :value 7, :index 1}",
        "{:process 4, :type :invoke, :time 1, :f :read, :from 0, :to 1, :value [[[1]]]}",
        "{:process 4, :type :invoke, :time 1, :f :fault, :name \"x, :value 1}",
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

//! Prints how long the checker takes for a run of a million operations on one log: `cargo bench -p jepsen`.

use std::time::Instant;

use jepsen::{Action, Entry, EntryKind, History, Observation, Operation, Outcome, Replica, check};

const OPERATIONS: u64 = 1_000_000;
/// Records in each read.
const READ: u64 = 10;
/// How many operations are under way at once.
const CLIENTS: u64 = 50;

fn main() {
    // Half as many, to show that the time grows hardly faster than the history.
    for count in [OPERATIONS / 2, OPERATIONS] {
        let history = history(count);
        let records: usize = history.replicas.iter().map(|replica| replica.entries.len()).sum();
        let began = Instant::now();
        let report = check(&history);
        let took = began.elapsed();
        assert!(report.is_valid(), "{report}");
        eprintln!(
            "{count} operations, {} observations and {records} entries of three replicas: {took:?}",
            history.observations.len()
        );
    }
}

/// Of ten operations eight append and two read, one of them behind a barrier.
fn history(count: u64) -> History {
    let mut history = History::default();
    let (mut entries, mut end) = (Vec::new(), 0);
    for number in 0..count {
        // It takes effect in the middle of its time.
        let moment = (number + CLIENTS) * 20;
        let action = if number % 10 < 8 {
            end += 1;
            let (index, term) = (end - 1, 1 + number / 100_000);
            entries.push(Entry { index, term, kind: EntryKind::Record, value: number });
            Action::appended(number, index, term)
        } else {
            let from = end.saturating_sub(READ);
            let seen = &entries[from as usize..];
            let records = seen.iter().map(|entry| (entry.index, entry.value)).collect();
            let bound = (number % 10 == 9).then_some(end);
            Action::Read { from, to: end, records, bound }
        };
        let spread = 10 + (number * 7_919) % (10 * CLIENTS);
        let (call, ret, outcome) = (moment - spread, Some(moment + spread), Outcome::Ok);
        let process = number % CLIENTS;
        history.operations.push(Operation { process, call, ret, outcome, action });
        if number % 10 == 0 {
            let node = 1 + number / 10 % 3;
            let (time, committed, term) = (moment, end, 1 + number / 100_000);
            let status = Observation { time, node, term, committed, end, ..Observation::default() };
            history.observations.push(status);
        }
    }
    let time = (count + 2 * CLIENTS) * 20;
    for node in 1..=3 {
        let (committed, entries) = (end, entries.clone());
        history.replicas.push(Replica { time, node, committed, entries, ..Replica::default() });
    }
    history
}

//! The checker can fail: each kind of breach, planted in random legal histories, is found for what it is.

mod generator;
mod mutator;

use std::collections::BTreeSet;

use generator::{Random, legal};
use jepsen::{Anomaly, Check, History, Verdict, check, from_edn, to_edn};

const SEEDS: u64 = 100;

#[test]
fn every_kind_of_breach_is_found_by_its_check() {
    let mut checks = BTreeSet::from([Check::C8]);
    for mutation in mutator::all() {
        let mut broken = 0;
        for seed in 0..SEEDS {
            let mut history = legal(seed, 60);
            let mut random = Random(seed ^ 0xB0_0C);
            if (mutation.change)(&mut history, &mut random).is_none() {
                continue;
            }
            broken += 1;
            let report = check(&history);
            let found = report.anomalies().contains(&mutation.anomaly);
            assert!(found, "{}, seed {seed}: no {:?}: {report}", mutation.name, mutation.anomaly);
            let expected = match mutation.anomaly.check() {
                Check::C10 => Verdict::Vacuous,
                _ => Verdict::Invalid,
            };
            assert_eq!(report.verdict, expected, "{}, seed {seed}: {report}", mutation.name);
            assert!(report.failed().contains(&mutation.anomaly.check()));
        }
        assert!(broken >= SEEDS / 5, "{}: only {broken} of {SEEDS} could be broken", mutation.name);
        checks.insert(mutation.anomaly.check());
    }
    assert_eq!(checks, BTreeSet::from(Check::ALL), "every check but C8 has a mutation");
}

#[test]
fn every_anomaly_has_a_mutation() {
    let planted: BTreeSet<Anomaly> = mutator::all().iter().map(|it| it.anomaly).collect();
    assert_eq!(planted, BTreeSet::from(Anomaly::ALL));
}

#[test]
fn a_history_that_was_written_and_read_is_judged_the_same() {
    for (seed, mutation) in (0..).zip(mutator::all()) {
        let mut history = legal(seed, 60);
        (mutation.change)(&mut history, &mut Random(seed));
        let report = check(&history);
        let read = History::from_json_lines(&history.to_json_lines()).expect("it was written");
        assert_eq!(check(&read), report, "{}", mutation.name);
        history.operations.sort_by_key(|op| op.call);
        let read = from_edn(&to_edn(&history)).expect("it was written");
        assert_eq!(check(&read).failed(), report.failed(), "{}", mutation.name);
    }
}

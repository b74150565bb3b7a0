//! The checker of one log. See [`Check`](crate::Check) for what it demands.
//!
//! What the log held in the end gives every append its place, and what a read covered gives it its place between
//! them. That is the only order in which the operations can have happened, so nothing has to be
//! searched: each property is one pass over sorted lists.

mod appends;
mod attempts;
mod clients;
mod liveness;
mod losses;
mod nodes;
mod order;
mod reads;
mod truth;
mod vacuity;

use std::collections::BTreeMap;

use crate::history::{History, Outcome};
use crate::report::{Check, Finding, Report, Verdict, Violations};

/// A time that never comes.
const NEVER: u64 = u64::MAX;

/// Judges a history by all ten checks, in O(n log n) of the operations, records and observations in it.
pub fn check(history: &History) -> Report {
    let mut violations = Violations::default();
    let told = clients::check(history, &mut violations);
    let seen = nodes::check(history, &mut violations);
    let mut findings = BTreeMap::new();
    for check in [Check::C1, Check::C2, Check::C3, Check::C4, Check::C5, Check::C6] {
        let found = violations.finding(check, *told.as_ref().unwrap_or(&0));
        let finding = match (&told, found) {
            (Err(reason), Finding::Passed { .. }) => Finding::CannotTell(reason.clone()),
            (_, found) => found,
        };
        findings.insert(check, finding);
    }
    findings.insert(
        Check::C7,
        match seen {
            0 => Finding::NotApplicable("nothing was recorded of the nodes".to_owned()),
            seen => violations.finding(Check::C7, seen),
        },
    );
    let reason = "there are no consumer groups: quorumlog has no broker yet";
    findings.insert(Check::C8, Finding::NotApplicable(reason.to_owned()));
    findings.insert(Check::C9, liveness::check(history));
    findings.insert(Check::C10, vacuity::check(history));

    let ok = || history.operations.iter().filter(|op| op.outcome == Outcome::Ok);
    let counts = history.fault_counts();
    Report {
        verdict: verdict(&findings),
        findings,
        operations: history.operations.len() as u64,
        ok: ok().count() as u64,
        acknowledged: ok().filter(|op| !op.action.values().is_empty()).count() as u64,
        faults: counts.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        leader_changes: history.leader_changes(),
    }
}

/// The worst that was found.
fn verdict(findings: &BTreeMap<Check, Finding>) -> Verdict {
    let verdicts = findings.iter().map(|(check, finding)| match finding {
        Finding::Passed { .. } | Finding::NotApplicable(_) => Verdict::Valid,
        Finding::Failed { .. } if *check == Check::C10 => Verdict::Vacuous,
        Finding::Failed { .. } => Verdict::Invalid,
        Finding::CannotTell(_) => Verdict::Unknown,
    });
    verdicts.max().unwrap_or(Verdict::Unknown)
}

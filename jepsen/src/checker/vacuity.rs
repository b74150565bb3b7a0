//! C10: the run went through what it was meant to. One that was never disturbed, or in which hardly anything
//! succeeded, shows nothing.

use crate::history::{Action, History, Operation, Outcome};
use crate::report::{Anomaly, Check, Finding, Violations};

pub(super) fn check(history: &History) -> Finding {
    let required = &history.required;
    let mut violations = Violations::default();
    let counts = history.fault_counts();
    for kind in &required.faults {
        let count = counts.get(kind.as_str()).copied().unwrap_or_default();
        if count.bites == 0 {
            let detail = || format!("{kind} was put in {} times", count.injected);
            violations.add(Anomaly::FaultNeverBit, None, detail);
        }
    }
    // What is recorded only if it succeeded says nothing here.
    let asks =
        |op: &&Operation| !matches!(op.action, Action::FinalRead { .. } | Action::Deliver { .. });
    let asked = || history.operations.iter().filter(asks);
    let all = asked().count() as u64;
    let ok = asked().filter(|op| op.outcome == Outcome::Ok).count() as u64;
    let percent = required.ok_percent;
    if ok * 100 < all * percent || ok == 0 {
        let detail = || format!("{ok} of {all} appends and reads, and {percent} % are required");
        violations.add(Anomaly::FewSuccesses, None, detail);
    }
    let appended = |op: &Operation| op.outcome == Outcome::Ok && !op.action.values().is_empty();
    if !asked().any(appended) {
        violations.add(Anomaly::FewSuccesses, None, || "no append was acknowledged".to_owned());
    }
    let changes = history.leader_changes();
    if changes < required.leader_changes {
        let detail = || format!("{changes}, and {} are required", required.leader_changes);
        violations.add(Anomaly::FewLeaderChanges, None, detail);
    }
    violations.finding(Check::C10, all + required.faults.len() as u64)
}

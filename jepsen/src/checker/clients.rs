//! C1 to C6: what clients were told, against what the log held in the end.

use super::attempts::Attempts;
use super::truth::Truth;
use super::{appends, order, reads};
use crate::history::{History, Operation, Outcome};
use crate::report::Violations;

/// How many operations and records were looked at, or why the history cannot be judged.
pub(super) fn check(history: &History, violations: &mut Violations) -> Result<u64, String> {
    for op in &history.operations {
        if let Some(fault) = malformed(op) {
            return Err(format!("{fault}: {op:?}"));
        }
    }
    let attempts = Attempts::new(history)?;
    let truth = Truth::new(history, &attempts, violations)?;
    appends::check(history, &attempts, &truth, violations);
    let read = reads::check(history, &truth, violations)?;
    order::check(history, &attempts, &truth, violations);
    Ok(history.operations.len() as u64 + truth.records.len() as u64 + read)
}

/// Why an operation makes no sense.
fn malformed(op: &Operation) -> Option<&'static str> {
    let ok = op.outcome == Outcome::Ok;
    let append = !op.action.values().is_empty();
    match op.ret {
        Some(ret) if ret < op.call => Some("it returned before its call"),
        None if ok => Some("it is ok and never returned"),
        _ if append && ok && op.action.acknowledged().is_none() => {
            Some("it was acknowledged without an index")
        }
        _ => None,
    }
}

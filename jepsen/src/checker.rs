//! What a checker is, and what it can say.

use std::fmt;

use crate::history::{Action, History, Outcome};

/// Judges histories against one property.
pub trait Checker {
    /// Name of the property, for reports.
    fn name(&self) -> &'static str;
    /// Judges `history`. Must not say `Valid` where it could not tell.
    fn check(&self, history: &History) -> Verdict;
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The property holds.
    Valid,
    /// It does not, and here is where. Never empty.
    Invalid(Vec<Violation>),
    /// The history does not say: something needed is not in it.
    Unknown(String),
}

/// One place where a history broke its property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What kind of breach.
    pub anomaly: Anomaly,
    /// Where in the log.
    pub index: u64,
    /// Which values or operations.
    pub detail: String,
}

/// Kinds of breaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Anomaly {
    /// An acknowledged append is not in the log.
    Lost,
    /// An append was acknowledged at one index and lies at another.
    Moved,
    /// Two values were seen at one index.
    Divergent,
    /// One append lies at two indexes.
    Duplicate,
    /// A value that nobody appended.
    Phantom,
    /// An append that had definitely failed is in the log.
    Undead,
    /// A read gave a record that is not in the log: it was never committed.
    Ghost,
    /// A read left out a record of the range that it covered.
    Skipped,
    /// Records of one read were not in the order of their indexes.
    Disordered,
    /// What returned before another operation was called lies behind it in the log.
    RealTime,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at index {}: {}", self.anomaly, self.index, self.detail)
    }
}

/// Another checker, plus the demand that each of these faults took effect in the history: a test that was
/// never disturbed shows nothing, so it is not `Valid`.
#[derive(Debug, Clone)]
pub struct RequireFaults<C> {
    /// Judges the rest.
    pub inner: C,
    /// Names of the faults, as in [`Action::Fault`].
    pub faults: Vec<String>,
}

impl<C: Checker> Checker for RequireFaults<C> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn check(&self, history: &History) -> Verdict {
        let bit = |fault: &String| {
            history.operations.iter().any(|op| {
                matches!(&op.action, Action::Fault { name, bites } if name == fault && *bites > 0)
                    && op.outcome == Outcome::Ok
            })
        };
        match (self.inner.check(history), self.faults.iter().find(|fault| !bit(fault))) {
            (Verdict::Valid, Some(fault)) => {
                Verdict::Unknown(format!("the fault {fault} never took effect"))
            }
            (verdict, _) => verdict,
        }
    }
}

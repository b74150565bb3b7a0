//! What the checker can say.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::cluster::FaultCount;

/// How many breaches of one check a report names; it counts all.
const VIOLATIONS_NAMED: usize = 20;

/// What a history is checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Check {
    /// No acknowledged append is lost, and each lies where it was acknowledged.
    C1,
    /// An index has one value: in acknowledgements, in all reads, on all replicas.
    C2,
    /// Every value lies at one index, batches lie whole and in a row, replicas have no holes. Indexes are not dense
    /// for readers, since blanks and memberships take some. quorumlog does not drop the second copy of a
    /// retry, so each attempt is a value of its own.
    C3,
    /// Every value was appended by somebody, by an attempt that had not definitely failed.
    C4,
    /// The order of the log is one that the clients could have seen: linearizability.
    C5,
    /// Readers see what is committed, whole and in order: nothing that is gone later, no gap, nothing twice.
    C6,
    /// What a node said never goes back: its vote and term not even over restarts, its watermarks not while it
    /// runs. Logs of nodes agree in what is committed, and a term has one leader.
    C7,
    /// Consumer groups.
    C8,
    /// After the faults the cluster soon serves, and all replicas are equal.
    C9,
    /// The run shows something: required faults bit, enough succeeded, the leader changed often enough.
    C10,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::C1,
        Self::C2,
        Self::C3,
        Self::C4,
        Self::C5,
        Self::C6,
        Self::C7,
        Self::C8,
        Self::C9,
        Self::C10,
    ];

    /// What it is about, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::C1 => "no acknowledged append is lost or moved",
            Self::C2 => "one value per index",
            Self::C3 => "one index per value, batches whole",
            Self::C4 => "no phantoms",
            Self::C5 => "real-time order",
            Self::C6 => "reads are committed, whole and in order",
            Self::C7 => "nodes never go back",
            Self::C8 => "consumer groups",
            Self::C9 => "well soon after the faults",
            Self::C10 => "the run shows something",
        }
    }
}

/// Kinds of breaches. Those that Jepsen's Kafka checker knows have the names that it gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    /// C1: an acknowledged append is not in the log.
    LostWrite,
    /// C1: an append was acknowledged at one index, or in one term, and lies at another.
    MovedWrite,
    /// C2: two values were seen at one index, or a value and nothing.
    InconsistentOffsets,
    /// C3: one append lies at two indexes.
    Duplicate,
    /// C3: a part of a batch is visible, or its records do not lie in a row.
    TornBatch,
    /// C3: a replica's indexes do not follow one another.
    LogGap,
    /// C4: a value that nobody appended.
    Phantom,
    /// C4: an append that had definitely failed is in the log.
    AbortedWrite,
    /// C5: an append returned before another was called that lies before it.
    NonmonotonicSend,
    /// C5: a linearizable read missed what was known before it was called.
    StaleRead,
    /// C5: a read saw what was appended only after it had returned.
    FutureRead,
    /// C6: a read gave what is not in the log, so it was not committed.
    PrecommittedRead,
    /// C6: a reader was not given a record between others.
    PollSkip,
    /// C6: a reader was given records out of order, twice, or from before its start.
    NonmonotonicPoll,
    /// C6: a reader was given records of a history that was lost, and then, without a word, of the one that took its
    /// place.
    CrossedLoss,
    /// C7: a node's term went back.
    TermRegressed,
    /// C7: a node's vote went back.
    VoteRegressed,
    /// C7: a node voted for two in one term.
    DoubleVote,
    /// C7: a node's begin, committed or applied went back while it ran.
    WatermarkRegressed,
    /// C7: a node's watermarks contradict each other.
    WatermarksDisordered,
    /// C7: two nodes led in one term.
    TwoLeaders,
    /// C7: terms go back within a replica.
    LogTermRegressed,
    /// C7: two replicas have different entries at one committed index.
    DivergentReplica,
    /// C9: the replicas were not seen to be equal in time.
    NotConverged,
    /// C9: replicas that should be equal are not.
    ReplicasDiffer,
    /// C9: no append was acknowledged after the faults.
    NotServing,
    /// C9: answers took too long after the faults.
    Slow,
    /// C10: a required fault never took effect.
    FaultNeverBit,
    /// C10: too few operations succeeded.
    FewSuccesses,
    /// C10: the leader changed too seldom.
    FewLeaderChanges,
}

impl Anomaly {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::LostWrite,
        Self::MovedWrite,
        Self::InconsistentOffsets,
        Self::Duplicate,
        Self::TornBatch,
        Self::LogGap,
        Self::Phantom,
        Self::AbortedWrite,
        Self::NonmonotonicSend,
        Self::StaleRead,
        Self::FutureRead,
        Self::PrecommittedRead,
        Self::PollSkip,
        Self::NonmonotonicPoll,
        Self::CrossedLoss,
        Self::TermRegressed,
        Self::VoteRegressed,
        Self::DoubleVote,
        Self::WatermarkRegressed,
        Self::WatermarksDisordered,
        Self::TwoLeaders,
        Self::LogTermRegressed,
        Self::DivergentReplica,
        Self::NotConverged,
        Self::ReplicasDiffer,
        Self::NotServing,
        Self::Slow,
        Self::FaultNeverBit,
        Self::FewSuccesses,
        Self::FewLeaderChanges,
    ];

    /// The check that it breaks.
    pub fn check(self) -> Check {
        match self {
            Self::LostWrite | Self::MovedWrite => Check::C1,
            Self::InconsistentOffsets => Check::C2,
            Self::Duplicate | Self::TornBatch | Self::LogGap => Check::C3,
            Self::Phantom | Self::AbortedWrite => Check::C4,
            Self::NonmonotonicSend | Self::StaleRead | Self::FutureRead => Check::C5,
            Self::PrecommittedRead
            | Self::PollSkip
            | Self::NonmonotonicPoll
            | Self::CrossedLoss => Check::C6,
            Self::TermRegressed
            | Self::VoteRegressed
            | Self::DoubleVote
            | Self::WatermarkRegressed
            | Self::WatermarksDisordered
            | Self::TwoLeaders
            | Self::LogTermRegressed
            | Self::DivergentReplica => Check::C7,
            Self::NotConverged | Self::ReplicasDiffer | Self::NotServing | Self::Slow => Check::C9,
            Self::FaultNeverBit | Self::FewSuccesses | Self::FewLeaderChanges => Check::C10,
        }
    }

    /// Its name in reports: `lost-write`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// One place where a history broke a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What kind of breach.
    pub anomaly: Anomaly,
    /// Where in the log, if it is about one place.
    pub index: Option<u64>,
    /// Which values, operations or nodes.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.anomaly.name())?;
        if let Some(index) = self.index {
            write!(f, " at index {index}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It holds.
    Passed {
        /// How many facts it looked at: operations, records, observations.
        examined: u64,
    },
    /// It does not, and here is where. Of [`Check::C10`]: why the run shows nothing.
    Failed {
        /// How many breaches there are.
        count: u64,
        /// The first of them. Never empty.
        violations: Vec<Violation>,
    },
    /// There is nothing that it could apply to.
    NotApplicable(String),
    /// The history does not say: something needed is not in it, or it is no history.
    CannotTell(String),
}

/// What a report comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every check that applies has passed.
    Valid,
    /// Nothing is wrong with what was seen, but the run went through too little to show anything (C10). Not passed.
    Vacuous,
    /// The history does not say whether all holds. Not passed.
    Unknown,
    /// A check failed, whatever else is the case.
    Invalid,
}

/// What all checks found in one history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it comes to.
    pub verdict: Verdict,
    /// Every check, in the order of their numbers.
    pub findings: BTreeMap<Check, Finding>,
    /// Operations in the history.
    pub operations: u64,
    /// Of those the ones that are `ok`.
    pub ok: u64,
    /// Appends that were acknowledged; a batch is one.
    pub acknowledged: u64,
    /// What was done to the cluster, by kind.
    pub faults: BTreeMap<String, FaultCount>,
    /// How often another node led in the next term.
    pub leader_changes: u64,
}

impl Report {
    /// Whether the run passed: nothing was wrong, all could be judged, and the run showed something.
    pub fn is_valid(&self) -> bool {
        self.verdict == Verdict::Valid
    }

    /// The breaches that are named, in the order of the checks.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.findings.values().flat_map(|finding| match finding {
            Finding::Failed { violations, .. } => violations.as_slice(),
            _ => &[],
        })
    }

    /// Kinds of breaches that were found: what a shrunk run has to keep.
    pub fn anomalies(&self) -> BTreeSet<Anomaly> {
        self.violations().map(|violation| violation.anomaly).collect()
    }

    /// Checks that failed.
    pub fn failed(&self) -> BTreeSet<Check> {
        self.anomalies().into_iter().map(Anomaly::check).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, operations, ok, acknowledged, leader_changes, .. } = self;
        write!(f, "{verdict:?}: {operations} operations, {ok} ok, {acknowledged} appends ")?;
        writeln!(f, "acknowledged, {leader_changes} changes of leader")?;
        for (check, finding) in &self.findings {
            let number = format!("{check:?}");
            write!(f, "  {number:<4}{:<42}", check.title())?;
            match finding {
                Finding::Passed { examined } => writeln!(f, "passed ({examined} examined)")?,
                Finding::NotApplicable(reason) => writeln!(f, "does not apply: {reason}")?,
                Finding::CannotTell(reason) => writeln!(f, "CANNOT TELL: {reason}")?,
                Finding::Failed { count, violations } => {
                    writeln!(f, "FAILED, {count} times")?;
                    for violation in violations {
                        writeln!(f, "      {violation}")?;
                    }
                }
            }
        }
        for (kind, FaultCount { injected, bites }) in &self.faults {
            writeln!(f, "  fault {kind}: put in {injected} times, bit {bites} times")?;
        }
        Ok(())
    }
}

/// Breaches as they are found. Counts all, and keeps the first of each anomaly.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    found: BTreeMap<Anomaly, (u64, Vec<Violation>)>,
}

impl Violations {
    pub(crate) fn add(
        &mut self,
        anomaly: Anomaly,
        index: Option<u64>,
        detail: impl FnOnce() -> String,
    ) {
        let (count, named) = self.found.entry(anomaly).or_default();
        *count += 1;
        if named.len() < VIOLATIONS_NAMED {
            named.push(Violation { anomaly, index, detail: detail() });
        }
    }

    /// What `check` came to, if it looked at `examined` facts.
    pub(crate) fn finding(&self, check: Check, examined: u64) -> Finding {
        let (mut count, mut violations) = (0, Vec::new());
        for (_, (more, named)) in self.found.iter().filter(|(anomaly, _)| anomaly.check() == check)
        {
            count += more;
            violations.extend(named.iter().cloned());
        }
        if count == 0 {
            Finding::Passed { examined }
        } else {
            Finding::Failed { count, violations }
        }
    }
}

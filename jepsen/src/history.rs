//! What clients asked and were told, what was done to the cluster, and what its nodes held: with times.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::{Fault, FaultCount, Leader, Loss, Observation, Replica, Requirements, Trim};

/// What the client knows about the effect of its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It happened.
    Ok,
    /// It did not happen and never will.
    Fail,
    /// It may have happened, or may yet. Anything that a client was not told is this.
    Info,
}

/// What was asked, and for an operation that is `ok` also what was told.
///
/// A **value** stands for a payload: its number, or its hash by [`value_of`](crate::value_of). Each attempt to
/// append has a value of its own, retries too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Append one payload.
    Append {
        /// The payload.
        value: u64,
        /// Where it was put, if the client was told.
        index: Option<u64>,
        /// Term in which it was committed, if the client was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<u64>,
    },
    /// Append several payloads as one: all at consecutive indexes, or none.
    AppendBatch {
        /// The payloads, in their order.
        values: Vec<u64>,
        /// Where the first was put, if the client was told.
        index: Option<u64>,
        /// Term in which they were committed, if the client was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<u64>,
    },
    /// Read everything committed in `from..to`. Without a `bound` it may be stale.
    Read {
        /// First index that the read covers.
        from: u64,
        /// One past the last index that it covers: what the node said is committed, or where the reader stopped.
        to: u64,
        /// Index and value of each record, in the order given.
        records: Vec<(u64, u64)>,
        /// For a linearizable read: what the read barrier said is one past the last committed index.
        bound: Option<u64>,
    },
    /// Ask for the end of what is committed, linearizably: a read barrier without a read.
    Tail {
        /// One past the last committed index, if the client was told.
        bound: Option<u64>,
    },
    /// Records that a subscription gave, one or several at a time.
    Deliver {
        /// Which subscription. One that starts anew, or somewhere else, is another.
        subscription: u64,
        /// First index that the subscription was to give, the same in all its deliveries.
        start: u64,
        /// Index and value of each record, in the order given.
        records: Vec<(u64, u64)>,
    },
    /// Read everything that is committed, after all other operations have ended.
    FinalRead {
        /// First index that the log still holds.
        from: u64,
        /// One past the last committed index.
        to: u64,
        /// Index and value of each record, in the order given.
        records: Vec<(u64, u64)>,
    },
}

impl Action {
    /// A call that appends `value`.
    pub fn append(value: u64) -> Self {
        Self::Append { value, index: None, term: None }
    }

    /// An append that was acknowledged at `index` in `term`.
    pub fn appended(value: u64, index: u64, term: u64) -> Self {
        Self::Append { value, index: Some(index), term: Some(term) }
    }

    /// A call that appends `values` as one batch.
    pub fn append_batch(values: Vec<u64>) -> Self {
        Self::AppendBatch { values, index: None, term: None }
    }

    /// A batch that was acknowledged, its first record at `index`.
    pub fn batch_appended(values: Vec<u64>, index: u64, term: u64) -> Self {
        Self::AppendBatch { values, index: Some(index), term: Some(term) }
    }

    /// A call that reads what is committed from `from` on.
    pub fn read(from: u64) -> Self {
        Self::Read { from, to: from, records: Vec::new(), bound: None }
    }

    /// Values that it appends; none if it is no append.
    pub(crate) fn values(&self) -> &[u64] {
        match self {
            Self::Append { value, .. } => std::slice::from_ref(value),
            Self::AppendBatch { values, .. } => values,
            _ => &[],
        }
    }

    /// Where an append was put, and in which term, if that was told.
    pub(crate) fn acknowledged(&self) -> Option<(u64, Option<u64>)> {
        match self {
            Self::Append { index, term, .. } | Self::AppendBatch { index, term, .. } => {
                index.map(|index| (index, *term))
            }
            _ => None,
        }
    }

    /// Name of the kind, as in JSON.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Append { .. } => "append",
            Self::AppendBatch { .. } => "append_batch",
            Self::Read { .. } => "read",
            Self::Tail { .. } => "tail",
            Self::Deliver { .. } => "deliver",
            Self::FinalRead { .. } => "final_read",
        }
    }
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client. One does one thing at a time.
    pub process: u64,
    /// When it was called: nanoseconds since the start of the test, by one clock for all processes.
    pub call: u64,
    /// When it returned; none if it never did.
    pub ret: Option<u64>,
    /// What came out.
    pub outcome: Outcome,
    /// What was asked and told.
    #[serde(flatten)]
    pub action: Action,
}

/// All that one test of one log recorded. Times are nanoseconds since its start, by one clock.
///
/// What the checker needs at the least is operations, and what the log held in the end: a
/// [`FinalRead`](Action::FinalRead), or the [`Replica`]s. What else is there is checked too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What the clients did, in the order of the calls.
    pub operations: Vec<Operation>,
    /// What nodes said about themselves, in the order of time.
    pub observations: Vec<Observation>,
    /// Who led, and from when on that was seen.
    pub leaders: Vec<Leader>,
    /// What retention was allowed to remove.
    pub trims: Vec<Trim>,
    /// When the cluster was allowed to lose records, and which.
    pub losses: Vec<Loss>,
    /// Values of appends that asked for a flush before their acknowledgement.
    pub flushed: Vec<u64>,
    /// What was done to the cluster.
    pub faults: Vec<Fault>,
    /// When the last fault was taken out.
    pub healed: Option<u64>,
    /// When all replicas were first seen to be equal after that.
    pub converged: Option<u64>,
    /// What each member held in the end.
    pub replicas: Vec<Replica>,
    /// What the test must have gone through to show anything.
    pub required: Requirements,
}

/// A line that is no part of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for HistoryError {}

/// One line of a history's text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Required(Cow<'a, Requirements>),
    Operation(Cow<'a, Operation>),
    Observation(Cow<'a, Observation>),
    Leader(Cow<'a, Leader>),
    Trim(Cow<'a, Trim>),
    Loss(Cow<'a, Loss>),
    Flushed { values: Vec<u64> },
    Fault(Cow<'a, Fault>),
    Healed { time: u64 },
    Converged { time: u64 },
    Replica(Cow<'a, Replica>),
}

impl History {
    /// One JSON object per line, with what it is as its `type`: what was required, the operations in the order
    /// of the calls, and the rest, kind by kind.
    pub fn to_json_lines(&self) -> String {
        let mut text = String::new();
        for line in self.lines() {
            text += &serde_json::to_string(&line).expect("keys are strings, numbers integers");
            text.push('\n');
        }
        text
    }

    /// Reads what [`History::to_json_lines`] wrote. Empty lines are skipped.
    ///
    /// # Errors
    /// The first line that is no part of a history.
    pub fn from_json_lines(text: &str) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line = serde_json::from_str(line)
                .map_err(|error| HistoryError { line: at + 1, reason: error.to_string() })?;
            history.add(line);
        }
        Ok(history)
    }

    /// How often each kind of fault was put in, and how often it bit.
    pub fn fault_counts(&self) -> BTreeMap<&str, FaultCount> {
        let mut counts = BTreeMap::new();
        for fault in &self.faults {
            let count: &mut FaultCount = counts.entry(fault.kind.as_str()).or_default();
            count.injected += fault.injected;
            count.bites += fault.bites;
        }
        counts
    }

    /// How often another node led in the next term that had a leader.
    pub fn leader_changes(&self) -> u64 {
        let terms: BTreeMap<u64, u64> = self.leaders.iter().map(|l| (l.term, l.node)).collect();
        let nodes: Vec<_> = terms.into_values().collect();
        nodes.windows(2).map(|pair| u64::from(pair[0] != pair[1])).sum()
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let first = [Line::Required(Cow::Borrowed(&self.required))];
        (first.into_iter())
            .chain(self.operations.iter().map(|it| Line::Operation(Cow::Borrowed(it))))
            .chain(self.other_lines())
    }

    /// Everything but the operations and what was required.
    pub(crate) fn other_lines(&self) -> impl Iterator<Item = Line<'_>> {
        (self.observations.iter().map(|it| Line::Observation(Cow::Borrowed(it))))
            .chain(self.leaders.iter().map(|it| Line::Leader(Cow::Borrowed(it))))
            .chain(self.trims.iter().map(|it| Line::Trim(Cow::Borrowed(it))))
            .chain(self.losses.iter().map(|it| Line::Loss(Cow::Borrowed(it))))
            .chain(self.flushed_line())
            .chain(self.faults.iter().map(|it| Line::Fault(Cow::Borrowed(it))))
            .chain(self.healed.map(|time| Line::Healed { time }))
            .chain(self.converged.map(|time| Line::Converged { time }))
            .chain(self.replicas.iter().map(|it| Line::Replica(Cow::Borrowed(it))))
    }

    fn flushed_line(&self) -> Option<Line<'_>> {
        let values = self.flushed.clone();
        (!values.is_empty()).then_some(Line::Flushed { values })
    }

    pub(crate) fn add(&mut self, line: Line<'_>) {
        match line {
            Line::Required(it) => self.required = it.into_owned(),
            Line::Operation(it) => self.operations.push(it.into_owned()),
            Line::Observation(it) => self.observations.push(it.into_owned()),
            Line::Leader(it) => self.leaders.push(it.into_owned()),
            Line::Trim(it) => self.trims.push(it.into_owned()),
            Line::Loss(it) => self.losses.push(it.into_owned()),
            Line::Flushed { values } => self.flushed.extend(values),
            Line::Fault(it) => self.faults.push(it.into_owned()),
            Line::Healed { time } => self.healed = Some(time),
            Line::Converged { time } => self.converged = Some(time),
            Line::Replica(it) => self.replicas.push(it.into_owned()),
        }
    }
}

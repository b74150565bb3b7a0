//! What clients asked and were told, and when.

use serde::{Deserialize, Serialize};
use std::fmt;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Append the payload numbered `value`. Each attempt has its own number, retries too.
    Append {
        /// Number of the payload.
        value: u64,
        /// Where it was put, if the client was told.
        index: Option<u64>,
    },
    /// Read everything committed in `from..to`.
    Read {
        /// First index that the read covers.
        from: u64,
        /// One past the last index that it covers.
        to: u64,
        /// Index and payload number of each record, in the order given.
        records: Vec<(u64, u64)>,
        /// For a linearizable read: what it was told to be one past the last committed index.
        bound: Option<u64>,
    },
    /// Read everything that is committed, after all other operations have ended.
    FinalRead {
        /// First index that the log still holds.
        from: u64,
        /// One past the last committed index.
        to: u64,
        /// Index and payload number of each record, in the order given.
        records: Vec<(u64, u64)>,
    },
    /// A fault was put in or taken out.
    Fault {
        /// Which, such as `kill` or `partition`.
        name: String,
        /// How often it took effect: processes that died, frames that were lost. 0: it never bit.
        bites: u64,
    },
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

/// Operations of one test, in the order of their calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

/// A line that is no operation.
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

impl History {
    /// One JSON object per line, in the order of the calls.
    pub fn to_json_lines(&self) -> String {
        let line = |op: &Operation| {
            let mut line = serde_json::to_string(op).expect("keys are strings, numbers integers");
            line.push('\n');
            line
        };
        self.operations.iter().map(line).collect()
    }

    /// Reads what [`History::to_json_lines`] wrote. Empty lines are skipped.
    ///
    /// # Errors
    /// The first line that is no operation.
    pub fn from_json_lines(text: &str) -> Result<Self, HistoryError> {
        let parse = |(at, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|error| HistoryError { line: at + 1, reason: error.to_string() })
        };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        Ok(Self { operations: lines.map(parse).collect::<Result<_, _>>()? })
    }
}

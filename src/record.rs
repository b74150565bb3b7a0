//! What is appended and what is read back.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::NameError;

/// Position of an entry in one log: its Raft index.
///
/// Increasing and never reused, but not dense: Raft's blank and membership entries take some
/// indexes, and readers never see those.
pub type Index = u64;

/// Raft term: counts elections.
pub type Term = u64;

/// A committed record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct Record {
    /// Position in the log.
    pub index: Index,
    /// Term of the leader that appended it.
    pub term: Term,
    /// The bytes given to `append`. A handle: cloning it copies no bytes.
    pub payload: Bytes,
}

impl Record {
    /// A record as read from a log.
    pub fn new(index: Index, term: Term, payload: Bytes) -> Self {
        Self { index, term, payload }
    }
}

/// Acknowledgement of an append: the record, or the whole batch, is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct Appended {
    /// Index of the record, or of the first record of the batch.
    pub index: Index,
    /// Term of the leader that committed it.
    pub term: Term,
    /// How many records the call appended; they have consecutive indexes from `index` on.
    pub count: u32,
}

impl Appended {
    pub(crate) fn new(index: Index, term: Term, count: u32) -> Self {
        Self { index, term, count }
    }

    /// Index of the last record that the call appended.
    pub fn last_index(&self) -> Index {
        self.index + u64::from(self.count.saturating_sub(1))
    }
}

/// What an acknowledgement means for the disks. RocketMQ's `SYNC_FLUSH` and `ASYNC_FLUSH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// `fdatasync` has returned on a majority of voters: the record survives a power cut of every
    /// node at once.
    #[default]
    Sync,
    /// A majority of voters holds the record in its page cache and flushes it in the background:
    /// the record survives the crash of any number of processes, the loss of a minority of
    /// machines, and power cuts of nodes one after the other, each of which a leader has brought up to date before the
    /// next. It does not survive a power cut of so many at once that no majority is left which lost nothing.
    Async,
}

impl FromStr for Flush {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "sync" => Ok(Self::Sync),
            "async" => Ok(Self::Async),
            _ => Err(NameError::new("flush mode", text, "it is `sync` or `async`")),
        }
    }
}

impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::Async => "async",
        })
    }
}

/// How one append differs from the defaults of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AppendOptions {
    /// Ask for [`Flush::Sync`] on nodes that run with [`Flush::Async`]. It only strengthens: asking
    /// for `Async` on a node that runs with `Sync` has no effect.
    pub flush: Option<Flush>,
    /// How long to wait for the commit; the node's `append_timeout` if not given.
    pub timeout: Option<Duration>,
    /// How the append is treated while disks are full. Clients over TCP always have [`Priority::Normal`].
    pub priority: Priority,
}

/// Which appends a leader still takes once disks have less free space than `storage.disk_reserve`: its own, or those of a
/// majority of voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Priority {
    /// None.
    #[default]
    Normal,
    /// Those that need little and that users of the program cannot do without, such as locks. All logs that a node leads may
    /// use a 64th of the reserve at once and a 4096th a second, and not the last 1 MiB (or 16th) of it.
    Reserved,
    /// The same, and a quarter of what may be used at once is kept from [`Reserved`](Self::Reserved) ones: for those by which
    /// somebody keeps what a reserved one has given, such as renewals of locks.
    Renewal,
    /// The same, and three sixteenths are kept from [`Renewal`](Self::Renewal)s: for those that
    /// say how far work has come.
    Preferred,
    /// The same, and an eighth is kept from all others: for the few that nothing goes on without, such as who leads.
    Essential,
}

impl AppendOptions {
    /// Acknowledge this append only after a majority has flushed it.
    pub fn sync() -> Self {
        Self { flush: Some(Flush::Sync), ..Self::default() }
    }

    /// The same options with a limit on the wait for the commit.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The same options with another priority.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that is still held.
    Begin,
    /// The first record at or above this index.
    At(Index),
    /// Records that are committed from now on.
    Committed,
}

/// Longest log name, in bytes.
pub const LOG_NAME_BYTES_MAX: usize = 64;

/// Name of a log: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or a digit.
///
/// Names that begin with `_` belong to quorumlog itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogName(String);

impl LogName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let reason = if name.is_empty() {
            "it is empty"
        } else if name.len() > LOG_NAME_BYTES_MAX {
            "it is longer than 64 bytes"
        } else if name.starts_with('_') {
            "names that begin with `_` are reserved"
        } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
            "it must begin with a letter or a digit"
        } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            "only A-Z a-z 0-9 . _ - are allowed"
        } else {
            return Ok(Self(name));
        };
        Err(NameError::new("log name", &name, reason))
    }

    /// The system log, which holds the list of logs.
    pub(crate) fn system() -> Self {
        Self("_system".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LogName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        if name == "_system" { Ok(Self::system()) } else { Self::new(name) }
    }
}

impl FromStr for LogName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<LogName> for String {
    fn from(name: LogName) -> Self {
        name.0
    }
}

impl Borrow<str> for LogName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a log within its cluster: in every frame, directory and metric.
///
/// Given once at creation and never reused, so that frames for a deleted log cannot reach a new one
/// of the same name. 0 is the system log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct LogId(pub u64);

impl LogId {
    /// The system log, which holds the list of logs.
    pub const SYSTEM: Self = Self(0);
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_the_reason_is_given() {
        for good in ["orders", "a", "A.b_c-1", "0"] {
            assert!(LogName::new(good).is_ok(), "{good}");
        }
        for (bad, why) in
            [("", "empty"), ("_x", "reserved"), ("a/b", "only"), ("-a", "begin with a letter")]
        {
            let error = LogName::new(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(LogName::new("x".repeat(65)).is_err());
    }

    #[test]
    fn the_system_log_passes_serde_but_not_user_input() {
        assert!(LogName::new("_system").is_err());
        assert!(LogName::try_from("_system".to_owned()).is_ok());
    }

    #[test]
    fn a_batch_acknowledgement_covers_consecutive_indexes() {
        assert_eq!(Appended::new(7, 1, 3).last_index(), 9);
        assert_eq!(Appended::new(7, 1, 1).last_index(), 7);
    }
}

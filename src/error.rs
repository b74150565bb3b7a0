//! Errors. Each says what the caller must know: for appends, whether the append happened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::member::Member;

/// Whether a failed append may still take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The append did not happen and never will. Retry freely.
    NotAppended,
    /// It may have happened, or may yet. A retry can store a second copy.
    Unknown,
}

/// What an append has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Oversized {
    /// One record. In bytes of its payload.
    Record,
    /// A batch. In bytes of all its payloads.
    Batch,
    /// The records of a batch. In records.
    BatchRecords,
}

/// Why an append was not acknowledged.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// This node does not lead the log.
    #[error("this node does not lead the log; {}", leader_hint(.leader.as_ref()))]
    NotLeader {
        /// The leader that it knows of.
        leader: Option<Member>,
    },
    /// The leader has not heard from a majority within its lease, and took nothing.
    #[error(
        "the leader has lost touch with a majority of voters; check that they run and can be reached"
    )]
    NoQuorum,
    /// The payload, or the batch, is over the limit.
    #[error("{}", over_limit(*.what, *.size, *.limit))]
    TooLarge {
        /// Which limit it is over.
        what: Oversized,
        /// How much of it there was, in the unit of `what`.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The append queue is full.
    #[error(
        "{inflight} bytes of appends wait for their commit, and the limit is {limit}; slow down and retry"
    )]
    Overloaded {
        /// Bytes that wait.
        inflight: u64,
        /// The limit, `limits.append_inflight_max`.
        limit: u64,
    },
    /// The disk of the leader is full, down to its reserve.
    #[error("the disk that holds {} is full; free space, and appends go on by themselves", .path.display())]
    DiskFull {
        /// The data directory.
        path: PathBuf,
    },
    /// No log has this name.
    #[error("no log is named {name:?}; create it first")]
    UnknownLog {
        /// The name asked for.
        name: String,
    },
    /// The node or the log was shut down before it took the append.
    #[error("the log is closed")]
    Closed,
    /// No node could be reached to take the append.
    #[error("no node could be reached: {detail}")]
    Unreachable {
        /// What was tried.
        detail: String,
    },
    /// No commit within the time allowed.
    #[error("no commit within {after:?}; the append may still happen")]
    Timeout {
        /// How long it waited.
        after: Duration,
    },
    /// Another leader took over while the entry waited for its commit.
    #[error("the leader changed before the commit; the append may have happened; {}", leader_hint(.leader.as_ref()))]
    LeadershipLost {
        /// The new leader, if known.
        leader: Option<Member>,
    },
    /// The node shut down, or the connection broke, while the entry waited for its commit.
    #[error("interrupted before the commit was known ({detail}); the append may still happen")]
    Interrupted {
        /// What broke.
        detail: String,
    },
    /// The node's storage failed.
    #[error("storage failed; the append may still happen")]
    Storage(#[source] Arc<StorageError>),
    /// Only a program on the log's nodes appends to it, since its records have a form.
    #[error("log {name:?} takes no records from clients: a program on its nodes writes them")]
    NotForClients {
        /// The log.
        name: String,
    },
}

impl AppendError {
    /// Whether the append may still take effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotLeader { .. }
            | Self::NoQuorum
            | Self::TooLarge { .. }
            | Self::Overloaded { .. }
            | Self::DiskFull { .. }
            | Self::UnknownLog { .. }
            | Self::Closed
            | Self::NotForClients { .. }
            | Self::Unreachable { .. } => Outcome::NotAppended,
            Self::Timeout { .. }
            | Self::LeadershipLost { .. }
            | Self::Interrupted { .. }
            | Self::Storage(_) => Outcome::Unknown,
        }
    }

    /// Whether the same append can succeed later, here or on another node, without storing two copies.
    pub fn is_retryable(&self) -> bool {
        self.outcome() == Outcome::NotAppended
            && !matches!(
                self,
                Self::TooLarge { .. } | Self::UnknownLog { .. } | Self::NotForClients { .. }
            )
    }

    /// The leader to go to, if the error names one.
    pub fn leader(&self) -> Option<&Member> {
        match self {
            Self::NotLeader { leader } | Self::LeadershipLost { leader } => leader.as_ref(),
            _ => None,
        }
    }
}

/// Why a read failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Retention has removed the index asked for.
    #[error("index {requested} was trimmed; the log begins at {begin}")]
    Trimmed {
        /// The index asked for.
        requested: u64,
        /// The first index still held.
        begin: u64,
    },
    /// The log went back on this node, since the cluster has lost records: see [`Flush::Async`](crate::Flush::Async).
    /// Below `to` it is what it was. At and above it there may be other records than before, so drop what you derived
    /// from them, and read on from there.
    #[error(
        "the cluster has lost records: from index {to} on there may be others than before; read on from there"
    )]
    Rewound {
        /// The first index that may hold another record than before.
        to: u64,
    },
    /// A linearizable read needs the leader, and none is known.
    #[error("no leader is known")]
    NotLeader {
        /// The leader, if one is known after all.
        leader: Option<Member>,
    },
    /// A linearizable read needs a majority, and none answered in time.
    #[error("no majority answered within {after:?}")]
    NoQuorum {
        /// How long it waited.
        after: Duration,
    },
    /// No log has this name.
    #[error("no log is named {name:?}")]
    UnknownLog {
        /// The name asked for.
        name: String,
    },
    /// The node, or the connection to it, could not be used.
    #[error("the node could not be reached: {detail}")]
    Unreachable {
        /// What was tried.
        detail: String,
    },
    /// The node's storage failed.
    #[error("storage failed")]
    Storage(#[source] Arc<StorageError>),
    /// The node or the log was shut down.
    #[error("the log is closed")]
    Closed,
}

/// Why an administrative call failed. Nothing was changed unless the message says otherwise.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The call needs the leader.
    #[error("this node does not lead the log; {}", leader_hint(.leader.as_ref()))]
    NotLeader {
        /// The leader, if known.
        leader: Option<Member>,
    },
    /// The cluster has members already.
    #[error("the cluster is already bootstrapped; add nodes with `add_learner`")]
    AlreadyBootstrapped,
    /// The cluster has no members yet.
    #[error("the cluster is not bootstrapped yet, or this node has not joined it")]
    NotBootstrapped,
    /// The request makes no sense.
    #[error("{reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// The log exists.
    #[error("a log named {name:?} exists already")]
    LogExists {
        /// Its name.
        name: String,
    },
    /// No log has this name.
    #[error("no log is named {name:?}")]
    UnknownLog {
        /// The name asked for.
        name: String,
    },
    /// Not done in time; it may still take effect.
    #[error("not done within {after:?}; it may still take effect")]
    Timeout {
        /// How long it waited.
        after: Duration,
    },
    /// The node could not be reached, or the connection broke.
    #[error("the node could not be reached: {detail}")]
    Unreachable {
        /// What was tried.
        detail: String,
    },
    /// The connection broke after the request was sent.
    #[error("no answer came, and a change may still take effect: {detail}")]
    Interrupted {
        /// What broke.
        detail: String,
    },
    /// Not done so far, for a reason that is known; it may still take effect.
    #[error("not done within {after:?}; it may still take effect; {reason}")]
    Blocked {
        /// How long it waited.
        after: Duration,
        /// What is missing.
        reason: String,
    },
    /// An append to the system log failed.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The node's storage failed.
    #[error("storage failed")]
    Storage(#[source] Arc<StorageError>),
    /// The node was shut down.
    #[error("the node is closed")]
    Closed,
}

/// Why a node could not be opened. Nothing on disk was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration makes no sense.
    #[error("invalid configuration: {0}")]
    Config(#[from] ConfigError),
    /// A data file could not be read or made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The listen address could not be used.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Consensus could not start on what recovery found.
    #[error("the log {log} could not start: {detail}")]
    Start {
        /// Name of the log.
        log: String,
        /// What was wrong.
        detail: String,
    },
}

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {reason}")]
pub struct ConfigError {
    /// Which setting, as in the configuration file.
    pub key: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(key: &'static str, reason: impl Into<String>) -> Self {
        Self { key, reason: reason.into() }
    }
}

/// A name that is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{given:?} is no {what}: {reason}")]
pub struct NameError {
    what: &'static str,
    given: String,
    reason: &'static str,
}

impl NameError {
    pub(crate) fn new(what: &'static str, given: &str, reason: &'static str) -> Self {
        Self { what, given: given.to_owned(), reason }
    }
}

/// What went wrong with a file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The system refused an operation.
    #[error("cannot {op} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it must. Nothing was changed on disk.
    #[error("{} is damaged at byte {offset}: {detail}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// A file that a manifest lists is not there.
    #[error("{} is missing; {detail}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Who expects it.
        detail: String,
    },
    /// A file was written by another version.
    #[error("{} has format version {found}, and this program reads version {supported}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u16,
        /// Version that can be read.
        supported: u16,
    },
    /// No space left.
    #[error("no space left for {}", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another process uses the data directory.
    #[error("{} is in use by another process", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory belongs to another node or cluster.
    #[error("{} belongs to {found}, not to {expected}", .path.display())]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// An earlier flush failed. What the disk holds is not known, so nothing more is written or
    /// acknowledged; restart the node to recover from what is there.
    #[error("an earlier write or flush failed: {reason}; restart the node after checking the disk")]
    Poisoned {
        /// The failure that poisoned the log.
        reason: String,
    },
}

impl StorageError {
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full { path }
        } else {
            Self::Io { op, path, source }
        }
    }

    pub(crate) fn corrupt(path: impl AsRef<Path>, offset: u64, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.as_ref().to_owned(), offset, detail: detail.into() }
    }

    /// An error that stands for `self` in further failures of the same log.
    pub(crate) fn poisoned_by(&self) -> Self {
        let reason = match self {
            Self::Poisoned { reason } => reason.clone(),
            other => with_sources(other),
        };
        Self::Poisoned { reason }
    }
}

/// The text of an error, and behind colons that of its sources.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn over_limit(what: Oversized, size: u64, limit: u64) -> String {
    let bytes = |of: &str| format!("{size} bytes are over the limit of {limit} bytes for one {of}");
    match what {
        Oversized::Record => bytes("record"),
        Oversized::Batch => bytes("batch"),
        Oversized::BatchRecords => {
            format!("{size} records are over the limit of {limit} for one batch")
        }
    }
}

fn leader_hint(leader: Option<&Member>) -> String {
    match leader {
        Some(member) => format!("the leader is {member}"),
        None => "no leader is known yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_tells_refused_from_unknown() {
        let refused = AppendError::NotLeader { leader: None };
        assert_eq!(refused.outcome(), Outcome::NotAppended);
        assert!(refused.is_retryable());
        let unknown = AppendError::Timeout { after: Duration::from_secs(1) };
        assert_eq!(unknown.outcome(), Outcome::Unknown);
        assert!(!unknown.is_retryable());
        let large = AppendError::TooLarge { what: Oversized::Record, size: 2, limit: 1 };
        assert_eq!(large.outcome(), Outcome::NotAppended);
        assert!(!large.is_retryable(), "the same bytes stay too large");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = StorageError::io("write", "x", io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, StorageError::Full { .. }));
        let other = StorageError::io("write", "x", io::Error::other("bad cable"));
        let StorageError::Poisoned { reason } = other.poisoned_by() else { panic!("not poisoned") };
        assert!(reason.contains("bad cable"), "{reason}");
    }
}

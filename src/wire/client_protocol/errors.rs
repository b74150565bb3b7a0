//! Errors as control data. All come back as they went, save that a storage error becomes its text.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{AdminError, AppendError, Oversized, ReadError, StorageError};
use crate::member::MemberForm;

#[derive(Serialize, Deserialize)]
pub(super) enum AppendFailure {
    NotLeader { leader: Option<MemberForm> },
    NoQuorum,
    TooLarge { what: What, size: u64, limit: u64 },
    Overloaded { inflight: u64, limit: u64 },
    DiskFull { path: String },
    UnknownLog { name: String },
    Closed,
    Unreachable { detail: String },
    Timeout { after: Duration },
    LeadershipLost { leader: Option<MemberForm> },
    Interrupted { detail: String },
    Storage { reason: String },
    NotForClients { name: String },
}

/// What was too large.
#[derive(Serialize, Deserialize)]
pub(super) enum What {
    Record,
    Batch,
    BatchRecords,
}

#[derive(Serialize, Deserialize)]
pub(super) enum ReadFailure {
    Trimmed { requested: u64, begin: u64 },
    NotLeader { leader: Option<MemberForm> },
    NoQuorum { after: Duration },
    UnknownLog { name: String },
    Unreachable { detail: String },
    Storage { reason: String },
    Closed,
    Rewound { to: u64 },
}

#[derive(Serialize, Deserialize)]
pub(super) enum AdminFailure {
    NotLeader { leader: Option<MemberForm> },
    AlreadyBootstrapped,
    NotBootstrapped,
    Invalid { reason: String },
    LogExists { name: String },
    UnknownLog { name: String },
    Timeout { after: Duration },
    Unreachable { detail: String },
    Append(AppendFailure),
    Storage { reason: String },
    Closed,
    Blocked { after: Duration, reason: String },
    Interrupted { detail: String },
}

impl From<&AppendError> for AppendFailure {
    fn from(error: &AppendError) -> Self {
        match error.clone() {
            AppendError::NotLeader { leader } => Self::NotLeader { leader: leader.map(From::from) },
            AppendError::NoQuorum => Self::NoQuorum,
            AppendError::TooLarge { what, size, limit } => {
                let what = match what {
                    Oversized::Record => What::Record,
                    Oversized::Batch => What::Batch,
                    Oversized::BatchRecords => What::BatchRecords,
                };
                Self::TooLarge { what, size, limit }
            }
            AppendError::Overloaded { inflight, limit } => Self::Overloaded { inflight, limit },
            AppendError::DiskFull { path } => {
                Self::DiskFull { path: path.to_string_lossy().into_owned() }
            }
            AppendError::UnknownLog { name } => Self::UnknownLog { name },
            AppendError::Closed => Self::Closed,
            AppendError::Unreachable { detail } => Self::Unreachable { detail },
            AppendError::Timeout { after } => Self::Timeout { after },
            AppendError::LeadershipLost { leader } => {
                Self::LeadershipLost { leader: leader.map(From::from) }
            }
            AppendError::Interrupted { detail } => Self::Interrupted { detail },
            AppendError::Storage(error) => Self::Storage { reason: text(&error) },
            AppendError::NotForClients { name } => Self::NotForClients { name },
        }
    }
}

impl From<AppendFailure> for AppendError {
    fn from(failure: AppendFailure) -> Self {
        match failure {
            AppendFailure::NotLeader { leader } => {
                Self::NotLeader { leader: leader.map(From::from) }
            }
            AppendFailure::NoQuorum => Self::NoQuorum,
            AppendFailure::TooLarge { what, size, limit } => {
                let what = match what {
                    What::Record => Oversized::Record,
                    What::Batch => Oversized::Batch,
                    What::BatchRecords => Oversized::BatchRecords,
                };
                Self::TooLarge { what, size, limit }
            }
            AppendFailure::Overloaded { inflight, limit } => Self::Overloaded { inflight, limit },
            AppendFailure::DiskFull { path } => Self::DiskFull { path: path.into() },
            AppendFailure::UnknownLog { name } => Self::UnknownLog { name },
            AppendFailure::Closed => Self::Closed,
            AppendFailure::Unreachable { detail } => Self::Unreachable { detail },
            AppendFailure::Timeout { after } => Self::Timeout { after },
            AppendFailure::LeadershipLost { leader } => {
                Self::LeadershipLost { leader: leader.map(From::from) }
            }
            AppendFailure::Interrupted { detail } => Self::Interrupted { detail },
            AppendFailure::Storage { reason } => Self::Storage(storage(reason)),
            AppendFailure::NotForClients { name } => Self::NotForClients { name },
        }
    }
}

impl From<&ReadError> for ReadFailure {
    fn from(error: &ReadError) -> Self {
        match error.clone() {
            ReadError::Trimmed { requested, begin } => Self::Trimmed { requested, begin },
            ReadError::NotLeader { leader } => Self::NotLeader { leader: leader.map(From::from) },
            ReadError::NoQuorum { after } => Self::NoQuorum { after },
            ReadError::UnknownLog { name } => Self::UnknownLog { name },
            ReadError::Unreachable { detail } => Self::Unreachable { detail },
            ReadError::Storage(error) => Self::Storage { reason: text(&error) },
            ReadError::Closed => Self::Closed,
            ReadError::Rewound { to } => Self::Rewound { to },
        }
    }
}

impl From<ReadFailure> for ReadError {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Trimmed { requested, begin } => Self::Trimmed { requested, begin },
            ReadFailure::NotLeader { leader } => Self::NotLeader { leader: leader.map(From::from) },
            ReadFailure::NoQuorum { after } => Self::NoQuorum { after },
            ReadFailure::UnknownLog { name } => Self::UnknownLog { name },
            ReadFailure::Unreachable { detail } => Self::Unreachable { detail },
            ReadFailure::Storage { reason } => Self::Storage(storage(reason)),
            ReadFailure::Closed => Self::Closed,
            ReadFailure::Rewound { to } => Self::Rewound { to },
        }
    }
}

impl From<&AdminError> for AdminFailure {
    fn from(error: &AdminError) -> Self {
        match error.clone() {
            AdminError::NotLeader { leader } => Self::NotLeader { leader: leader.map(From::from) },
            AdminError::AlreadyBootstrapped => Self::AlreadyBootstrapped,
            AdminError::NotBootstrapped => Self::NotBootstrapped,
            AdminError::Invalid { reason } => Self::Invalid { reason },
            AdminError::LogExists { name } => Self::LogExists { name },
            AdminError::UnknownLog { name } => Self::UnknownLog { name },
            AdminError::Timeout { after } => Self::Timeout { after },
            AdminError::Unreachable { detail } => Self::Unreachable { detail },
            AdminError::Append(error) => Self::Append((&error).into()),
            AdminError::Storage(error) => Self::Storage { reason: text(&error) },
            AdminError::Closed => Self::Closed,
            AdminError::Blocked { after, reason } => Self::Blocked { after, reason },
            AdminError::Interrupted { detail } => Self::Interrupted { detail },
        }
    }
}

impl From<AdminFailure> for AdminError {
    fn from(failure: AdminFailure) -> Self {
        match failure {
            AdminFailure::NotLeader { leader } => {
                Self::NotLeader { leader: leader.map(From::from) }
            }
            AdminFailure::AlreadyBootstrapped => Self::AlreadyBootstrapped,
            AdminFailure::NotBootstrapped => Self::NotBootstrapped,
            AdminFailure::Invalid { reason } => Self::Invalid { reason },
            AdminFailure::LogExists { name } => Self::LogExists { name },
            AdminFailure::UnknownLog { name } => Self::UnknownLog { name },
            AdminFailure::Timeout { after } => Self::Timeout { after },
            AdminFailure::Unreachable { detail } => Self::Unreachable { detail },
            AdminFailure::Append(failure) => Self::Append(failure.into()),
            AdminFailure::Storage { reason } => Self::Storage(storage(reason)),
            AdminFailure::Closed => Self::Closed,
            AdminFailure::Blocked { after, reason } => Self::Blocked { after, reason },
            AdminFailure::Interrupted { detail } => Self::Interrupted { detail },
        }
    }
}

fn text(error: &StorageError) -> String {
    match error.poisoned_by() {
        StorageError::Poisoned { reason } => reason,
        other => other.to_string(),
    }
}

fn storage(reason: String) -> Arc<StorageError> {
    Arc::new(StorageError::Poisoned { reason })
}

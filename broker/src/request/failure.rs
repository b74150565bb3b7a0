//! Why a request was not done.

use quorumlog::{AppendError, Outcome, ReadError, with_sources};

use crate::record::RecordError;
use crate::remoting::codes::{names, response};
use crate::remoting::{FieldError, JsonError, Reply};
use crate::state::Refusal;

/// How a full disk is told. RocketMQ's words for a send that its full disk refuses.
const DISK_FULL: &str = "service not available now, the broker's disk is full";

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Definitely not; the client is told this.
    Refused { code: i32, remark: String },
    /// Definitely not: another node leads.
    Moved,
    /// Definitely not: it was in the log of this node, and the next leader's has something else there.
    Discarded,
    /// It may have been, or may yet be. Who sends a message is told by the end of its connection: any answer says more.
    Unknown(String),
}

impl Failure {
    pub(crate) fn refused(code: i32, remark: impl Into<String>) -> Self {
        Self::Refused { code, remark: remark.into() }
    }

    /// A topic that is not there, in RocketMQ's words.
    pub(crate) fn no_topic(topic: &str) -> Self {
        Self::refused(
            response::TOPIC_NOT_EXIST,
            format!("topic[{topic}] not exist, apply first please!"),
        )
    }

    /// True if another node's broker says so that its disk is full: to ask again soon is of no use.
    pub(crate) fn tells_full_disk(remark: &str) -> bool {
        remark.starts_with(DISK_FULL)
    }

    /// What the client is told. `Moved` is dealt with before.
    pub(crate) fn into_reply(self) -> Reply {
        match self {
            Self::Refused { code, remark } => Reply::refused(code, remark),
            Self::Moved => Reply::refused(
                response::SERVICE_NOT_AVAILABLE,
                "no leader with a majority is known; try again",
            ),
            Self::Discarded => Reply::refused(
                response::SERVICE_NOT_AVAILABLE,
                "not stored: another node leads, and its log does not have it; try again",
            ),
            Self::Unknown(detail) => {
                Reply::refused(response::SYSTEM_ERROR, detail).with(names::OUTCOME, names::UNKNOWN)
            }
        }
    }
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Self::refused(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Self::refused(response::MESSAGE_ILLEGAL, error.to_string())
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Self::refused(response::SYSTEM_ERROR, format!("the body cannot be read: {error}"))
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        match error {
            // A leader without a majority is soon none.
            AppendError::NotLeader { .. } | AppendError::NoQuorum | AppendError::Closed => {
                Self::Moved
            }
            AppendError::TooLarge { .. } => {
                Self::refused(response::MESSAGE_ILLEGAL, error.to_string())
            }
            error @ AppendError::DiskFull { .. } => {
                Self::refused(response::SERVICE_NOT_AVAILABLE, format!("{DISK_FULL}: {error}"))
            }
            error if error.outcome() == Outcome::NotAppended => {
                Self::refused(response::SERVICE_NOT_AVAILABLE, with_sources(&error))
            }
            error => Self::Unknown(with_sources(&error)),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { .. } | ReadError::Closed => Self::Moved,
            error => Self::refused(response::SYSTEM_ERROR, with_sources(&error)),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoTopic(topic) => Self::no_topic(&topic),
            Refusal::NoQueue(topic, queue) => Self::refused(
                response::INVALID_PARAMETER,
                format!("queueId[{queue}] of topic[{topic}] is illegal"),
            ),
            Refusal::Delivered => Self::refused(response::SYSTEM_ERROR, "delivered before"),
            Refusal::NotUnderstood(detail) => Self::refused(response::SYSTEM_ERROR, detail),
            Refusal::Full(detail) => Self::refused(response::SERVICE_NOT_AVAILABLE, detail),
            Refusal::TooLarge(detail) => Self::refused(response::INVALID_PARAMETER, detail),
        }
    }
}

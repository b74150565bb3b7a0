//! What a failed attempt means: for the caller, and for the next attempt.

use crate::error::{AdminError, AppendError, Outcome, Oversized, ReadError};
use crate::member::Member;
use crate::wire::LinkError;
use crate::wire::client_protocol::Response;

/// What to do after a failure that a node answered with.
pub(super) enum Verdict {
    /// It would fail anywhere, or may have happened: tell the caller.
    Final,
    /// Nothing happened; this node is the leader.
    Leader(Member),
    /// Nothing happened; another node, or a later time, may do better.
    Elsewhere,
    /// This node does not know of it. If no other does either, tell the caller.
    Absent,
}

/// An error of some kind of call.
pub(super) trait Failure: Sized {
    /// The node could not be asked, or did not answer.
    fn from_link(error: LinkError) -> Self;
    /// The node answered with this, which is no success.
    fn from_response(response: Response) -> Self;
    /// No node leads the log, as far as is known.
    fn no_leader() -> Self;
    fn verdict(&self) -> Verdict;
}

fn leader(member: Option<&Member>) -> Verdict {
    match member {
        Some(member) if !member.client_addr.is_empty() => Verdict::Leader(member.clone()),
        _ => Verdict::Elsewhere,
    }
}

fn unexpected() -> String {
    "the node gave an answer that does not fit the request".to_owned()
}

impl Failure for AppendError {
    fn from_link(error: LinkError) -> Self {
        let detail = error.to_string();
        match error {
            LinkError::Unreachable { .. }
            | LinkError::Refused { .. }
            | LinkError::OtherVersion { .. }
            | LinkError::Busy { .. } => Self::Unreachable { detail },
            LinkError::TooLarge { size, limit, .. } => {
                Self::TooLarge { what: Oversized::Record, size: size as u64, limit: limit as u64 }
            }
            LinkError::Broken { .. } => Self::Interrupted { detail },
            LinkError::Timeout { after, .. } => Self::Timeout { after },
        }
    }

    fn from_response(response: Response) -> Self {
        match response {
            Response::AppendFailed(error) => error,
            _ => Self::Interrupted { detail: unexpected() },
        }
    }

    fn no_leader() -> Self {
        Self::NotLeader { leader: None }
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self::NotLeader { leader: member } => leader(member.as_ref()),
            Self::UnknownLog { .. } => Verdict::Absent,
            Self::TooLarge { .. } => Verdict::Final,
            other if other.outcome() == Outcome::Unknown => Verdict::Final,
            _ => Verdict::Elsewhere,
        }
    }
}

impl Failure for ReadError {
    fn from_link(error: LinkError) -> Self {
        Self::Unreachable { detail: error.to_string() }
    }

    fn from_response(response: Response) -> Self {
        match response {
            Response::ReadFailed(error) => error,
            _ => Self::Unreachable { detail: unexpected() },
        }
    }

    fn no_leader() -> Self {
        Self::NotLeader { leader: None }
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self::NotLeader { leader: member } => leader(member.as_ref()),
            Self::UnknownLog { .. } => Verdict::Absent,
            Self::Trimmed { .. } => Verdict::Final,
            _ => Verdict::Elsewhere,
        }
    }
}

impl Failure for AdminError {
    fn from_link(error: LinkError) -> Self {
        match error {
            LinkError::Timeout { after, .. } => Self::Timeout { after },
            LinkError::TooLarge { .. } => Self::Invalid { reason: error.to_string() },
            LinkError::Broken { .. } => Self::Interrupted { detail: error.to_string() },
            other => Self::Unreachable { detail: other.to_string() },
        }
    }

    fn from_response(response: Response) -> Self {
        match response {
            Response::AdminFailed(error) => error,
            Response::ReadFailed(error) => Self::from_read(error),
            _ => Self::Unreachable { detail: unexpected() },
        }
    }

    fn no_leader() -> Self {
        Self::NotLeader { leader: None }
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self::NotLeader { leader: member } => leader(member.as_ref()),
            Self::UnknownLog { .. } | Self::NotBootstrapped => Verdict::Absent,
            Self::Append(error) => error.verdict(),
            Self::Closed => Verdict::Elsewhere,
            _ => Verdict::Final,
        }
    }
}

impl AdminError {
    /// A failure to find out what the change needs to know; nothing was changed.
    pub(super) fn from_read(error: ReadError) -> Self {
        match error {
            ReadError::UnknownLog { name } => Self::UnknownLog { name },
            ReadError::NotLeader { leader } => Self::NotLeader { leader },
            ReadError::Storage(error) => Self::Storage(error),
            ReadError::Closed => Self::Closed,
            other => Self::Unreachable { detail: other.to_string() },
        }
    }
}

impl AppendError {
    /// A failure to find out where to append; nothing was appended.
    pub(super) fn from_read(error: ReadError) -> Self {
        match error {
            ReadError::UnknownLog { name } => Self::UnknownLog { name },
            ReadError::NotLeader { leader } => Self::NotLeader { leader },
            ReadError::Closed => Self::Closed,
            other => Self::Unreachable { detail: other.to_string() },
        }
    }
}

//! Waiting for the outcome of an append.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Applied;
use crate::error::AppendError;
use crate::raft::Group;
use crate::record::Appended;

/// An admitted append. Awaiting it gives the acknowledgement.
///
/// # Cancel safety
/// Dropping it gives up on the outcome, not on the append: it may still happen.
#[must_use = "only who awaits the ticket learns the append's outcome"]
pub struct Ticket {
    outcome: oneshot::Receiver<Result<Appended, AppendError>>,
    group: Arc<Group>,
}

impl Ticket {
    pub(crate) fn new(
        outcome: oneshot::Receiver<Result<Appended, AppendError>>,
        group: Arc<Group>,
    ) -> Self {
        Self { outcome, group }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("log", &self.group.name).finish_non_exhaustive()
    }
}

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|_| Err(crate::raft::interrupted(self.group.log.failure())))
        })
    }
}

/// A proposal that is under way. Awaiting it gives the state machine's answer.
///
/// # Cancel safety
/// Dropping it gives up on the outcome, not on the append: it may still happen.
#[must_use = "only who awaits the ticket learns the append's outcome"]
pub struct AppliedTicket {
    outcome: oneshot::Receiver<Result<(Appended, Bytes), AppendError>>,
    group: Arc<Group>,
}

impl AppliedTicket {
    pub(crate) fn new(
        outcome: oneshot::Receiver<Result<(Appended, Bytes), AppendError>>,
        group: Arc<Group>,
    ) -> Self {
        Self { outcome, group }
    }
}

impl Future for AppliedTicket {
    type Output = Result<Applied, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            let gone = |_| Err(crate::raft::interrupted(self.group.log.failure()));
            let (appended, response) = outcome.unwrap_or_else(gone)?;
            Ok(Applied { appended, response })
        })
    }
}

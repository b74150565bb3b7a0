//! Appends that were sent and are not yet acknowledged.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::cluster::{Cluster, NodeLink};
use super::failure::{Failure, Verdict};
use crate::error::AppendError;
use crate::record::{Appended, LogId, LogName};
use crate::wire::client_protocol::Response;
use crate::wire::{Frame, LinkError, Pending};

/// An append on its way. Awaiting it gives the acknowledgement. Dropping it leaves the outcome unknown.
#[must_use = "the append's outcome is known only to who awaits the ticket"]
pub struct ClientTicket {
    pub(super) pending: Pending,
    pub(super) cluster: Arc<Cluster>,
    pub(super) node: NodeLink,
    pub(super) name: LogName,
    pub(super) id: LogId,
}

impl fmt::Debug for ClientTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTicket").field("log", &self.name).finish_non_exhaustive()
    }
}

impl Future for ClientTicket {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.pending).poll(cx).map(|frame| self.outcome(frame))
    }
}

impl ClientTicket {
    fn outcome(&self, frame: Result<Frame, LinkError>) -> Result<Appended, AppendError> {
        let response = frame.and_then(|frame| {
            Response::from_frame(&frame).map_err(|error| LinkError::Broken {
                addr: self.node.addr.as_ref().to_owned(),
                detail: error.to_string(),
            })
        });
        let error = match response {
            Ok(Response::Appended(appended)) => return Ok(appended),
            Ok(other) => AppendError::from_response(other),
            Err(error) => AppendError::from_link(error),
        };
        // The next append goes where this one should have gone.
        match error.verdict() {
            Verdict::Leader(member) => {
                if let Some(leader) = self.cluster.place_of(&member) {
                    self.cluster.learn_leader(self.id, &leader);
                }
            }
            Verdict::Absent => {
                self.cluster.forget_log(&self.name);
                return Err(AppendError::UnknownLog { name: self.name.as_str().to_owned() });
            }
            Verdict::Final | Verdict::Elsewhere => {
                self.cluster.doubt_leader(self.id, &self.node);
            }
        }
        Err(error)
    }
}

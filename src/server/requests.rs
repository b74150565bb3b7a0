//! Requests that are answered once, each by a task of its own.

use std::future::{Future, ready};

use crate::error::{AdminError, ReadError};
use crate::node::{CommitLog, Node};
use crate::record::{LogId, LogName};
use crate::wire::Outbound;
use crate::wire::client_protocol::{RECORDS_FRAME_OVERHEAD, Request, Response};

/// Room that there should be for an answer that lists logs or members.
const LIST_BYTES: usize = 256 << 10;

/// What a request is answered from and to.
pub(super) struct Requests {
    pub(super) node: Node,
    /// The log of the frame's header, if this node knows it.
    pub(super) log: Option<CommitLog>,
    pub(super) id: LogId,
    pub(super) correlation: u64,
    pub(super) out: Outbound,
    pub(super) read_bytes_max: usize,
}

/// How errors name a log of which only the number is known.
pub(super) fn unknown_log(id: LogId) -> String {
    format!("number {id}")
}

impl Requests {
    /// Answers the request. The client may be gone by then.
    ///
    /// Many may wait for room, each in a task, so what is rare and large while it waits has a box.
    pub(super) async fn answer(self, request: Request) {
        match request {
            Request::Read { from, max_bytes } => self.read(from, max_bytes).await,
            Request::ReadBarrier => Box::pin(self.barrier()).await,
            Request::Statuses | Request::NodeStatus | Request::Logs | Request::Members => {
                self.list(&request).await;
            }
            request => {
                let changed = Box::pin(self.change(request)).await;
                let response = changed.unwrap_or_else(Response::AdminFailed);
                self.out.send(response.into_frame(self.id, self.correlation));
            }
        }
    }

    async fn barrier(&self) {
        let response = match self.log() {
            Ok(log) => match log.read_barrier().await {
                Ok(index) => Response::Barrier(index),
                Err(error) => Response::ReadFailed(error),
            },
            Err(error) => Response::ReadFailed(error),
        };
        self.out.send(response.into_frame(self.id, self.correlation));
    }

    fn log(&self) -> Result<&CommitLog, ReadError> {
        let name = || unknown_log(self.id);
        self.log.as_ref().ok_or_else(|| ReadError::UnknownLog { name: name() })
    }

    /// Waits for room in the connection's queue before it reads, so that a client with many reads
    /// under way is slowed down and not cut off.
    async fn read(self, from: u64, max_bytes: u64) {
        let wanted = usize::try_from(max_bytes).unwrap_or(usize::MAX).min(self.read_bytes_max);
        self.answer_within(wanted.saturating_add(RECORDS_FRAME_OVERHEAD), |room| {
            self.records(from, wanted.min(room.saturating_sub(RECORDS_FRAME_OVERHEAD)))
        })
        .await;
    }

    /// One record comes back however large it is.
    async fn records(&self, from: u64, wanted: usize) -> Response {
        let read = match self.log() {
            Ok(log) => log.read(from, wanted).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(records) => {
                let next = records.last().map_or(from, |record| record.index + 1);
                Response::Records { next, records }
            }
            Err(error) => Response::ReadFailed(error),
        }
    }

    /// Waits for room before it makes an answer that may be long, as `read` does.
    async fn list(self, request: &Request) {
        self.answer_within(LIST_BYTES, |_| ready(self.listed(request))).await;
    }

    fn listed(&self, request: &Request) -> Response {
        match request {
            Request::Statuses => Response::Statuses(self.node.statuses()),
            Request::NodeStatus => Response::NodeStatus(Box::new(self.node.node_status())),
            Request::Members => Response::Members(self.node.admin().members()),
            _ => {
                let logs = self.node.logs().into_iter().map(|info| (info.name, info.id));
                Response::Logs(logs.filter(|(_, id)| *id != LogId::SYSTEM).collect())
            }
        }
    }

    /// Sends what `make` makes of the room that there is, which is up to `most`. What turns out to be larger is made again
    /// once there is room for that: nothing is held meanwhile.
    async fn answer_within<T: Future<Output = Response>>(
        &self,
        most: usize,
        make: impl Fn(usize) -> T,
    ) {
        let mut reserved = self.out.reserve_up_to(most).await;
        while let Some(mut room) = reserved {
            let frame = make(room.bytes()).await.into_frame(self.id, self.correlation);
            let bytes = frame.bytes();
            if room.grow(bytes) {
                room.send(frame);
                return;
            }
            drop((frame, room));
            reserved = self.out.reserve(bytes).await;
        }
    }

    async fn change(&self, request: Request) -> Result<Response, AdminError> {
        let admin = self.node.admin();
        match request {
            Request::CreateLog { name } => {
                let log = self.node.create_log(&log_name(name)?).await?;
                return Ok(Response::Logs(vec![(log.name().clone(), log.id())]));
            }
            Request::DeleteLog { name } => self.node.delete_for_client(&log_name(name)?).await?,
            Request::AddLearner { member } => admin.add_learner(member).await?,
            Request::Promote { node } => admin.promote(node).await?,
            Request::Remove { node } => admin.remove(node).await?,
            Request::TransferAll { to } => admin.transfer_leadership(to).await?,
            Request::TransferLog { to } => {
                let name = || unknown_log(self.id);
                let log = self.log.as_ref();
                let log = log.ok_or_else(|| AdminError::UnknownLog { name: name() })?;
                log.admin().transfer_leadership(to).await?;
            }
            other => {
                let reason = format!("{other:?} changes nothing");
                return Err(AdminError::Invalid { reason });
            }
        }
        Ok(Response::Done)
    }
}

fn log_name(name: String) -> Result<LogName, AdminError> {
    LogName::new(name).map_err(|error| AdminError::Invalid { reason: error.to_string() })
}

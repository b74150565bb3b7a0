//! One log, from another process.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::cluster::Cluster;
use super::failure::Failure;
use super::routing::{Pause, Target};
use super::{ClientSubscription, ClientTicket};
use crate::error::{AppendError, Oversized, ReadError};
use crate::member::{NodeId, Role, Status};
use crate::record::{AppendOptions, Appended, Index, LogId, LogName, Record, Start};
use crate::wire::client_protocol::{Request, Response};

/// What a record takes up here beside its payload; it bounds how many may be in flight.
const APPEND_OVERHEAD: usize = 512;

/// One log, from another process.
#[derive(Clone)]
pub struct ClientLog {
    cluster: Arc<Cluster>,
    name: LogName,
}

impl fmt::Debug for ClientLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLog").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientLog {
    pub(super) fn new(cluster: Arc<Cluster>, name: LogName) -> Self {
        Self { cluster, name }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &LogName {
        &self.name
    }

    /// Appends and waits for the commit. Retries only where the outcome is `NotAppended`.
    ///
    /// # Errors
    /// [`AppendError::outcome`] says whether the append may still happen.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Result<Appended, AppendError> {
        self.append_with(payload, AppendOptions::default()).await
    }

    /// `append` with options. The timeout is for the whole call.
    ///
    /// # Errors
    /// See [`append`](Self::append).
    pub async fn append_with(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let payload = payload.into();
        let size = payload.len();
        self.route_append(size, options, |options| Request::append(payload, options)).await
    }

    /// Appends all or nothing.
    ///
    /// # Errors
    /// See [`append`](Self::append).
    pub async fn append_batch(&self, payloads: Vec<Bytes>) -> Result<Appended, AppendError> {
        self.append_batch_with(payloads, AppendOptions::default()).await
    }

    /// `append_batch` with options. The timeout is for the whole call.
    ///
    /// # Errors
    /// See [`append`](Self::append).
    pub async fn append_batch_with(
        &self,
        payloads: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let size = size_of_batch(&payloads);
        let of_batch = of_batch(largest(&payloads));
        let batch = |options| Request::AppendBatch { options, payloads };
        self.route_append(size, options, batch).await.map_err(of_batch)
    }

    /// Sends an append to the leader, and returns a ticket for its commit. Appends that are submitted
    /// one after the other arrive in that order. Nothing is retried once it was sent: after a change
    /// of leader the ticket says so, and the next `submit` goes to the new one.
    ///
    /// # Errors
    /// No leader was found, or there was no room, within the client's timeout; nothing was sent.
    pub async fn submit(&self, payload: impl Into<Bytes>) -> Result<ClientTicket, AppendError> {
        self.submit_with(payload, AppendOptions::default()).await
    }

    /// `submit` with options. The timeout is for finding the leader and for room.
    ///
    /// # Errors
    /// See [`submit`](Self::submit).
    pub async fn submit_with(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
    ) -> Result<ClientTicket, AppendError> {
        let payload = payload.into();
        let size = payload.len();
        self.send(size, options, |options| Request::append(payload, options)).await
    }

    /// `submit` for a batch, which is appended as a whole or not at all.
    ///
    /// # Errors
    /// See [`submit`](Self::submit).
    pub async fn submit_batch(&self, payloads: Vec<Bytes>) -> Result<ClientTicket, AppendError> {
        self.submit_batch_with(payloads, AppendOptions::default()).await
    }

    /// `submit_batch` with options. The timeout is for finding the leader and for room.
    ///
    /// # Errors
    /// See [`submit`](Self::submit).
    pub async fn submit_batch_with(
        &self,
        payloads: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<ClientTicket, AppendError> {
        let size = size_of_batch(&payloads);
        let of_batch = of_batch(largest(&payloads));
        let batch = |options| Request::AppendBatch { options, payloads };
        self.send(size, options, batch).await.map_err(of_batch)
    }

    async fn send(
        &self,
        size: usize,
        mut options: AppendOptions,
        request: impl FnOnce(AppendOptions) -> Request,
    ) -> Result<ClientTicket, AppendError> {
        let deadline = self.deadline(options);
        let room = Arc::new(self.room(size, deadline).await?);
        options.timeout = options.timeout.or(Some(self.cluster.config.timeout));
        let request = request(options);
        let mut pause = Pause::new();
        loop {
            let id = self.id(deadline).await.map_err(AppendError::from_read)?;
            let error = match self.cluster.find_leader(id, deadline).await {
                None => AppendError::no_leader(),
                Some(node) => {
                    let connected = self.cluster.connect(&node, deadline).await;
                    let frame = request.clone().into_frame(id);
                    match connected.and_then(|()| node.link.start_in(frame, Arc::clone(&room))) {
                        Ok(pending) => {
                            let (cluster, name) = (Arc::clone(&self.cluster), self.name.clone());
                            return Ok(ClientTicket { pending, cluster, node, name, id });
                        }
                        Err(error) => {
                            self.cluster.doubt_leader(id, &node);
                            AppendError::from_link(error)
                        }
                    }
                }
            };
            if !error.is_retryable() || !pause.wait(deadline).await {
                return Err(error);
            }
        }
    }

    /// Committed records from `from` on, from the leader: as many as fit into `max_bytes`, and at least one if there is
    /// one.
    ///
    /// # Errors
    /// The index was trimmed, or no leader answered in time.
    pub async fn read(&self, from: Index, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        self.read_at(Target::Leader, from, max_bytes).await
    }

    /// `read` from a node of your choice, which may lag behind the leader.
    ///
    /// # Errors
    /// The index was trimmed, or the node is not known or did not answer in time.
    pub async fn read_from(
        &self,
        node: NodeId,
        from: Index,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let known = self.cluster.member_node(node).ok_or_else(|| ReadError::Unreachable {
            detail: format!("no node {node} that serves clients is known"),
        })?;
        self.read_at(Target::Node(known), from, max_bytes).await
    }

    async fn read_at(
        &self,
        target: Target,
        from: Index,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let deadline = self.deadline(AppendOptions::default());
        let request = Request::Read { from, max_bytes: max_bytes as u64 };
        self.ask(target, request, deadline, |response| match response {
            Response::Records { records, .. } => Ok(records),
            other => Err(ReadError::from_response(other)),
        })
        .await
    }

    /// One past the last index committed before the call.
    ///
    /// # Errors
    /// No majority answered in time.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let deadline = self.deadline(AppendOptions::default());
        self.ask(Target::Any, Request::ReadBarrier, deadline, |response| match response {
            Response::Barrier(index) => Ok(index),
            other => Err(ReadError::from_response(other)),
        })
        .await
    }

    /// Records as they are committed; goes on from where it was when a node fails.
    pub fn subscribe(&self, start: Start) -> ClientSubscription {
        ClientSubscription::new(self.clone(), start)
    }

    /// Status of this log on its leader.
    ///
    /// # Errors
    /// No leader was found in time.
    pub async fn status(&self) -> Result<Status, ReadError> {
        let deadline = self.deadline(AppendOptions::default());
        let id = self.id(deadline).await?;
        let request = Request::Statuses;
        self.ask(Target::Leader, request, deadline, |response| match response {
            Response::Statuses(statuses) => statuses
                .into_iter()
                .find(|status| status.log_id == id.0 && status.role == Role::Leader)
                .ok_or_else(ReadError::no_leader),
            other => Err(ReadError::from_response(other)),
        })
        .await
    }

    async fn route_append(
        &self,
        size: usize,
        mut options: AppendOptions,
        request: impl FnOnce(AppendOptions) -> Request,
    ) -> Result<Appended, AppendError> {
        let deadline = self.deadline(options);
        let _room = self.room(size, deadline).await?;
        options.timeout = Some(deadline.saturating_duration_since(Instant::now()));
        let request = request(options);
        let appended = |response| match response {
            Response::Appended(appended) => Ok(appended),
            other => Err(AppendError::from_response(other)),
        };
        let mut renewed = false;
        loop {
            let id = self.id(deadline).await.map_err(AppendError::from_read)?;
            match self.cluster.route(Target::Any, id, &request, deadline, appended).await {
                Err(AppendError::UnknownLog { .. }) if !renewed => {
                    // It may have been made again under another number.
                    self.cluster.forget_log(&self.name);
                    renewed = true;
                }
                Err(AppendError::UnknownLog { .. }) => {
                    return Err(AppendError::UnknownLog { name: self.name.as_str().to_owned() });
                }
                other => return other,
            }
        }
    }

    /// A question about this log, asked again if the log has another number by now.
    async fn ask<T>(
        &self,
        target: Target,
        request: Request,
        deadline: Instant,
        read: impl Fn(Response) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut renewed = false;
        loop {
            let id = self.id(deadline).await?;
            match self.cluster.route(target.clone(), id, &request, deadline, &read).await {
                Err(ReadError::UnknownLog { .. }) if !renewed => {
                    self.cluster.forget_log(&self.name);
                    renewed = true;
                }
                Err(ReadError::UnknownLog { .. }) => {
                    return Err(ReadError::UnknownLog { name: self.name.as_str().to_owned() });
                }
                other => return other,
            }
        }
    }

    pub(super) async fn id(&self, deadline: Instant) -> Result<LogId, ReadError> {
        self.cluster.resolve(&self.name, deadline).await
    }

    pub(super) fn deadline(&self, options: AppendOptions) -> Instant {
        Instant::now() + options.timeout.unwrap_or(self.cluster.config.timeout)
    }

    /// Waits for room among the appends in flight.
    async fn room(
        &self,
        size: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, AppendError> {
        let limit = self.cluster.config.inflight_max.min(u64::from(u32::MAX));
        let wanted = (size.saturating_add(APPEND_OVERHEAD) as u64).min(limit);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.cluster.room).acquire_many_owned(wanted);
        match timeout_at(deadline, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(AppendError::Closed),
            Err(_) => {
                let free = Semaphore::available_permits(&self.cluster.room) as u64;
                Err(AppendError::Overloaded { inflight: limit.saturating_sub(free), limit })
            }
        }
    }
}

/// What is too large for a frame is called a record until here, and so is a single one of a batch.
fn of_batch(largest: usize) -> impl Fn(AppendError) -> AppendError {
    move |error| match error {
        AppendError::TooLarge { what: Oversized::Record, size, limit } if size > largest as u64 => {
            AppendError::TooLarge { what: Oversized::Batch, size, limit }
        }
        other => other,
    }
}

/// One of the overheads is added to every append.
fn size_of_batch(payloads: &[Bytes]) -> usize {
    let more = payloads.len().saturating_sub(1).saturating_mul(APPEND_OVERHEAD);
    payloads.iter().map(Bytes::len).sum::<usize>().saturating_add(more)
}

fn largest(payloads: &[Bytes]) -> usize {
    payloads.iter().map(Bytes::len).max().unwrap_or(0)
}

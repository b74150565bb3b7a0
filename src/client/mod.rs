//! Use a cluster from another process (feature `client`): finds the leader of each log and follows it.
//!
//! Calls are retried only while it is certain that they did nothing, and only within their time.
//! Dropping the future of a call leaves its outcome unknown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{AdminError, ReadError, with_sources};
use crate::member::{Member, NodeId};
use crate::node::LogInfo;
use crate::record::{LogId, LogName};
use crate::seam::{TcpTransport, Transport};
use crate::wire::client_protocol::{Request, Response};

mod cluster;
mod failure;
mod leader;
mod log;
mod routing;
mod statuses;
mod subscription;
#[cfg(test)]
mod tests;
mod ticket;

use cluster::Cluster;
use failure::Failure;
pub use log::ClientLog;
use routing::Target;
pub use subscription::ClientSubscription;
pub use ticket::ClientTicket;

/// How a client reaches its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientConfig {
    /// `host:port` of the client listeners of some nodes; the others are found through them.
    pub nodes: Vec<String>,
    /// How long one call may take, with all its retries.
    pub timeout: Duration,
    /// Bytes of appends that may wait for their acknowledgement: payloads, and 512 for each append.
    /// Who comes after waits for room, up to the timeout.
    pub inflight_max: u64,
}

impl ClientConfig {
    /// Reach the cluster through these nodes; 10 s a call, 32 MiB in flight.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            nodes: nodes.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(10),
            inflight_max: 32 << 20,
        }
    }
}

/// Why a client has no cluster.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration names no node.
    #[error("no nodes are configured")]
    NoNodes,
    /// No node answered.
    #[error("no node answered within {after:?}: {detail}")]
    Unreachable {
        /// How long it tried: [`ClientConfig::timeout`].
        after: Duration,
        /// What the last attempt failed with.
        detail: String,
    },
}

/// A client of a cluster. Cheap to clone; one connection per node, shared by all clones.
#[derive(Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.cluster.config).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to one of the nodes over TCP, and learns of the others.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        Self::connect_over(Arc::new(TcpTransport), config).await
    }

    /// `connect` over another transport than TCP.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_over(
        transport: Arc<dyn Transport>,
        config: ClientConfig,
    ) -> Result<Self, ConnectError> {
        if config.nodes.is_empty() {
            return Err(ConnectError::NoNodes);
        }
        let after = config.timeout;
        let client = Self { cluster: Arc::new(Cluster::new(transport, config)) };
        match client.fetch_members::<ReadError>().await {
            Ok(_) => Ok(client),
            Err(ReadError::Unreachable { detail }) => {
                Err(ConnectError::Unreachable { after, detail })
            }
            Err(other) => Err(ConnectError::Unreachable { after, detail: with_sources(&other) }),
        }
    }

    /// A log by its name. Does not ask the cluster; a wrong name fails at first use.
    pub fn log(&self, name: &LogName) -> ClientLog {
        ClientLog::new(Arc::clone(&self.cluster), name.clone())
    }

    /// The logs of the cluster.
    ///
    /// # Errors
    /// No node answered in time.
    pub async fn logs(&self) -> Result<Vec<LogInfo>, AdminError> {
        let logs = self.ask(Request::Logs, |response| match response {
            Response::Logs(logs) => Ok(logs),
            other => Err(AdminError::from_response(other)),
        });
        let logs = logs.await?;
        self.cluster.learn_logs(&logs);
        Ok(logs.into_iter().map(|(name, id)| LogInfo { name, id }).collect())
    }

    /// Makes a log.
    ///
    /// # Errors
    /// The name is taken, or the cluster could not agree in time.
    pub async fn create_log(&self, name: &LogName) -> Result<LogInfo, AdminError> {
        let request = Request::CreateLog { name: name.as_str().to_owned() };
        let logs = self.ask(request, |response| match response {
            Response::Logs(logs) => Ok(logs),
            other => Err(AdminError::from_response(other)),
        });
        let logs = logs.await?;
        self.cluster.learn_logs(&logs);
        let created = logs.into_iter().find(|(created, _)| created == name);
        created.map(|(name, id)| LogInfo { name, id }).ok_or_else(|| AdminError::Unreachable {
            detail: "the node answered with another log".to_owned(),
        })
    }

    /// Deletes a log and its data.
    ///
    /// # Errors
    /// There is no such log, or the cluster could not agree in time.
    pub async fn delete_log(&self, name: &LogName) -> Result<(), AdminError> {
        self.cluster.forget_log(name);
        self.change(Request::DeleteLog { name: name.as_str().to_owned() }).await
    }

    /// The members as the system log has them.
    ///
    /// # Errors
    /// No node answered in time.
    pub async fn members(&self) -> Result<Vec<crate::MemberStatus>, AdminError> {
        self.fetch_members().await
    }

    /// See [`ClusterAdmin::add_learner`](crate::ClusterAdmin::add_learner).
    ///
    /// # Errors
    /// The cluster could not agree in time, or the member makes no sense.
    pub async fn add_learner(&self, member: Member) -> Result<(), AdminError> {
        self.change(Request::AddLearner { member }).await
    }

    /// See [`ClusterAdmin::promote`](crate::ClusterAdmin::promote).
    ///
    /// # Errors
    /// The node is no learner, or could not be made a voter in time.
    pub async fn promote(&self, node: NodeId) -> Result<(), AdminError> {
        self.change(Request::Promote { node }).await
    }

    /// See [`ClusterAdmin::remove`](crate::ClusterAdmin::remove).
    ///
    /// # Errors
    /// The node is no member, or could not be removed in time.
    pub async fn remove(&self, node: NodeId) -> Result<(), AdminError> {
        self.change(Request::Remove { node }).await
    }

    /// Hands leadership over: of one log, or of all if none is named.
    ///
    /// # Errors
    /// The node is no voter, or did not take over in time.
    pub async fn transfer_leadership(
        &self,
        log: Option<&LogName>,
        to: NodeId,
    ) -> Result<(), AdminError> {
        let Some(name) = log else { return self.change(Request::TransferAll { to }).await };
        let deadline = self.deadline();
        let id = self.cluster.resolve(name, deadline).await.map_err(AdminError::from_read)?;
        let request = Request::TransferLog { to };
        let transferred = self.cluster.route(Target::Any, id, &request, deadline, done).await;
        self.cluster.forget_leader(id);
        transferred.map_err(|error| match error {
            AdminError::UnknownLog { .. } => {
                AdminError::UnknownLog { name: name.as_str().to_owned() }
            }
            other => other,
        })
    }

    async fn fetch_members<E: Failure>(&self) -> Result<Vec<crate::MemberStatus>, E> {
        let members = self.ask(Request::Members, |response| match response {
            Response::Members(members) => Ok(members),
            other => Err(E::from_response(other)),
        });
        let members = members.await?;
        self.cluster.learn_members(&members);
        Ok(members)
    }

    async fn change(&self, request: Request) -> Result<(), AdminError> {
        self.ask(request, done).await
    }

    async fn ask<T, E: Failure>(
        &self,
        request: Request,
        read: impl Fn(Response) -> Result<T, E>,
    ) -> Result<T, E> {
        self.cluster.route(Target::Any, LogId::SYSTEM, &request, self.deadline(), read).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.cluster.config.timeout
    }
}

fn done(response: Response) -> Result<(), AdminError> {
    match response {
        Response::Done => Ok(()),
        other => Err(AdminError::from_response(other)),
    }
}

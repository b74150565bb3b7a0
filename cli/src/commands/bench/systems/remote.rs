//! quorumlog from another process: three nodes that we start, or a cluster that runs.

use std::time::Duration;

use quorumlog::client::{Client, ClientConfig, ClientLog};
use quorumlog::{AppendOptions, Flush, LogName, NodeId};
use tokio::time::Instant;

use super::{NodeSample, scrape, settings};
use crate::client::ensure_log;
use crate::cluster::plan::{Plan, Ports};
use crate::cluster::{Cluster, POLL};
use crate::commands::bench::appender::Appender;
use crate::commands::bench::{Args, CALL_TIMEOUT};
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::proc::ProcessSample;
use crate::workspace::Workspace;

/// How long a log may take to get a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The cluster, and clients of it.
pub(in crate::commands::bench) struct Remote {
    /// One for each connection.
    clients: Vec<Client>,
    nodes: Vec<Watched>,
    started: Option<(Cluster, Workspace)>,
}

/// A node's process on this machine.
#[derive(Debug, Clone)]
struct Watched {
    node: NodeId,
    pid: u32,
    http_addr: Option<String>,
}

impl Remote {
    /// Starts three nodes.
    ///
    /// # Errors
    /// One does not start, or they do not find a leader.
    pub(in crate::commands::bench) async fn start(args: &Args, flush: Flush) -> Result<Self> {
        let workspace = Workspace::fresh(args.data_of("remote", flush).as_deref(), "bench")?;
        let mode = flush.to_string();
        let plan = Plan::create(workspace.path(), Ports::Free, &settings(args, &mode)?)?;
        note(format_args!("starting three nodes in {}", workspace.path().display()));
        let mut cluster = Cluster::start(plan)?;
        let first = cluster.ready(CALL_TIMEOUT).await?;
        let clients = connect(first, &cluster.plan.client_addrs(), args.connections).await?;
        let watched = |planned: &crate::cluster::plan::PlannedNode| {
            let node = planned.member.id;
            let pid = cluster.pid(node)?;
            Some(Watched { node, pid, http_addr: Some(planned.http_addr.clone()) })
        };
        let nodes = cluster.plan.nodes.iter().filter_map(watched).collect();
        Ok(Self { clients, nodes, started: Some((cluster, workspace)) })
    }

    pub(super) async fn running(args: &Args) -> Result<Self> {
        let mut config = ClientConfig::new(&args.nodes);
        config.timeout = CALL_TIMEOUT;
        let first = Client::connect(config).await?;
        let clients = connect(first, &args.nodes, args.connections).await?;
        let watched = |(node, &pid)| Watched { node, pid, http_addr: None };
        let nodes = (1..).zip(&args.pids).map(watched).collect();
        Ok(Self { clients, nodes, started: None })
    }

    pub(super) async fn appenders(
        &self,
        names: &[LogName],
        options: AppendOptions,
    ) -> Result<Vec<Appender>> {
        let mut appenders = Vec::new();
        for name in names {
            if let Some(client) = self.clients.first() {
                ensure_log(client, name).await?;
                leader(&client.log(name)).await?;
            }
            let appender = |client: &Client| Appender::Remote(client.log(name), options);
            appenders.extend(self.clients.iter().map(appender));
        }
        Ok(appenders)
    }

    pub(super) async fn sample(&self) -> Vec<NodeSample> {
        let mut samples = Vec::with_capacity(self.nodes.len());
        for watched in &self.nodes {
            let Some(process) = ProcessSample::of(watched.pid) else { continue };
            let flushes = match &watched.http_addr {
                Some(addr) => scrape::flushes(addr).await,
                None => None,
            };
            samples.push(NodeSample { node: watched.node, process, flushes });
        }
        samples
    }

    pub(super) fn check(&mut self) -> Result {
        self.started.as_mut().map_or(Ok(()), |(cluster, _)| cluster.check())
    }

    /// Kills the node that leads the log with SIGKILL, and says when.
    ///
    /// # Errors
    /// There is no leader, or it is not ours.
    pub(in crate::commands::bench) async fn kill_leader(
        &mut self,
        log: &LogName,
    ) -> Result<(NodeId, std::time::Instant)> {
        let client = self.clients.first().ok_or_else(|| Failure::failed("there is no client"))?;
        let node = leader(&client.log(log)).await?;
        let (cluster, _) = self.ours()?;
        let at = std::time::Instant::now();
        cluster.kill(node).await?;
        Ok((node, at))
    }

    /// Starts a node that was killed.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(in crate::commands::bench) fn start_again(&mut self, node: NodeId) -> Result {
        self.ours()?.0.start_node(node)
    }

    fn ours(&mut self) -> Result<&mut (Cluster, Workspace)> {
        self.started.as_mut().ok_or_else(|| Failure::usage("the nodes are not ours"))
    }

    pub(super) async fn end(mut self) -> Result {
        match &mut self.started {
            Some((cluster, _)) => cluster.stop().await,
            None => Ok(()),
        }
    }
}

/// The node that leads the log, once there is one.
async fn leader(log: &ClientLog) -> Result<NodeId> {
    let deadline = Instant::now() + LEADER_TIMEOUT;
    loop {
        match log.status().await {
            Ok(status) => return Ok(status.node_id),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

async fn connect(first: Client, nodes: &[String], connections: u32) -> Result<Vec<Client>> {
    let mut clients = vec![first];
    for _ in 1..connections {
        let mut config = ClientConfig::new(nodes);
        config.timeout = CALL_TIMEOUT;
        clients.push(Client::connect(config).await?);
    }
    Ok(clients)
}

//! quorumlog as a broker: three processes, and a load that speaks to them as RocketMQ's clients do.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use quorumlog::client::Client;
use quorumlog::{Flush, LogName, NodeId};
use quorumlog_broker::{BrokerClient, TopicAdmin};
use tokio::time::{Instant, sleep};

use super::{NodeSample, scrape, settings};
use crate::cluster::brokers::BrokerPorts;
use crate::cluster::plan::{Plan, Ports};
use crate::cluster::{Cluster, POLL};
use crate::commands::bench::appender::{Appender, Queues};
use crate::commands::bench::case::Case;
use crate::commands::bench::{Args, CALL_TIMEOUT};
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::proc::ProcessSample;
use crate::workspace::Workspace;

/// Logs that a broker's node can have.
const LOGS_MAX: u32 = 9;
/// Queues of the topic in each log: as many as a topic gets by itself.
const QUEUES: u32 = 4;
/// How long the logs may take to be made and to be led where they shall be.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Three nodes that are brokers. Dropped in this order.
pub(in crate::commands::bench) struct BrokerNodes {
    pub(in crate::commands::bench) cluster: Cluster,
    ports: BrokerPorts,
    client: Client,
    _workspace: Workspace,
}

impl BrokerNodes {
    /// Starts them with so many logs.
    ///
    /// # Errors
    /// One does not start.
    pub(in crate::commands::bench) async fn start(
        data: Option<&Path>,
        settings: &[(&str, &str)],
        logs: u16,
    ) -> Result<Self> {
        let workspace = Workspace::fresh(data, "bench")?;
        let plan = Plan::create(workspace.path(), Ports::Free, settings)?;
        let ports = BrokerPorts::free(plan.nodes.len(), logs)?.with_settings(settings);
        note(format_args!("starting three brokers in {}", workspace.path().display()));
        let mut cluster = Cluster::start_brokers(plan, ports.clone())?;
        let client = cluster.ready(CALL_TIMEOUT).await?;
        Ok(Self { cluster, ports, client, _workspace: workspace })
    }

    /// Waits until the log has its final leader, and says which node that is, from 0.
    async fn leader(&mut self, log: u16) -> Result<usize> {
        let name = LogName::new(format!("broker-{log}"))?;
        let wanted = usize::from(log) % self.cluster.plan.nodes.len().max(1);
        let deadline = Instant::now() + SPREAD_TIMEOUT;
        loop {
            self.cluster.check()?;
            let status = self.client.log(&name).status().await;
            let leader = status.ok().and_then(|status| {
                let nodes = &self.cluster.plan.nodes;
                nodes.iter().position(|node| node.member.id == status.node_id)
            });
            match leader {
                Some(leader) if leader == wanted => return Ok(leader),
                Some(_) | None if Instant::now() < deadline => sleep(POLL).await,
                _ => {
                    return Err(Failure::failed(format!(
                        "node {} does not lead {name}",
                        wanted + 1
                    )));
                }
            }
        }
    }

    /// Makes a topic with so many queues in each of the first `logs` logs; returns where each of them is led.
    ///
    /// # Errors
    /// The logs get no leaders, or the topic is refused.
    pub(in crate::commands::bench) async fn topic(
        &mut self,
        name: &str,
        queues: u32,
        logs: u16,
    ) -> Result<Vec<SocketAddr>> {
        let mut addrs = Vec::new();
        for log in 0..logs {
            let leader = self.leader(log).await?;
            addrs.extend(self.ports.broker(leader, log));
        }
        let admin = TopicAdmin::new(self.ports.name_servers());
        let deadline = Instant::now() + SPREAD_TIMEOUT;
        while let Err(error) = admin.put(name, queues).await {
            if Instant::now() > deadline {
                return Err(Failure::io(format_args!("cannot make the topic {name}"), &error));
            }
            sleep(POLL).await;
        }
        Ok(addrs)
    }

    /// What each node costs so far.
    ///
    /// # Errors
    /// One cannot be looked at.
    pub(in crate::commands::bench) fn processes(&self) -> Result<Vec<(NodeId, ProcessSample)>> {
        let ids = self.cluster.ids().into_iter();
        ids.map(|id| Ok((id, self.cluster.process(id)?))).collect()
    }
}

/// Connects to a broker.
///
/// # Errors
/// It does not listen.
pub(in crate::commands::bench) async fn connect(addr: SocketAddr) -> Result<BrokerClient> {
    let connected = BrokerClient::connect(addr, "bench").await;
    connected.map_err(|error| Failure::io(format_args!("connect to the broker {addr}"), &error))
}

/// The nodes, and what the cases ask of them.
pub(in crate::commands::bench) struct Broker {
    nodes: tokio::sync::Mutex<BrokerNodes>,
    connections: u32,
}

impl Broker {
    pub(super) async fn start(args: &Args, flush: Flush) -> Result<Self> {
        let logs = args.logs.iter().copied().max().unwrap_or(1);
        let logs = u16::try_from(logs).ok().filter(|logs| u32::from(*logs) <= LOGS_MAX);
        let logs = logs.ok_or_else(|| {
            Failure::usage(format!("--logs: a broker's node has {LOGS_MAX} at most"))
        })?;
        let mode = flush.to_string();
        let data = args.data_of("broker", flush);
        let nodes = BrokerNodes::start(data.as_deref(), &settings(args, &mode)?, logs).await?;
        Ok(Self { nodes: tokio::sync::Mutex::new(nodes), connections: args.connections })
    }

    pub(super) async fn appenders(&self, topic: &LogName, case: &Case) -> Result<Vec<Appender>> {
        let logs = u16::try_from(case.logs).unwrap_or(u16::MAX);
        // Dots are for names of logs only.
        let topic = topic.as_str().replace('.', "_");
        let addrs = self.nodes.lock().await.topic(&topic, QUEUES, logs).await?;
        let mut appenders = Vec::new();
        for addr in addrs {
            let turn = Arc::new(AtomicU32::new(0));
            for _ in 0..self.connections {
                let queues =
                    Queues { topic: topic.clone(), count: QUEUES, turn: Arc::clone(&turn) };
                appenders.push(Appender::Broker(connect(addr).await?, queues));
            }
        }
        Ok(appenders)
    }

    pub(super) async fn sample(&self) -> Vec<NodeSample> {
        let nodes = self.nodes.lock().await;
        let mut samples = Vec::new();
        for (node, process) in nodes.processes().unwrap_or_default() {
            let planned = nodes.cluster.plan.nodes.iter().find(|it| it.member.id == node);
            let flushes = match planned {
                Some(planned) => scrape::flushes(&planned.http_addr).await,
                None => None,
            };
            samples.push(NodeSample { node, process, flushes });
        }
        samples
    }

    pub(super) fn check(&mut self) -> Result {
        self.nodes.get_mut().cluster.check()
    }

    pub(super) async fn end(self) -> Result {
        self.nodes.into_inner().stop().await
    }
}

impl BrokerNodes {
    /// Stops them.
    ///
    /// # Errors
    /// One did not stop well.
    pub(in crate::commands::bench) async fn stop(mut self) -> Result {
        self.cluster.stop().await
    }
}

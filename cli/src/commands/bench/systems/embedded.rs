//! quorumlog inside a program: the load runs in the process of the leader, the other two nodes are
//! processes. What node 1 costs is then with the cost of the load.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use quorumlog::client::{Client, ClientConfig};
use quorumlog::{AdminError, AppendOptions, CommitLog, Flush, LogName, Node, Role};
use tokio::time::Instant;

use super::{NodeSample, scrape, settings};
use crate::cluster::plan::{Plan, Ports};
use crate::cluster::{Cluster, POLL};
use crate::commands::bench::appender::Appender;
use crate::commands::bench::{Args, CALL_TIMEOUT};
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::proc::ProcessSample;
use crate::recorder;
use crate::settings::Layers;
use crate::workspace::Workspace;

/// How long node 1 may take to become the leader of a log.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Node 1, and the processes of the others.
pub(in crate::commands::bench) struct Embedded {
    node: Node,
    metrics: PrometheusHandle,
    cluster: Cluster,
    _workspace: Workspace,
}

impl Embedded {
    pub(super) async fn start(args: &Args, flush: Flush) -> Result<Self> {
        let mode = flush.to_string();
        let settings = settings(args, &mode)?;
        Self::on(args.data_of("embedded", flush).as_deref(), &settings).await
    }

    /// With these settings, and data in a new or empty directory.
    ///
    /// # Errors
    /// A node does not start.
    pub(in crate::commands::bench) async fn open(
        data: Option<&Path>,
        settings: &[(String, String)],
    ) -> Result<Self> {
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Self::on(data, &settings).await
    }

    async fn on(data: Option<&Path>, settings: &[(&str, &str)]) -> Result<Self> {
        let workspace = Workspace::fresh(data, "bench")?;
        let plan = Plan::create(workspace.path(), Ports::Free, settings)?;
        note(format_args!("starting two nodes in {}, and one here", workspace.path().display()));
        let first = plan.nodes.first().ok_or_else(|| Failure::failed("there is no first node"))?;
        let mut layers = Layers::defaults();
        layers.file(&first.config)?;
        let settings = layers.settings()?;
        let mut config = settings.node;
        config.client_advertise = Some(first.member.client_addr.clone());
        let id = first.member.id;
        let cluster = Cluster::start_without(plan, id)?;
        let metrics = recorder_of_process()?;
        let node = Node::open(config).await?;
        node.bootstrap(settings.cluster.peers).await?;
        Ok(Self { node, metrics, cluster, _workspace: workspace })
    }

    pub(super) async fn appenders(
        &self,
        names: &[LogName],
        options: AppendOptions,
    ) -> Result<Vec<Appender>> {
        let mut appenders = Vec::new();
        for name in names {
            appenders.push(Appender::Embedded(self.log(name).await?, options));
        }
        Ok(appenders)
    }

    /// A log that this process leads, made if there is none.
    ///
    /// # Errors
    /// The cluster refuses.
    pub(in crate::commands::bench) async fn log(&self, name: &LogName) -> Result<CommitLog> {
        let log = match self.node.create_log(name).await {
            Err(AdminError::LogExists { .. }) => self.node.log(name),
            made => Some(made?),
        };
        let log = log.ok_or_else(|| Failure::failed(format!("{name} is not here yet")))?;
        self.lead(&log).await?;
        Ok(log)
    }

    /// Waits until this node leads the log, and asks for it if another one does.
    async fn lead(&self, log: &CommitLog) -> Result {
        let deadline = Instant::now() + LEAD_TIMEOUT;
        while Instant::now() < deadline {
            let status = log.status();
            if status.role == Role::Leader {
                return Ok(());
            }
            if status.leader.is_some() {
                let others = self.cluster.plan.nodes.iter().map(|node| &node.member);
                let others = others.filter(|member| member.id != status.node_id);
                let mut config = ClientConfig::new(others.map(|member| &member.client_addr));
                config.timeout = CALL_TIMEOUT;
                let client = Client::connect(config).await?;
                client.transfer_leadership(Some(log.name()), status.node_id).await?;
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Failure::failed(format!("node 1 does not lead {} within {LEAD_TIMEOUT:?}", log.name())))
    }

    pub(super) async fn sample(&self) -> Vec<NodeSample> {
        let mut samples = Vec::new();
        for planned in &self.cluster.plan.nodes {
            let node = planned.member.id;
            let pid = self.cluster.pid(node);
            let flushes = match pid {
                Some(_) => scrape::flushes(&planned.http_addr).await,
                None => scrape::flushes_in(&self.metrics.render()),
            };
            if let Some(process) = ProcessSample::of(pid.unwrap_or_else(std::process::id)) {
                samples.push(NodeSample { node, process, flushes });
            }
        }
        samples
    }

    pub(super) fn check(&mut self) -> Result {
        self.cluster.check()
    }

    pub(in crate::commands::bench) async fn end(mut self) -> Result {
        let node = self.node.shutdown().await;
        self.cluster.stop().await?;
        node.map_err(|error| Failure::from(&*error))
    }
}

/// The metrics of this process, which has one recorder however many nodes it runs one after the other.
fn recorder_of_process() -> Result<PrometheusHandle> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let handle = recorder::install()?;
    tokio::spawn(recorder::upkeep(handle.clone()));
    Ok(RECORDER.get_or_init(|| handle).clone())
}

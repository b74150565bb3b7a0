//! What a load of appends does not show: failovers, idle logs, idle pulls, reads, restarts.

mod audit;
mod cost;
mod failovers;
mod fill;
mod idle;
mod lag;
mod polls;
mod quantiles;
mod reader;
mod reads;
mod restart;

use std::path::PathBuf;

use quorumlog::client::{Client, ClientConfig, ClientLog};
use quorumlog::{ByteCount, Flush, LogName, NodeId, Status};
use tokio::time::{Instant, sleep};

use super::CALL_TIMEOUT;
use crate::client::ensure_log;
use crate::cluster::plan::{Plan, Ports};
use crate::cluster::{Cluster, POLL};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, note};
use crate::settings::{Layers, Settings};
use crate::workspace::Workspace;

/// Name of the log that is measured.
const LOG: &str = "bench";
/// How long nodes may take to come to where the next step begins.
const SETTLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// One of them.
#[derive(Debug, Clone, clap::Subcommand)]
pub(super) enum Scenario {
    Failovers(failovers::Args),
    Idle(idle::Args),
    Polls(polls::Args),
    Reads(reads::Args),
    Lag(lag::Args),
    Restart(restart::Args),
}

impl Scenario {
    /// Starts nodes for it, and ends them whatever happens.
    ///
    /// # Errors
    /// The nodes did not do what the scenario measures.
    pub(super) async fn run(&self, out: &mut Output) -> Result {
        match self {
            Self::Failovers(args) => failovers::run(args, out).await,
            Self::Idle(args) => idle::run(args, out).await,
            Self::Polls(args) => polls::run(args, out).await,
            Self::Reads(args) => Box::pin(reads::run(args, out)).await,
            Self::Lag(args) => Box::pin(lag::run(args, out)).await,
            Self::Restart(args) => restart::run(args, out).await,
        }
    }
}

/// What all of them are told.
#[derive(Debug, Clone, clap::Args)]
struct NodeArgs {
    /// sync or async.
    #[arg(long, value_name = "MODE", default_value_t = Flush::Sync)]
    flush: Flush,
    /// Data of the nodes: a new or empty directory on the disk to measure.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A setting of the nodes. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How to write the results; JSON is one object a line.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputKind,
}

impl NodeArgs {
    /// What the nodes run with. Nothing is dropped from their logs, so that all can be read back.
    fn settings(&self) -> Result<Vec<(String, String)>> {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut settings =
            vec![pair("storage.flush", &self.flush.to_string()), pair("log.level", "warn")];
        for setting in &self.set {
            let (key, value) = super::setting(setting)?;
            settings.push(pair(key, value));
        }
        Ok(settings)
    }
}

/// Three nodes as processes, and a client of them. Dropped in this order.
struct Nodes {
    cluster: Cluster,
    client: Client,
    _workspace: Workspace,
}

impl Nodes {
    async fn start(args: &NodeArgs) -> Result<Self> {
        let workspace = Workspace::fresh(args.data.as_deref(), "bench")?;
        let settings = args.settings()?;
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let plan = Plan::create(workspace.path(), Ports::Free, &settings)?;
        note(format_args!("starting three nodes in {}", workspace.path().display()));
        let mut cluster = Cluster::start(plan)?;
        let client = cluster.ready(CALL_TIMEOUT).await?;
        Ok(Self { cluster, client, _workspace: workspace })
    }

    /// The settings that the first node runs with.
    fn settings(&self) -> Result<Settings> {
        let first = self.cluster.plan.nodes.first();
        let first = first.ok_or_else(|| Failure::failed("there is no first node"))?;
        let mut layers = Layers::defaults();
        layers.file(&first.config)?;
        layers.settings()
    }

    /// The log that is measured, led by somebody.
    async fn log(&self) -> Result<ClientLog> {
        let name = LogName::new(LOG)?;
        ensure_log(&self.client, &name).await?;
        let log = self.client.log(&name);
        leader(&log).await?;
        Ok(log)
    }

    /// Waits until every node has committed all that was committed before the call. Returns one past that.
    async fn agree(&mut self, log: &ClientLog) -> Result<u64> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut last = String::new();
        let mut wanted = None;
        while Instant::now() < deadline {
            self.cluster.check()?;
            match wanted {
                None => match log.read_barrier().await {
                    Ok(barrier) => wanted = Some(barrier),
                    Err(error) => last = error.to_string(),
                },
                Some(barrier) => {
                    let statuses = statuses_of(&self.client, log.name().as_str()).await;
                    let there = statuses.iter().filter(|status| status.committed >= barrier);
                    if there.count() == self.cluster.ids().len() {
                        return Ok(barrier);
                    }
                    let ends: Vec<(NodeId, u64)> =
                        statuses.iter().map(|status| (status.node_id, status.committed)).collect();
                    last = format!("committed on each node: {ends:?}, wanted {barrier}");
                }
            }
            sleep(POLL).await;
        }
        Err(Failure::failed(format!("the nodes did not agree within {SETTLE_TIMEOUT:?}: {last}")))
    }

    async fn stop(mut self) -> Result {
        self.cluster.stop().await
    }
}

/// What each node that answers says of a log.
async fn statuses_of(client: &Client, log: &str) -> Vec<Status> {
    let answers = client.statuses().await;
    let statuses = answers.into_iter().filter_map(|(_, answer)| answer.ok()).flatten();
    statuses.filter(|status| status.log == log).collect()
}

/// What the log's leader says, once there is one.
async fn leader(log: &ClientLog) -> Result<Status> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        match log.status().await {
            Ok(status) => return Ok(status),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Another client, with its own connection.
async fn connect(addrs: Vec<String>) -> Result<Client> {
    let mut config = ClientConfig::new(addrs);
    config.timeout = CALL_TIMEOUT;
    Ok(Client::connect(config).await?)
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn size(bytes: ByteCount) -> Result<usize> {
    usize::try_from(bytes.bytes()).map_err(|_| Failure::usage(format!("{bytes} is too large")))
}

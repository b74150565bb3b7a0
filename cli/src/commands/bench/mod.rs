//! `bench`: closed loop load, and what it costs.

mod load;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use quorumlog::client::{Client, ClientConfig, ClientLog};
use quorumlog::{ByteCount, Flush, LogName, NodeId};

use crate::client::{duration, ensure_log, host_port, log_name};
use crate::cluster::Cluster;
use crate::cluster::plan::{Plan, Ports};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, note};
use crate::proc::ProcessSample;
use crate::signals::StopSignals;
use crate::workspace::Workspace;
use load::{Measured, Round};
use report::{Report, Row};

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench
  quorumlog bench --clients 1,64,256 --flush sync,async --size 1KiB --duration 10s
  quorumlog bench --node 127.0.0.1:20921 --pid 4711 --output json
  quorumlog bench --data bench-data

Each client has one append outstanding. Without --node, three nodes are started as processes and
their CPU, memory, threads and wake-ups (voluntary context switches) are measured. With --node, the
nodes run with the flush mode that they have; name their processes on this machine with --pid.
RSS counts mapped page cache too, anon does not.";

/// Measure appends: latency, throughput, and CPU, memory and wake-ups of each node.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Client address of a node of a running cluster; repeat it for more.
    #[arg(short, long = "node", value_name = "HOST:PORT", env = "QUORUMLOG_NODES", value_delimiter = ',', value_parser = host_port)]
    nodes: Vec<String>,
    /// Start three nodes even if QUORUMLOG_NODES is set.
    #[arg(long, conflicts_with = "pids")]
    spawn: bool,
    /// Process id of a node of the running cluster, to measure it; repeat it for more.
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',')]
    pids: Vec<u32>,
    /// Clients at once, each with one append outstanding. A list runs one after the other.
    #[arg(long, value_name = "N", default_value = "1,64,256", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: Vec<u32>,
    /// Payload of one record.
    #[arg(long, value_name = "BYTES", default_value = "1KiB")]
    size: ByteCount,
    /// sync or async; a list runs one after the other.
    #[arg(long, value_name = "MODE", default_value = "sync", value_delimiter = ',')]
    flush: Vec<Flush>,
    /// How long each round measures.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    duration: Duration,
    /// How long each round runs before it measures.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    warmup: Duration,
    /// Name of the log; with --logs, the begin of their names.
    #[arg(long, default_value = "bench", value_parser = log_name)]
    log: LogName,
    /// Logs that the clients are spread over.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    logs: u32,
    /// TCP connections to each node that the clients share.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Data of the nodes that are started: a new or empty directory on the disk to measure.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A setting of the nodes that are started. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How to write the results; JSON is one object a line.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputKind,
}

/// How long one append may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the command. On every way out the nodes that it started are ended.
///
/// # Errors
/// The cluster cannot be reached or started.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    let mut signals = StopSignals::new().map_err(|error| Failure::io("signals", &error))?;
    let spawn = args.spawn || args.nodes.is_empty();
    if !spawn && (!args.set.is_empty() || args.data.is_some()) {
        return Err(Failure::usage("--set and --data are for nodes that this command starts"));
    }
    tokio::select! {
        result = bench(&args, spawn, out) => result,
        signal = signals.next() => Err(Failure::failed(format!("stopped by {signal}"))),
    }
}

async fn bench(args: &Args, spawn: bool, out: &mut Output) -> Result {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    note(format_args!("{cores} cores, shared by the load and all nodes on this machine"));
    let mut report = Report::new();
    for flush in &args.flush {
        let mut target =
            if spawn { Target::spawn(args, *flush).await? } else { Target::running(args).await? };
        let result = rounds(args, *flush, &mut target, &mut report, out).await;
        target.end().await;
        result?;
    }
    if args.output == OutputKind::Table {
        out.line(report.table())?;
        if let Some(nodes) = report.node_table() {
            out.line("")?;
            out.line(nodes)?;
        }
    }
    Ok(())
}

async fn rounds(
    args: &Args,
    flush: Flush,
    target: &mut Target,
    report: &mut Report,
    out: &mut Output,
) -> Result {
    let logs = target.logs(args).await?;
    for clients in &args.clients {
        let round = Round {
            clients: *clients,
            size: usize::try_from(args.size.bytes()).unwrap_or(usize::MAX),
            flush,
            warmup: args.warmup,
            duration: args.duration,
        };
        note(format_args!("{clients} clients, {} records, flush {flush}", args.size));
        let measured = load::run(&round, &logs, || target.sample()).await?;
        target.check()?;
        let row = Row::new(&round, args.logs, &measured);
        if args.output == OutputKind::Json {
            out.json(&row)?;
            out.flush()?;
        }
        report.add(row);
    }
    Ok(())
}

/// The cluster that is measured.
struct Target {
    clients: Vec<Client>,
    /// Nodes and process ids to sample.
    pids: Vec<(NodeId, u32)>,
    spawned: Option<(Cluster, Workspace)>,
}

impl Target {
    async fn spawn(args: &Args, flush: Flush) -> Result<Self> {
        // A list of modes needs a new cluster for each, with its own directory.
        let data = args.data.as_ref().map(|dir| dir.join(flush.to_string()));
        let workspace = Workspace::fresh(data.as_deref(), "bench")?;
        let flush = flush.to_string();
        let mut settings = vec![("storage.flush", flush.as_str()), ("log.level", "warn")];
        for setting in &args.set {
            let pair = setting.split_once('=');
            settings.push(pair.ok_or_else(|| Failure::usage("--set: write KEY=VALUE"))?);
        }
        let plan = Plan::create(workspace.path(), Ports::Free, &settings)?;
        note(format_args!("starting three nodes in {}", workspace.path().display()));
        let mut cluster = Cluster::start(plan)?;
        let first = cluster.ready(CALL_TIMEOUT).await?;
        let addrs = cluster.plan.client_addrs();
        let clients = connect(first, &addrs, args.connections).await?;
        let ids = cluster.ids();
        let pids = ids.into_iter().filter_map(|id| Some((id, cluster.pid(id)?))).collect();
        Ok(Self { clients, pids, spawned: Some((cluster, workspace)) })
    }

    async fn running(args: &Args) -> Result<Self> {
        let mut config = ClientConfig::new(&args.nodes);
        config.timeout = CALL_TIMEOUT;
        let first = Client::connect(config).await?;
        let clients = connect(first, &args.nodes, args.connections).await?;
        let pids = (1..).zip(args.pids.iter().copied()).collect();
        Ok(Self { clients, pids, spawned: None })
    }

    /// Makes the logs, and gives a handle for each log on each connection.
    async fn logs(&self, args: &Args) -> Result<Vec<ClientLog>> {
        let mut handles = Vec::new();
        for n in 0..args.logs {
            let name = match args.logs {
                1 => args.log.clone(),
                _ => LogName::new(format!("{}-{n}", args.log))?,
            };
            if let Some(client) = self.clients.first() {
                ensure_log(client, &name).await?;
            }
            handles.extend(self.clients.iter().map(|client| client.log(&name)));
        }
        Ok(handles)
    }

    fn sample(&self) -> Vec<(NodeId, ProcessSample)> {
        let pids = self.pids.iter();
        pids.filter_map(|(id, pid)| Some((*id, ProcessSample::of(*pid)?))).collect()
    }

    fn check(&mut self) -> Result {
        self.spawned.as_mut().map_or(Ok(()), |(cluster, _)| cluster.check())
    }

    async fn end(mut self) {
        if let Some((cluster, _)) = &mut self.spawned
            && let Err(failure) = cluster.stop().await
        {
            note(format_args!("warning: {failure}"));
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

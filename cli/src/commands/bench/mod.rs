//! `bench`: load on quorumlog and on the reference beside it, and what it costs.

mod appender;
mod case;
mod chart;
mod failover;
mod load;
mod pace;
mod report;
mod row;
mod scenarios;
mod systems;
mod timeline;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorumlog::{ByteCount, Flush, LogName};

use crate::cli::cores;
use crate::client::{duration, host_port, log_name};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, note};
use crate::proc::ProcessSample;
use crate::progress::Progress;
use crate::signals::StopSignals;
use case::{Case, Matrix};
use load::Load;
use report::Report;
use row::{Measured, Row};
use scenarios::Scenario;
use systems::{ClientKind, Protocol, System};

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench
  quorumlog bench --reference --clients 1,64,256 --flush sync,async --repeat 3
  quorumlog bench --reference --rate 1000,10000,50000 --clients 1024
  quorumlog bench --client remote,embedded --size 64,1KiB,1MiB --batch 1,16 --logs 1,8
  quorumlog bench --reference --report bench.svg --json
  quorumlog bench --protocol native,rocketmq --clients 1,256
  quorumlog bench failovers --kills 50
  quorumlog bench idle --logs 100
  quorumlog bench polls --count 0,1000
  quorumlog bench --node 127.0.0.1:20921 --pid 4711 --output json

bench measures lists in all combinations. It runs the repetitions of one case in turn on each
system, and shows medians. Without --rate each client has one append outstanding. With --rate
appends come on schedule and their latency counts from when they were due; --clients is then how
many may be under way at once. --reference runs the least that an append to three nodes can do
(fixed leader, no Raft, no recovery, one log whatever --logs says) with the same load. It shows what
this machine can do.

Without --node, bench starts three nodes as processes and measures their CPU, memory, threads,
flushes and wake-ups (voluntary context switches). With --node, the nodes keep their flush mode;
name their processes on this machine with --pid. RSS includes mapped page cache, anon does not.
Disk B/op is what the kernel counts as dirtied, in whole pages, or in whole folios if the file
system has large ones. It can be far more than is written.";

/// Measure appends: latency, throughput, and CPU, memory, flushes and wake-ups of each node.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    /// Client address of a node of a running cluster; repeat it for more.
    #[arg(short, long = "node", value_name = "HOST:PORT", env = "QUORUMLOG_NODES", value_delimiter = ',', value_parser = host_port)]
    nodes: Vec<String>,
    /// Start three nodes even if QUORUMLOG_NODES is set.
    #[arg(long, conflicts_with = "pids")]
    spawn: bool,
    /// Process id of a node of the running cluster, to measure it; repeat it for more.
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',')]
    pids: Vec<u32>,
    /// Measure the reference too, and show ratios.
    #[arg(long)]
    reference: bool,
    /// Where the load runs: in a separate process, or in the leader's. A list measures both.
    #[arg(long, value_enum, value_name = "WHERE", default_value = "remote", value_delimiter = ',')]
    client: Vec<ClientKind>,
    /// Protocol of a load in a separate process. native appends to a log. rocketmq sends to a topic, one log
    /// per broker, as RocketMQ clients do; its rows are those of the system `broker`. A list measures both.
    #[arg(long, value_enum, value_name = "NAME", default_value = "native", value_delimiter = ',')]
    protocol: Vec<Protocol>,
    /// Clients at once, each with one append outstanding; with --rate, appends under way at once.
    #[arg(long, value_name = "N", default_value = "1,64,256", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    clients: Vec<u32>,
    /// Appends a second, on schedule. If not given, each acknowledgement starts the next append.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Vec<u64>,
    /// Payload of one record.
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_delimiter = ',')]
    size: Vec<ByteCount>,
    /// Records of one append.
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// sync or async.
    #[arg(long, value_name = "MODE", default_value = "sync", value_delimiter = ',')]
    flush: Vec<Flush>,
    /// How often to measure each case, in turn with the other systems.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// How long each round measures.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    duration: Duration,
    /// How long each round runs before it measures.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    warmup: Duration,
    /// Name of the log. With several, their names begin with it.
    #[arg(long, default_value = "bench", value_parser = log_name)]
    log: LogName,
    /// Logs to spread the clients over.
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    logs: Vec<u32>,
    /// TCP connections to each node that the clients share.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Threads of the process that the load runs in; 0 means one for each core.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    client_threads: u16,
    /// Data of the nodes that bench starts: a new or empty directory on the disk to measure.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A setting of the nodes that bench starts. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Draw latency by load, percentiles, and a time line with a killed leader into this SVG file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write one JSON object a line, with the fields for comparing systems.
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// How to write the results. JSON is one object a line, with everything that was measured.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputKind,
}

/// How long one append may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

impl Args {
    /// Threads that the runtime should have; 0 for one for each core.
    pub(crate) fn threads(&self) -> usize {
        usize::from(self.client_threads)
    }

    fn runs_elsewhere(&self) -> bool {
        !self.spawn && !self.nodes.is_empty()
    }

    /// Each system in each mode needs its own directory.
    fn data_of(&self, system: &str, flush: Flush) -> Option<PathBuf> {
        self.data.as_ref().map(|dir| dir.join(format!("{system}-{flush}")))
    }

    fn check(&self) -> Result {
        if !self.runs_elsewhere() {
            return Ok(());
        }
        let embedded = self.client.contains(&ClientKind::Embedded);
        let own = [
            ("--set", !self.set.is_empty()),
            ("--data", self.data.is_some()),
            ("--reference", self.reference),
            ("--client embedded", embedded),
            ("--protocol rocketmq", self.protocol.contains(&Protocol::Rocketmq)),
            ("--report", self.report.is_some()),
        ];
        match own.iter().find(|(_, given)| *given) {
            Some((flag, _)) => {
                Err(Failure::usage(format!("{flag} is for nodes that this command starts")))
            }
            None => Ok(()),
        }
    }

    fn matrix(&self) -> Matrix {
        Matrix {
            clients: self.clients.clone(),
            sizes: self.size.iter().map(|size| size.bytes()).collect(),
            logs: self.logs.clone(),
            batches: self.batch.clone(),
            rates: self.rate.clone(),
        }
    }
}

/// Runs the command. However it ends, it stops the nodes that it started.
///
/// # Errors
/// The cluster cannot be reached or started.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    let mut signals = StopSignals::new().map_err(|error| Failure::io("signals", &error))?;
    args.check()?;
    let work = async {
        match &args.scenario {
            Some(scenario) => Box::pin(scenario.run(out)).await,
            None => bench(&args, out).await,
        }
    };
    tokio::select! {
        result = work => result,
        signal = signals.next() => Err(Failure::failed(format!("stopped by {signal}"))),
    }
}

async fn bench(args: &Args, out: &mut Output) -> Result {
    note(format_args!("{} cores, shared by the load and all nodes on this machine", cores()));
    let mut report = Report::new();
    for flush in &args.flush {
        let mut systems = System::all(args, *flush).await?;
        let result = rounds(args, *flush, &mut systems, &mut report, out).await;
        for system in systems {
            system.end().await;
        }
        result?;
    }
    if args.output == OutputKind::Table && !args.json {
        out.line(report.table())?;
        if let Some(nodes) = report.node_table() {
            out.line("")?;
            out.line(nodes)?;
        }
        out.flush()?;
    }
    if let Some(path) = &args.report {
        let failover = failover::run(args).await?;
        note(&failover);
        chart::write(path, report.rows(), &failover)?;
        note(format_args!("the report is in {}", path.display()));
    }
    Ok(())
}

async fn rounds(
    args: &Args,
    flush: Flush,
    systems: &mut [System],
    report: &mut Report,
    out: &mut Output,
) -> Result {
    for case in args.matrix().cases(flush) {
        note(case);
        let mut rows: Vec<Vec<Row>> = systems.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.repeat {
            for (system, rows) in systems.iter_mut().zip(&mut rows) {
                let measured = measure(args, &case, system).await?;
                system.check()?;
                rows.push(Row::new(system.name(), system.client(), case, &measured));
            }
        }
        for row in report.add(rows.into_iter().filter_map(Row::median).collect()) {
            if args.json {
                out.json(&row.compared())?;
            } else if args.output == OutputKind::Json {
                out.json(row)?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// One repetition of a case on one system.
async fn measure(args: &Args, case: &Case, system: &System) -> Result<Measured> {
    let appenders = system.appenders(args, case).await?;
    let load = Load::new(case, appenders, args.warmup, args.duration, None)?;
    let watch = async {
        load::until(load.begin()).await;
        let client = ProcessSample::of(std::process::id());
        let before = system.sample().await;
        wait(load.begin(), args.duration).await;
        // An open loop may still have to end what was due.
        let after = if case.rate.is_none() { system.sample().await } else { Vec::new() };
        (before, after, client)
    };
    let (found, (before, mut after, client)) = tokio::join!(load.run(case), watch);
    let found = found?;
    if case.rate.is_some() {
        after = system.sample().await;
    }
    let now = ProcessSample::of(std::process::id());
    let client = now.zip(client).map(|(now, then)| now.since(&then)).unwrap_or_default();
    Ok(Measured { found, before, after, client })
}

async fn wait(begin: Instant, duration: Duration) {
    let progress = Progress::seconds(duration);
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    while begin.elapsed() < duration {
        tokio::select! {
            _ = ticks.tick() => progress.set(begin.elapsed().as_secs()),
            () = load::until(begin + duration) => {}
        }
    }
    progress.clear();
}

/// A setting of the nodes as `--set` gives it.
fn setting(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').ok_or_else(|| Failure::usage("--set: write KEY=VALUE"))
}

//! `demo`: three nodes as processes, a killed leader, and a proof that nothing acknowledged is lost.

pub(super) mod check;
pub(super) mod ledger;
mod load;
pub(super) mod records;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorumlog::client::{Client, ClientLog};
use quorumlog::{Flush, LogName, NodeId};
use tokio::time::{sleep, timeout};

use crate::client::ensure_log;
use crate::cluster::plan::{Plan, Ports};
use crate::cluster::{Cluster, POLL};
use crate::commands::log::OutputKind;
use crate::commands::read::read_all;
use crate::commands::verify;
use crate::failure::{Failure, Result};
use crate::output::{Output, note};
use crate::progress::Progress;
use crate::signals::StopSignals;
use crate::workspace::Workspace;
use check::Held;
use load::Load;
use records::Records;
use report::Report;

/// Name of the log that the demo writes.
const LOG: &str = "demo";

/// Records that are generated unless a file is given.
const RECORDS: u64 = 120_000;

/// How long one call of the client may take: longer than a failover.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the nodes may take to agree after the load.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the load may take to come from one point to the next.
const PHASE_TIMEOUT: Duration = Duration::from_secs(600);

const AFTER_HELP: &str = "\
Examples:
  quorumlog demo
  quorumlog demo --records 1000000 --flush async
  quorumlog demo access.log --keep
  quorumlog demo --data /var/tmp/demo --output json

Exit code 1: an acknowledged record is missing, changed or out of order somewhere.";

/// Three nodes commit records, the leader is killed, and every acknowledged record is verified.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Append the lines of this file; generated records if not given.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many records; the lines of FILE are repeated as needed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    records: Option<u64>,
    /// Appends that may wait for their acknowledgement.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// What an acknowledgement means: sync or async.
    #[arg(long, value_name = "MODE", default_value_t = Flush::Sync)]
    flush: Flush,
    /// Keep data and logs of the nodes, and say where.
    #[arg(long)]
    keep: bool,
    /// Keep them in this new or empty directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How to write the summary.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputKind,
}

/// Runs the command. On every way out the nodes are ended.
///
/// # Errors
/// Something acknowledged is missing, or the cluster did not do its work.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    let mut signals = StopSignals::new().map_err(|error| Failure::io("signals", &error))?;
    let records = Records::open(args.file.as_deref(), args.records, RECORDS).await?;
    let mut workspace = Workspace::fresh(args.data.as_deref(), "demo")?;
    let flush = args.flush.to_string();
    let settings = [("storage.flush", flush.as_str()), ("log.level", "warn")];
    let plan = Plan::create(workspace.path(), Ports::Free, &settings)?;
    // Held here, so that whichever branch ends first, dropping it ends the nodes.
    let mut cluster = Cluster::start(plan)?;
    let result = tokio::select! {
        report = demo(&args, records, &mut cluster) => report,
        signal = signals.next() => Err(Failure::failed(format!("stopped by {signal}"))),
    };
    drop(cluster);
    let keep = args.keep || result.is_err();
    if keep {
        workspace.keep();
        note(format_args!("data and logs of the nodes are in {}", workspace.path().display()));
    }
    let report = result?;
    match args.output {
        OutputKind::Json => out.json(&report)?,
        OutputKind::Table => out.line(&report)?,
    }
    let lost = report.problems_total;
    if lost > 0 {
        workspace.keep();
        let dir = workspace.path().display();
        return Err(Failure::failed(format!("{lost} problems with acknowledged records"))
            .with_hint(format!("data and logs of the nodes are in {dir}")));
    }
    Ok(())
}

/// What the kill of the leader showed.
struct Failover {
    killed: NodeId,
    took: Duration,
    new_term: u64,
}

async fn demo(args: &Args, records: Records, cluster: &mut Cluster) -> Result<Report> {
    let total = records.len();
    let begun = Instant::now();
    note(format_args!("1/6 start three nodes in {}", cluster.plan.dir.display()));
    let client = cluster.ready(CALL_TIMEOUT).await?;
    let name = LogName::new(LOG)?;
    ensure_log(&client, &name).await?;
    let log = client.log(&name);

    note(format_args!(
        "2/6 append {total} records, {} at a time, flush {}",
        args.clients, args.flush
    ));
    let progress = Progress::records(Some(total));
    let load = Arc::new(Load::new(log.clone(), records, progress.clone())?);
    let mut workers = load.start(args.clients);
    let load_begun = Instant::now();
    let failover = tokio::select! {
        failover = fail_over(cluster, &load, &log, &progress) => failover?,
        failure = load::first_failure(&mut workers) => return Err(failure),
    };
    load::join(&mut workers).await?;
    let load_took = load_begun.elapsed();
    progress.clear();

    note("5/6 wait until the three nodes agree, and verify what each holds");
    let end = settle(cluster, &client, &log).await?;
    let mut held = Vec::new();
    for id in cluster.ids() {
        held.push(hold(&log, id).await?);
    }
    let findings = check::check(&load.ledger(), &held);

    note("6/6 stop the nodes and verify their data directories");
    let dirs: Vec<PathBuf> = cluster.plan.nodes.iter().map(|node| node.data_dir.clone()).collect();
    cluster.stop().await?;
    let mut offline_problems = Vec::new();
    for dir in &dirs {
        let found = verify::check(dir)?;
        offline_problems.extend(verify::damage(&found).map(ToString::to_string));
    }
    Ok(Report::new(report::Facts {
        records: total,
        counts: load.counts(),
        findings,
        offline_problems,
        nodes: held.len() as u64,
        end,
        killed_node: failover.killed,
        failover: failover.took,
        new_term: failover.new_term,
        latency: load.percentiles(),
        load_took,
        took: begun.elapsed(),
    }))
}

/// Kills the leader in the middle of the load, waits for the new one, and restarts the old one.
async fn fail_over(
    cluster: &mut Cluster,
    load: &Load,
    log: &ClientLog,
    progress: &Progress,
) -> Result<Failover> {
    let total = load.total();
    reach(load, total / 2).await?;
    let (leader, term) = loop {
        if let Ok(status) = log.status().await {
            break (status.node_id, status.term);
        }
        sleep(POLL).await;
    };
    let pid = cluster.pid(leader).unwrap_or_default();
    progress.note(format_args!(
        "3/6 kill the leader, node {leader} (process {pid}), with SIGKILL after {} records",
        load.acknowledged()
    ));
    // The kill happens between these two: measured from before it, the failover is never flattered.
    let killed_at = Instant::now();
    cluster.kill(leader).await?;
    load.leader_killed(term);
    let taken_over = timeout(PHASE_TIMEOUT, load.new_leader()).await;
    let Ok((at, new_term)) = taken_over else {
        return Err(Failure::failed(format!("no new leader within {PHASE_TIMEOUT:?}")));
    };
    let took = at.saturating_duration_since(killed_at);
    progress.note(format_args!(
        "4/6 a new leader acknowledged in term {new_term} after {}; restart node {leader} under load",
        crate::latency::micros(took.as_micros() as u64)
    ));
    reach(load, total - total / 4).await?;
    cluster.start_node(leader)?;
    Ok(Failover { killed: leader, took, new_term })
}

async fn reach(load: &Load, count: u64) -> Result {
    timeout(PHASE_TIMEOUT, load.reached(count)).await.map_err(|_| {
        let now = load.acknowledged();
        Failure::failed(format!("{now} of {count} records within {PHASE_TIMEOUT:?}"))
    })
}

/// Waits until every node has committed and applied the same end, which covers all that was
/// acknowledged; returns it.
async fn settle(cluster: &mut Cluster, client: &Client, log: &ClientLog) -> Result<u64> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let nodes = cluster.ids().len();
    let mut last = String::new();
    while Instant::now() < deadline {
        cluster.check()?;
        match log.read_barrier().await {
            Err(error) => last = error.to_string(),
            Ok(bound) => {
                let answers = client.statuses().await;
                let ends: Vec<(NodeId, u64)> = answers
                    .iter()
                    .filter_map(|(member, answer)| Some((member.id, answer.as_ref().ok()?)))
                    .flat_map(|(id, logs)| logs.iter().map(move |status| (id, status)))
                    .filter(|(_, status)| status.log == LOG)
                    .map(|(id, status)| (id, status.committed.min(status.applied)))
                    .collect();
                let first = ends.first().map_or(0, |(_, end)| *end);
                let agree = ends.iter().all(|(_, end)| *end == first);
                if ends.len() == nodes && agree && first >= bound {
                    return Ok(first);
                }
                last = format!("committed on each node: {ends:?}, wanted {bound}");
            }
        }
        sleep(POLL).await;
    }
    Err(Failure::failed(format!("the nodes did not agree within {SETTLE_TIMEOUT:?}: {last}")))
}

/// Reads all that one node holds, with a checksum of each record.
async fn hold(log: &ClientLog, node: NodeId) -> Result<Held> {
    let progress = Progress::records(None);
    progress.message(format!("node {node}"));
    let mut held = Held::new(node);
    let read = read_all(log, node, |record| {
        held.push(record.index, record.term, &record.payload);
        progress.add(1);
    });
    read.await.map_err(|failure| failure.while_doing(format_args!("reading node {node}")))?;
    progress.clear();
    Ok(held)
}

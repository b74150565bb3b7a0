//! Kills the leader again and again: how long until appends are acknowledged again, and whether all that was
//! acknowledged is still there.

use std::fmt;
use std::time::{Duration, Instant};

use quorumlog::ByteCount;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::audit::Audit;
use super::quantiles::Sorted;
use super::{NodeArgs, Nodes, leader, size};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::latency::Percentiles;
use crate::output::{Output, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench failovers
  quorumlog bench failovers --kills 10 --output json
  quorumlog bench failovers --set raft.election_timeout_min=300ms --set raft.election_timeout_max=600ms

An outage lasts from the SIGKILL until an append that began after it is acknowledged. bench then
starts the killed node again, and kills the next leader once that node has caught up. At the end it
reads every node through. Exit code 1: an acknowledged record is missing on some node.";

/// How long an outage may last before this is given up.
const OUTAGE_MAX: Duration = Duration::from_secs(60);
/// From the moment that all nodes have caught up until the next kill, so that leases and heartbeats are back to
/// normal. Each pause is longer by a different part of a heartbeat.
const CALM: Duration = Duration::from_millis(400);
const STAGGER_MS: u64 = 37;

/// Measure failovers: kill the leader again and again, with SIGKILL.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::commands::bench) struct Args {
    /// How often to kill the leader.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,
    /// Clients that append meanwhile, each a few hundred times a second.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Payload of one record, 16 bytes or more.
    #[arg(long, value_name = "BYTES", default_value = "1KiB")]
    size: ByteCount,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    kills: usize,
    election_timeout_min_ms: u64,
    election_timeout_max_ms: u64,
    /// Until an append is acknowledged again.
    outage_min_ms: f64,
    outage_p50_ms: f64,
    outage_p99_ms: f64,
    outage_max_ms: f64,
    /// The 99th percentile by the election timeout, which is twice at most if all is well.
    p99_by_election_timeout: f64,
    /// From the start of the killed node until it holds what was committed then.
    catch_up_p50_ms: f64,
    catch_up_max_ms: f64,
    acknowledged: u64,
    /// Appends that broke off, and may have happened.
    unknown: u64,
    refused: u64,
    /// Acknowledged records found, over all nodes.
    verified: u64,
    /// Acknowledged records that are missing, changed or out of order, over all nodes.
    lost: u64,
    latency: Percentiles,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: fmt::Arguments<'_>| {
            writeln!(f, "{name:<18}{value}")
        };
        row(f, "kills", format_args!("{}", self.kills))?;
        let (min, max) = (self.election_timeout_min_ms, self.election_timeout_max_ms);
        row(f, "election timeout", format_args!("random from {min} ms to {max} ms"))?;
        let Self { outage_min_ms, outage_p50_ms, outage_p99_ms, outage_max_ms, .. } = self;
        let outage = format_args!(
            "min {outage_min_ms:.0} ms, p50 {outage_p50_ms:.0} ms, p99 {outage_p99_ms:.0} ms, max {outage_max_ms:.0} ms"
        );
        row(f, "outage", outage)?;
        let factor = self.p99_by_election_timeout;
        row(f, "p99 is", format_args!("{factor:.2} x the election timeout of {max} ms"))?;
        let Self { catch_up_p50_ms, catch_up_max_ms, .. } = self;
        let caught_up = format_args!("p50 {catch_up_p50_ms:.0} ms, max {catch_up_max_ms:.0} ms");
        row(f, "caught up after", caught_up)?;
        let Self { acknowledged, unknown, refused, verified, lost, .. } = self;
        let appends =
            format_args!("{acknowledged} acknowledged, {unknown} unknown, {refused} refused");
        row(f, "appends", appends)?;
        row(f, "read back", format_args!("{verified} of {} on 3 nodes", acknowledged * 3))?;
        write!(f, "{:<18}{lost}", "lost")
    }
}

/// Runs it.
///
/// # Errors
/// No leader comes back, or something acknowledged is missing.
pub(super) async fn run(args: &Args, out: &mut Output) -> Result {
    let mut nodes = Nodes::start(&args.nodes).await?;
    let raft = nodes.settings()?.node.raft;
    let log = nodes.log().await?;
    let audit = Audit::new(log.clone(), size(args.size)?)?;
    let clients = audit.start(args.clients);
    let (mut outages, mut catch_ups) = (Vec::new(), Vec::new());
    for kill in 0..args.kills {
        nodes.agree(&log).await?;
        sleep(CALM + Duration::from_millis(u64::from(kill) * STAGGER_MS % 100)).await;
        let killed = leader(&log).await?.node_id;
        let at = Instant::now();
        audit.outage_begins(at);
        nodes.cluster.kill(killed).await?;
        let Ok(outage) = timeout(OUTAGE_MAX, audit.outage_ended()).await else {
            return Err(Failure::failed(format!("no append is acknowledged after {OUTAGE_MAX:?}")));
        };
        let started = Instant::now();
        nodes.cluster.start_node(killed)?;
        nodes.agree(&log).await?;
        catch_ups.push(started.elapsed());
        note(format_args!(
            "kill {}: node {killed}, {:.0} ms",
            kill + 1,
            outage.as_secs_f64() * 1e3
        ));
        outages.push(outage);
    }
    audit.stop(clients).await?;
    nodes.agree(&log).await?;
    note("reading all three nodes through");
    let findings = audit.verify(&nodes.cluster.ids()).await?;
    nodes.stop().await?;
    let millis = |duration: Duration| duration.as_millis() as u64;
    let (outages, catch_ups) = (Sorted::new(outages), Sorted::new(catch_ups));
    let counts = audit.counts();
    let outage_p99_ms = outages.quantile_ms(0.99);
    let report = Report {
        kills: args.kills as usize,
        election_timeout_min_ms: millis(raft.election_timeout_min),
        election_timeout_max_ms: millis(raft.election_timeout_max),
        outage_min_ms: outages.quantile_ms(0.0),
        outage_p50_ms: outages.quantile_ms(0.5),
        outage_p99_ms,
        outage_max_ms: outages.quantile_ms(1.0),
        p99_by_election_timeout: outage_p99_ms / raft.election_timeout_max.as_secs_f64() / 1e3,
        catch_up_p50_ms: catch_ups.quantile_ms(0.5),
        catch_up_max_ms: catch_ups.quantile_ms(1.0),
        acknowledged: counts.acknowledged,
        unknown: counts.unknown,
        refused: counts.refused,
        verified: findings.verified,
        lost: findings.problems,
        latency: audit.percentiles(),
    };
    match args.nodes.output {
        OutputKind::Json => out.json(&report)?,
        OutputKind::Table => out.line(&report)?,
    }
    match findings.told.first() {
        None => Ok(()),
        Some(problem) => Err(Failure::failed(format!("{} problems: {problem}", report.lost))),
    }
}

//! What logs cost that nobody appends to.

use std::time::Duration;

use quorumlog::{LogName, NodeId, Role};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::cost::Cost;
use super::{NodeArgs, Nodes, SETTLE_TIMEOUT};
use crate::client::{duration, ensure_log};
use crate::cluster::POLL;
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};
use crate::proc::ProcessSample;

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench idle
  quorumlog bench idle --logs 0,100,1000 --duration 30s

CPU is per node, in per cent of one core. Wake-ups are voluntary context switches.";

/// Measure what idle logs cost.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::commands::bench) struct Args {
    /// Number of logs. Give several rising numbers to measure one after the other.
    #[arg(long, value_name = "N", default_value = "0,100", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=1000))]
    logs: Vec<u32>,
    /// How long to watch the nodes.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    duration: Duration,
    /// How long to leave them alone before that.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "3s")]
    warmup: Duration,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// One node.
#[derive(Debug, Serialize)]
struct Row {
    logs: u32,
    node: NodeId,
    /// Logs that it leads, the system log not counted.
    leads: usize,
    #[serde(flatten)]
    cost: Cost,
    threads: u64,
    /// Since the start of the process.
    terms: u64,
}

/// Runs it.
///
/// # Errors
/// The logs cannot be made, or find no leader.
pub(super) async fn run(args: &Args, out: &mut Output) -> Result {
    let mut nodes = Nodes::start(&args.nodes).await?;
    let [cpu, wakeups, memory] = Cost::HEADINGS;
    let mut table = Table::new(&["logs", "node", "leads", cpu, wakeups, memory, "threads"]);
    for &logs in &args.logs {
        for number in 0..logs {
            ensure_log(&nodes.client, &LogName::new(format!("idle-{number}"))?).await?;
        }
        let before = led(&mut nodes, logs as usize).await?;
        note(format_args!("{logs} idle logs"));
        sleep(args.warmup).await;
        let rows = watch(args, &nodes, logs, &before).await?;
        for row in rows {
            if args.nodes.output == OutputKind::Json {
                out.json(&row)?;
            }
            let mut cells = vec![row.logs.to_string(), row.node.to_string(), row.leads.to_string()];
            cells.extend(row.cost.cells());
            cells.push(row.threads.to_string());
            table.row(cells);
        }
        if led(&mut nodes, logs as usize).await?.terms != before.terms {
            note("there were elections meanwhile");
        }
    }
    nodes.stop().await?;
    match args.nodes.output {
        OutputKind::Json => Ok(()),
        OutputKind::Table => out.line(table),
    }
}

/// Who leads.
struct Led {
    /// Logs that each node leads.
    by: Vec<(NodeId, usize)>,
    /// Sum of the terms of all logs.
    terms: u64,
}

/// Waits until so many logs have a leader, and each node knows it.
async fn led(nodes: &mut Nodes, logs: usize) -> Result<Led> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    while Instant::now() < deadline {
        nodes.cluster.check()?;
        let answers = nodes.client.statuses().await;
        let mut led = Led { by: Vec::new(), terms: 0 };
        let mut all = answers.len() == nodes.cluster.ids().len();
        for (member, answer) in &answers {
            // The system log is the first.
            let statuses = answer.as_ref().map_or(&[][..], Vec::as_slice);
            let own = statuses.get(1..).unwrap_or_default();
            all &= own.len() == logs && own.iter().all(|status| status.leader.is_some());
            let leads = own.iter().filter(|status| status.role == Role::Leader);
            led.terms += leads.clone().map(|status| status.term).sum::<u64>();
            led.by.push((member.id, leads.count()));
        }
        if all && led.by.iter().map(|(_, leads)| leads).sum::<usize>() == logs {
            return Ok(led);
        }
        sleep(POLL).await;
    }
    Err(Failure::failed(format!("{logs} logs have no leaders within {SETTLE_TIMEOUT:?}")))
}

async fn watch(args: &Args, nodes: &Nodes, logs: u32, led: &Led) -> Result<Vec<Row>> {
    let sample = || {
        let of = |&(node, leads): &(NodeId, usize)| Ok((node, leads, nodes.cluster.process(node)?));
        led.by.iter().map(of).collect::<Result<Vec<_>>>()
    };
    let (begun, before) = (Instant::now(), sample()?);
    sleep(args.duration).await;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), sample()?);
    let row =
        |(before, after): (&(NodeId, usize, ProcessSample), &(NodeId, usize, ProcessSample))| Row {
            logs,
            node: after.0,
            leads: after.1,
            cost: Cost::between(&before.2, &after.2, seconds),
            threads: after.2.threads,
            terms: led.terms,
        };
    Ok(before.iter().zip(&after).map(row).collect())
}

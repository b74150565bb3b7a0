//! What pulls cost that wait for messages which do not come.

use std::time::Duration;

use quorumlog::NodeId;
use quorumlog_broker::BrokerClient;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::NodeArgs;
use super::cost::Cost;
use crate::client::duration;
use crate::commands::bench::systems::{BrokerNodes, connect};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench polls
  quorumlog bench polls --count 0,1000 --connections 50 --duration 30s

The pulls are like those of RocketMQ's push consumers, which ask again every 15 s. All pull from one
queue that node 1 leads. CPU is per node, in per cent of one core. Compare it with the CPU without
pulls.";

/// The topic that is pulled from.
const TOPIC: &str = "bench";
/// The most that one connection can have under way.
const PULLS_A_CONNECTION_MAX: u32 = 4096;

/// Measure what waiting pulls cost a broker.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::commands::bench) struct Args {
    /// Number of waiting pulls. Give several numbers to measure one after the other.
    #[arg(long, value_name = "N", default_value = "0,1000", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=100_000))]
    count: Vec<u32>,
    /// Connections that they share.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// How long to ask the broker to hold a pull.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "15s")]
    wait: Duration,
    /// How long to watch the nodes.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
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
    polls: u32,
    connections: u32,
    node: NodeId,
    #[serde(flatten)]
    cost: Cost,
}

/// Runs it.
///
/// # Errors
/// The brokers do not start, or refuse a pull.
pub(super) async fn run(args: &Args, out: &mut Output) -> Result {
    if args.count.iter().any(|count| count.div_ceil(args.connections) > PULLS_A_CONNECTION_MAX) {
        let message = format!("a connection takes {PULLS_A_CONNECTION_MAX} pulls at once");
        return Err(Failure::usage(message));
    }
    let settings = args.nodes.settings()?;
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut nodes = BrokerNodes::start(args.nodes.data.as_deref(), &settings, 1).await?;
    let addrs = nodes.topic(TOPIC, 1, 1).await?;
    let addr = *addrs.first().ok_or_else(|| Failure::failed("nobody leads"))?;
    let [cpu, wakeups, memory] = Cost::HEADINGS;
    let mut table = Table::new(&["polls", "connections", "node", cpu, wakeups, memory]);
    for &count in &args.count {
        let mut clients = Vec::new();
        for _ in 0..args.connections.min(count) {
            clients.push(connect(addr).await?);
        }
        note(format_args!("{count} pulls over {} connections", clients.len()));
        let mut pulls = JoinSet::new();
        for number in 0..count as usize {
            pulls.spawn(pull(clients[number % clients.len()].clone(), args.wait));
        }
        let rows = tokio::select! {
            rows = watch(args, &mut nodes, count) => rows?,
            // They end only with an error.
            Some(ended) = pulls.join_next() => {
                let ended = ended.unwrap_or_else(|error| Failure::failed(error.to_string()));
                return Err(ended);
            }
        };
        for row in rows {
            if args.nodes.output == OutputKind::Json {
                out.json(&row)?;
            }
            let mut cells =
                vec![row.polls.to_string(), row.connections.to_string(), row.node.to_string()];
            cells.extend(row.cost.cells());
            table.row(cells);
        }
    }
    nodes.stop().await?;
    match args.nodes.output {
        OutputKind::Json => Ok(()),
        OutputKind::Table => out.line(table),
    }
}

/// Pulls from the end of the queue again and again.
async fn pull(client: BrokerClient, wait: Duration) -> Failure {
    loop {
        match client.pull((TOPIC, 0), 0, 32, wait).await {
            Ok(found) if found.messages.is_empty() => {}
            Ok(_) => return Failure::failed("a message came, and nobody sent one"),
            Err(error) => return Failure::io("pull", &error),
        }
    }
}

async fn watch(args: &Args, nodes: &mut BrokerNodes, polls: u32) -> Result<Vec<Row>> {
    sleep(args.warmup).await;
    let (begun, before) = (Instant::now(), nodes.processes()?);
    sleep(args.duration).await;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), nodes.processes()?);
    nodes.cluster.check()?;
    let rows = before.iter().zip(&after).map(|((node, before), (_, after))| Row {
        polls,
        connections: args.connections.min(polls),
        node: *node,
        cost: Cost::between(before, after, seconds),
    });
    Ok(rows.collect())
}

//! How soon a node with a large log serves again.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use quorumlog::client::{Client, ClientConfig};
use quorumlog::{ByteCount, LogName, NodeId};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use tokio::time::sleep;

use super::fill::Target;
use super::quantiles::Sorted;
use super::{NodeArgs, Nodes, SETTLE_TIMEOUT, gib, leader};
use crate::commands::bench::CALL_TIMEOUT;
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench restart
  quorumlog bench restart --bytes 10GiB --size 1KiB,64KiB --cold --data /var/tmp/restart

bench kills a follower with SIGKILL and starts it again. Times count from the start of its process.
The node serves once it answers a read of the oldest record. It has caught up once it has committed
all that was committed before. Then bench kills all three nodes and starts them together. Appends
count until one is acknowledged, election included. --cold drops the nodes' files from the page
cache first. Each node holds all bytes, so this needs three times as much disk.";

/// How often a node is asked.
const POLL: Duration = Duration::from_millis(2);

/// Measure restarts of a node with a large log.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::commands::bench) struct Args {
    /// Payload bytes of the log.
    #[arg(long, value_name = "BYTES", default_value = "2GiB")]
    bytes: ByteCount,
    /// Payload of one record.
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_delimiter = ',')]
    size: Vec<ByteCount>,
    /// How often to restart.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Read from the disk, not from the page cache.
    #[arg(long)]
    cold: bool,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Of one size of records; times in milliseconds.
#[derive(Debug, Serialize)]
struct Row {
    size: u64,
    /// Of the log on a node's disk.
    disk_bytes: u64,
    cold: bool,
    repetitions: u32,
    fill_s: f64,
    serving_p50_ms: f64,
    serving_max_ms: f64,
    caught_up_p50_ms: f64,
    caught_up_max_ms: f64,
    all_append_p50_ms: f64,
    all_append_max_ms: f64,
}

/// Runs it.
///
/// # Errors
/// The log cannot be filled, or a node does not come back.
pub(super) async fn run(args: &Args, out: &mut Output) -> Result {
    let mut table = Table::new(&[
        "size",
        "log GiB",
        "cold",
        "fill s",
        "serving p50",
        "max",
        "caught up p50",
        "max",
        "all: append p50",
        "max",
    ]);
    for &size in &args.size {
        let row = measure(args, size).await?;
        if args.nodes.output == OutputKind::Json {
            out.json(&row)?;
        }
        let millis = |ms: f64| format!("{ms:.0} ms");
        table.row(vec![
            row.size.to_string(),
            format!("{:.2}", gib(row.disk_bytes)),
            if row.cold { "yes" } else { "no" }.to_owned(),
            format!("{:.0}", row.fill_s),
            millis(row.serving_p50_ms),
            millis(row.serving_max_ms),
            millis(row.caught_up_p50_ms),
            millis(row.caught_up_max_ms),
            millis(row.all_append_p50_ms),
            millis(row.all_append_max_ms),
        ]);
    }
    match args.nodes.output {
        OutputKind::Json => Ok(()),
        OutputKind::Table => out.line(table),
    }
}

async fn measure(args: &Args, size: ByteCount) -> Result<Row> {
    let mut nodes = Nodes::start(&args.nodes).await?;
    let log = nodes.log().await?;
    note(format_args!("filling with {} of records of {size}", args.bytes));
    let begun = Instant::now();
    Target::Remote(log.clone()).fill(args.bytes, size).await?;
    nodes.agree(&log).await?;
    let fill_s = begun.elapsed().as_secs_f64();
    let (mut serving, mut caught_up, mut all_append) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..args.repeat {
        let committed = nodes.agree(&log).await?;
        let status = leader(&log).await?;
        let followers = nodes.cluster.ids().into_iter().filter(|id| *id != status.node_id);
        let follower = followers.min().ok_or_else(|| Failure::failed("there is no follower"))?;
        let times = restart(args, &mut nodes, follower, status.begin, committed).await?;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        note(format_args!(
            "{}: node {follower} serves after {:.0} ms, has caught up after {:.0} ms",
            repetition + 1,
            millis(times.0),
            millis(times.1)
        ));
        serving.push(times.0);
        caught_up.push(times.1);
    }
    for _ in 0..args.repeat {
        nodes.agree(&log).await?;
        all_append.push(restart_all(args, &mut nodes).await?);
    }
    let disk_bytes = leader(&log).await?.disk_bytes;
    nodes.stop().await?;
    let (serving, caught_up) = (Sorted::new(serving), Sorted::new(caught_up));
    let all_append = Sorted::new(all_append);
    Ok(Row {
        size: size.bytes(),
        disk_bytes,
        cold: args.cold,
        repetitions: args.repeat,
        fill_s,
        serving_p50_ms: serving.quantile_ms(0.5),
        serving_max_ms: serving.quantile_ms(1.0),
        caught_up_p50_ms: caught_up.quantile_ms(0.5),
        caught_up_max_ms: caught_up.quantile_ms(1.0),
        all_append_p50_ms: all_append.quantile_ms(0.5),
        all_append_max_ms: all_append.quantile_ms(1.0),
    })
}

/// Until the node serves the record at `oldest`, and until it has committed up to `committed`.
async fn restart(
    args: &Args,
    nodes: &mut Nodes,
    node: NodeId,
    oldest: u64,
    committed: u64,
) -> Result<(Duration, Duration)> {
    nodes.cluster.kill(node).await?;
    if args.cold {
        drop_from_cache(nodes, &[node])?;
    }
    let planned = nodes.cluster.plan.nodes.iter().find(|planned| planned.member.id == node);
    let addr = planned.map(|planned| planned.member.client_addr.clone()).unwrap_or_default();
    let name = LogName::new(super::LOG)?;
    let begun = Instant::now();
    nodes.cluster.start_node(node)?;
    let client = loop {
        // Anew each time: a client waits between its attempts.
        match tokio::net::TcpStream::connect(&addr).await {
            Ok(_) => break super::connect(vec![addr]).await?,
            Err(_) => wait(begun, nodes).await?,
        }
    };
    while client.log(&name).read_from(node, oldest, 1).await.is_err() {
        wait(begun, nodes).await?;
    }
    let serving = begun.elapsed();
    while client
        .log(&name)
        .read_from(node, committed.saturating_sub(1), 1)
        .await
        .map_or(true, |records| records.is_empty())
    {
        wait(begun, nodes).await?;
    }
    Ok((serving, begun.elapsed()))
}

/// Until an append is acknowledged by a cluster that was killed as a whole.
async fn restart_all(args: &Args, nodes: &mut Nodes) -> Result<Duration> {
    let ids = nodes.cluster.ids();
    for &id in &ids {
        nodes.cluster.kill(id).await?;
    }
    if args.cold {
        drop_from_cache(nodes, &ids)?;
    }
    let begun = Instant::now();
    for &id in &ids {
        nodes.cluster.start_node(id)?;
    }
    let name = LogName::new(super::LOG)?;
    let addrs = nodes.cluster.plan.client_addrs();
    let mut config = ClientConfig::new(&addrs);
    config.timeout = CALL_TIMEOUT;
    loop {
        if let Ok(client) = Client::connect(config.clone()).await
            && client.log(&name).append("x").await.is_ok()
        {
            return Ok(begun.elapsed());
        }
        wait(begun, nodes).await?;
    }
}

async fn wait(begun: Instant, nodes: &mut Nodes) -> Result {
    nodes.cluster.check()?;
    if begun.elapsed() > SETTLE_TIMEOUT {
        return Err(Failure::failed(format!("not back within {SETTLE_TIMEOUT:?}")));
    }
    sleep(POLL).await;
    Ok(())
}

/// Makes the system drop the nodes' files from the page cache. Dirty pages stay.
fn drop_from_cache(nodes: &Nodes, ids: &[NodeId]) -> Result {
    let planned = nodes.cluster.plan.nodes.iter();
    for node in planned.filter(|planned| ids.contains(&planned.member.id)) {
        drop_directory(&node.data_dir)
            .map_err(|error| Failure::io("cannot drop files from the page cache", &error))?;
    }
    Ok(())
}

fn drop_directory(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_directory(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

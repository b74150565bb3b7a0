//! How fast a subscriber gets what lies in sealed segments.

use std::time::Instant;

use quorumlog::{ByteCount, LogName, Start};
use serde::Serialize;

use super::fill::Target;
use super::reader::Reader;
use super::{NodeArgs, Nodes, connect, gib};
use crate::commands::bench::row::median;
use crate::commands::bench::systems::{ClientKind, Embedded};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};
use crate::proc::ProcessSample;

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench reads
  quorumlog bench reads --client embedded --bytes 4GiB --size 1KiB,64KiB

bench fills a log. Then one subscriber reads it from the beginning, in the process of a node or over
TCP, up to the given number of payload bytes. The newest segment and what the node has in memory do
not count. The subscriber verifies the checksums of all records. The data is in the page cache.
Cores are those of the subscriber's process, and for a remote one also those of the node.";

/// What is written behind the bytes that are read: a segment that is not sealed, and the tail in memory.
const BEHIND: u64 = 192 << 20;

/// Measure reads by a subscriber that is far behind.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::commands::bench) struct Args {
    /// Payload bytes to read.
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    bytes: ByteCount,
    /// Payload of one record.
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_delimiter = ',')]
    size: Vec<ByteCount>,
    /// Where the subscriber runs. A list measures both.
    #[arg(
        long,
        value_enum,
        value_name = "WHERE",
        default_value = "embedded,remote",
        value_delimiter = ','
    )]
    client: Vec<ClientKind>,
    /// How often to read; the results are medians.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Serialize)]
struct Row {
    client: ClientKind,
    size: u64,
    bytes: u64,
    repetitions: u32,
    /// Payload, in units of 10^9 bytes a second.
    gb_s: f64,
    records_s: f64,
    /// Cores that the process of the subscriber kept busy, and the node's where that is another.
    cores: f64,
    node_cores: Option<f64>,
}

/// One reading of the log.
struct Pass {
    gb_s: f64,
    records_s: f64,
    cores: f64,
    node_cores: Option<f64>,
}

/// Runs it.
///
/// # Errors
/// The nodes do not start, or the log cannot be read.
pub(super) async fn run(args: &Args, out: &mut Output) -> Result {
    let mut table =
        Table::new(&["client", "size", "read GiB", "GB/s", "records/s", "cores", "node cores"]);
    for &size in &args.size {
        for &client in &args.client {
            note(format_args!("{client:?} subscriber, records of {size}"));
            let passes = match client {
                ClientKind::Embedded => Box::pin(embedded(args, size)).await?,
                ClientKind::Remote => remote(args, size).await?,
            };
            let of = |field: fn(&Pass) -> f64| median(passes.iter().map(field).collect());
            let node_cores: Option<Vec<f64>> = passes.iter().map(|pass| pass.node_cores).collect();
            let row = Row {
                client,
                size: size.bytes(),
                bytes: args.bytes.bytes(),
                repetitions: args.repeat,
                gb_s: of(|pass| pass.gb_s),
                records_s: of(|pass| pass.records_s),
                cores: of(|pass| pass.cores),
                node_cores: node_cores.map(median),
            };
            if args.nodes.output == OutputKind::Json {
                out.json(&row)?;
            }
            table.row(vec![
                format!("{client:?}").to_lowercase(),
                row.size.to_string(),
                format!("{:.1}", gib(row.bytes)),
                format!("{:.2}", row.gb_s),
                format!("{:.0}", row.records_s),
                format!("{:.2}", row.cores),
                row.node_cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}")),
            ]);
        }
    }
    match args.nodes.output {
        OutputKind::Json => Ok(()),
        OutputKind::Table => out.line(table),
    }
}

fn filled(args: &Args) -> ByteCount {
    ByteCount::new(args.bytes.bytes() + BEHIND)
}

async fn embedded(args: &Args, size: ByteCount) -> Result<Vec<Pass>> {
    let system = Embedded::open(args.nodes.data.as_deref(), &args.nodes.settings()?).await?;
    let log = system.log(&LogName::new(super::LOG)?).await?;
    Target::Own(log.clone()).fill(filled(args), size).await?;
    let mut passes = Vec::new();
    for _ in 0..args.repeat {
        let subscription = Reader::Own(log.subscribe(Start::Begin));
        passes.push(pass(subscription, args.bytes.bytes(), None).await?);
    }
    system.end().await?;
    Ok(passes)
}

async fn remote(args: &Args, size: ByteCount) -> Result<Vec<Pass>> {
    let mut nodes = Nodes::start(&args.nodes).await?;
    let log = nodes.log().await?;
    Target::Remote(log.clone()).fill(filled(args), size).await?;
    nodes.agree(&log).await?;
    let leader = super::leader(&log).await?.node_id;
    let client = connect(nodes.cluster.plan.client_addrs()).await?;
    let mut passes = Vec::new();
    for _ in 0..args.repeat {
        let subscription = client.log(log.name()).subscribe(Start::Begin);
        let server = nodes.cluster.pid(leader);
        passes.push(pass(Reader::Remote(subscription), args.bytes.bytes(), server).await?);
    }
    nodes.stop().await?;
    Ok(passes)
}

/// Reads so many bytes of payload.
async fn pass(mut reader: Reader, bytes: u64, server: Option<u32>) -> Result<Pass> {
    let own = || ProcessSample::of(std::process::id());
    let (begun, before) = (Instant::now(), own().zip(server.map(ProcessSample::of)));
    let before_alone = own();
    let (mut read, mut records) = (0_u64, 0_u64);
    while read < bytes {
        match reader.next().await {
            Some(record) => read += record?.payload.len() as u64,
            None => return Err(Failure::failed(format!("the log has ended after {read} bytes"))),
        }
        records += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cores =
        |then: ProcessSample, now: ProcessSample| now.since(&then).cpu_us as f64 / 1e6 / seconds;
    let node_cores = before.and_then(|(_, node)| {
        let now = server.and_then(ProcessSample::of)?;
        Some(cores(node?, now))
    });
    Ok(Pass {
        gb_s: read as f64 / 1e9 / seconds,
        records_s: records as f64 / seconds,
        cores: before_alone.zip(own()).map_or(0.0, |(then, now)| cores(then, now)),
        node_cores,
    })
}

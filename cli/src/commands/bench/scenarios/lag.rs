//! How far a subscriber of the live tail is behind the commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use quorumlog::client::ClientLog;
use quorumlog::{AppendError, Appended, ByteCount, CommitLog, LogName, Start};
use serde::Serialize;
use tokio::task::JoinSet;

use super::reader::Reader;
use super::{NodeArgs, Nodes, connect, size};
use crate::client::duration;
use crate::commands::bench::load::joined;
use crate::commands::bench::pace::{self, Schedule};
use crate::commands::bench::systems::{ClientKind, Embedded};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::latency::{LatencyRecorder, Percentiles, micros};
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog bench lag
  quorumlog bench lag --client remote --rate 1000,20000 --flush async

Appends come on schedule. \"Behind\" is the time from the moment that the caller of an append knows of
the commit until the subscriber has the record, or zero if the subscriber has it first. Both run in
one process, each with its own connection if they are remote. \"Seen\" is the time from the append
until the subscriber has the record.";

/// Measure how soon a subscriber sees a committed record.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::commands::bench) struct Args {
    /// Appends a second, on schedule.
    #[arg(long, value_name = "N", default_value = "500,5000", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Vec<u64>,
    /// Payload of one record, 8 bytes or more.
    #[arg(long, value_name = "BYTES", default_value = "1KiB")]
    size: ByteCount,
    /// Where the caller and the subscriber run. A list measures both.
    #[arg(
        long,
        value_enum,
        value_name = "WHERE",
        default_value = "embedded,remote",
        value_delimiter = ','
    )]
    client: Vec<ClientKind>,
    /// How long each round takes.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    duration: Duration,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Serialize)]
struct Row {
    client: ClientKind,
    rate: u64,
    size: u64,
    /// Of the subscriber behind the acknowledgement.
    behind: Percentiles,
    /// From the append to the acknowledgement, and to the subscriber.
    acknowledged: Percentiles,
    seen: Percentiles,
}

/// Runs it.
///
/// # Errors
/// The nodes do not start, or an append fails.
pub(super) async fn run(args: &Args, out: &mut Output) -> Result {
    let mut table = Table::new(&[
        "client",
        "rate",
        "behind p50",
        "p99",
        "p99.9",
        "ack p50",
        "ack p99",
        "seen p50",
        "seen p99",
    ]);
    for &client in &args.client {
        let rows = match client {
            ClientKind::Embedded => Box::pin(embedded(args)).await?,
            ClientKind::Remote => remote(args).await?,
        };
        for row in rows {
            if args.nodes.output == OutputKind::Json {
                out.json(&row)?;
            }
            let Row { behind, acknowledged, seen, .. } = &row;
            let mut cells = vec![format!("{client:?}").to_lowercase(), row.rate.to_string()];
            let values = [
                behind.p50_us,
                behind.p99_us,
                behind.p999_us,
                acknowledged.p50_us,
                acknowledged.p99_us,
                seen.p50_us,
                seen.p99_us,
            ];
            cells.extend(values.map(micros));
            table.row(cells);
        }
    }
    match args.nodes.output {
        OutputKind::Json => Ok(()),
        OutputKind::Table => out.line(table),
    }
}

async fn embedded(args: &Args) -> Result<Vec<Row>> {
    let system = Embedded::open(args.nodes.data.as_deref(), &args.nodes.settings()?).await?;
    let log = system.log(&LogName::new(super::LOG)?).await?;
    let mut rows = Vec::new();
    for &rate in &args.rate {
        note(format_args!("embedded, {rate} appends a second"));
        let reader = Reader::Own(log.subscribe(Start::Committed));
        rows.push(round(args, ClientKind::Embedded, rate, Caller::Own(log.clone()), reader).await?);
    }
    system.end().await?;
    Ok(rows)
}

async fn remote(args: &Args) -> Result<Vec<Row>> {
    let nodes = Nodes::start(&args.nodes).await?;
    let log = nodes.log().await?;
    let other = connect(nodes.cluster.plan.client_addrs()).await?;
    let mut rows = Vec::new();
    for &rate in &args.rate {
        note(format_args!("remote, {rate} appends a second"));
        let reader = Reader::Remote(other.log(log.name()).subscribe(Start::Committed));
        let caller = Caller::Remote(log.clone());
        rows.push(round(args, ClientKind::Remote, rate, caller, reader).await?);
    }
    nodes.stop().await?;
    Ok(rows)
}

#[derive(Clone)]
enum Caller {
    Own(CommitLog),
    Remote(ClientLog),
}

impl Caller {
    async fn append(&self, payload: Bytes) -> std::result::Result<Appended, AppendError> {
        match self {
            Self::Own(log) => log.append(payload).await,
            Self::Remote(log) => log.append(payload).await,
        }
    }
}

/// Nanoseconds since the begin at which each append was due, acknowledged and seen; 0: not yet.
struct Moments {
    begin: Instant,
    acknowledged: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
}

impl Moments {
    fn new(count: u64) -> Self {
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { begin: Instant::now(), acknowledged: zeros(), seen: zeros() }
    }

    fn note(&self, of: &[AtomicU64], number: u64) {
        if let Some(moment) = of.get(number as usize) {
            moment.store(self.begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

/// The records that open a subscription's connection do not count.
const SKIPPED: u64 = 50;

async fn round(
    args: &Args,
    client: ClientKind,
    rate: u64,
    caller: Caller,
    mut reader: Reader,
) -> Result<Row> {
    let filler = Bytes::from(vec![b'x'; size(args.size)?.saturating_sub(8)]);
    let payload = move |number: u64| {
        let mut payload = BytesMut::with_capacity(8 + filler.len());
        payload.put_u64_le(number);
        payload.put_slice(&filler);
        payload.freeze()
    };
    // The stream of a remote subscriber is open once it has seen a record.
    while tokio::time::timeout(Duration::from_millis(100), reader.next()).await.is_err() {
        caller.append(payload(u64::MAX)).await?;
    }
    let count = rate * args.duration.as_millis() as u64 / 1000;
    let moments = Arc::new(Moments::new(count));
    let schedule = Schedule::new(moments.begin, rate);
    let seeing = tokio::spawn(see(reader, Arc::clone(&moments), count));
    let mut due = pace::keep(schedule, count)?;
    let mut tasks = JoinSet::new();
    for number in 0..count {
        if due.recv().await.is_none() {
            return Err(Failure::failed("the schedule ended early"));
        }
        let (caller, moments, payload) = (caller.clone(), Arc::clone(&moments), payload(number));
        tasks.spawn(async move {
            caller.append(payload).await?;
            moments.note(&moments.acknowledged, number);
            Ok::<(), Failure>(())
        });
        while let Some(ended) = tasks.try_join_next() {
            joined(ended)?;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        joined(ended)?;
    }
    joined(seeing.await)?;
    found(args, client, rate, schedule, &moments)
}

async fn see(mut reader: Reader, moments: Arc<Moments>, count: u64) -> Result {
    let mut left = count;
    while left > 0 {
        let record = reader.next().await.ok_or_else(|| Failure::failed("the log has ended"))??;
        let number =
            record.payload.first_chunk().map_or(u64::MAX, |head| u64::from_le_bytes(*head));
        if number < count {
            moments.note(&moments.seen, number);
            left -= 1;
        }
    }
    Ok(())
}

fn found(
    args: &Args,
    client: ClientKind,
    rate: u64,
    schedule: Schedule,
    moments: &Moments,
) -> Result<Row> {
    let recorder = LatencyRecorder::new;
    let (behind, acknowledged, seen) = (recorder()?, recorder()?, recorder()?);
    let pairs = moments.acknowledged.iter().zip(&moments.seen);
    for (number, (ack, saw)) in (0..).zip(pairs).skip(SKIPPED as usize) {
        let due = schedule.due(number).saturating_duration_since(moments.begin);
        let at = |moment: &AtomicU64| Duration::from_nanos(moment.load(Ordering::Relaxed));
        behind.record(0, at(saw).saturating_sub(at(ack)));
        acknowledged.record(0, at(ack).saturating_sub(due));
        seen.record(0, at(saw).saturating_sub(due));
    }
    Ok(Row {
        client,
        rate,
        size: args.size.bytes(),
        behind: behind.percentiles(),
        acknowledged: acknowledged.percentiles(),
        seen: seen.percentiles(),
    })
}

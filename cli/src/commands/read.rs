//! `read`: committed records, up to what is committed now.

use quorumlog::client::ClientLog;
use quorumlog::{LogName, NodeId, ReadError};

use crate::client::{ClientArgs, log_name};
use crate::commands::records::{self, Format};
use crate::failure::Result;
use crate::output::Output;

/// Payload bytes asked for in one call.
const READ_BYTES: usize = 1 << 20;

const AFTER_HELP: &str = "\
Examples:
  quorumlog read orders
  quorumlog read orders --from 1000 --max 10 --format json
  quorumlog read orders --format raw > orders.bin
  quorumlog read orders --from-node 3 --format hex

Indexes increase and have gaps, since Raft's own entries take some.";

/// Read committed records.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Name of the log.
    #[arg(value_parser = log_name)]
    log: LogName,
    /// First index to read; the oldest in the log if not given.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Stop after this many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// How to write records.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// With --format text: the index and a tab before each payload.
    #[arg(long)]
    index: bool,
    /// Read what this node has committed, instead of asking the leader.
    #[arg(long, value_name = "ID")]
    from_node: Option<NodeId>,
    #[command(flatten)]
    cluster: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// The log cannot be read, or does not hold the index asked for.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    let client = args.cluster.connect().await?;
    let log = client.log(&args.log);
    // Without the end known before, a reader of a busy log would never come to an end.
    let end = match args.from_node {
        None => Some(log.read_barrier().await?),
        Some(_) => None,
    };
    let mut left = args.max.unwrap_or(u64::MAX);
    let mut from = args.from.unwrap_or(0);
    let mut trimmed_is_fine = args.from.is_none();
    while left > 0 && end.is_none_or(|end| from < end) {
        let read = match args.from_node {
            Some(node) => log.read_from(node, from, READ_BYTES).await,
            None => log.read(from, READ_BYTES).await,
        };
        let records = match read {
            Err(ReadError::Trimmed { begin, .. }) if trimmed_is_fine && begin > from => {
                from = begin;
                continue;
            }
            records => records?,
        };
        trimmed_is_fine = false;
        let Some(last) = records.last() else { break };
        from = last.index + 1;
        for record in &records {
            if left == 0 || end.is_some_and(|end| record.index >= end) {
                return Ok(());
            }
            records::write(out, record, args.format, args.index)?;
            left -= 1;
        }
    }
    Ok(())
}

/// Reads a whole log from one node and hands each record on.
///
/// # Errors
/// The node cannot be read.
pub(crate) async fn read_all(
    log: &ClientLog,
    node: NodeId,
    mut take: impl FnMut(quorumlog::Record),
) -> Result {
    let mut from = 0;
    loop {
        let records = match log.read_from(node, from, READ_BYTES).await {
            Err(ReadError::Trimmed { begin, .. }) if begin > from => {
                from = begin;
                continue;
            }
            records => records?,
        };
        let Some(last) = records.last() else { return Ok(()) };
        from = last.index + 1;
        records.into_iter().for_each(&mut take);
    }
}

//! `tail`: records as they are committed.

use std::pin::pin;

use quorumlog::{LogName, ReadError, Start};

use crate::client::{ClientArgs, log_name};
use crate::commands::records::{self, Format};
use crate::failure::{Failure, Result};
use crate::output::{Output, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog tail orders
  quorumlog tail orders --begin --format json
  quorumlog tail orders --from 1000 --max 10

Follows the log until you interrupt it, through failures of nodes. `quorumlog read` ends by itself.";

/// Follow a log: records as they are committed.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Name of the log.
    #[arg(value_parser = log_name)]
    log: LogName,
    /// Begin with this index.
    #[arg(long, value_name = "INDEX", conflicts_with = "begin")]
    from: Option<u64>,
    /// Begin with the oldest record in the log.
    #[arg(long)]
    begin: bool,
    /// Stop after this many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// How to write records.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// With --format text: the index and a tab before each payload.
    #[arg(long)]
    index: bool,
    #[command(flatten)]
    cluster: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// The log cannot be read, or ends.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    let client = args.cluster.connect().await?;
    let start = match args.from {
        Some(index) => Start::At(index),
        None if args.begin => Start::Begin,
        None => Start::Committed,
    };
    let mut records = client.log(&args.log).subscribe(start);
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let mut next = pin!(records.next());
        // While records come as fast as they are written, they share writes to the pipe.
        let next = tokio::select! {
            biased;
            next = &mut next => next,
            () = std::future::ready(()) => {
                out.flush()?;
                next.await
            }
        };
        match next {
            Some(Ok(record)) => {
                records::write(out, &record, args.format, args.index)?;
                left -= 1;
            }
            // The subscription goes on looking for a node.
            Some(Err(error @ (ReadError::Unreachable { .. } | ReadError::NotLeader { .. }))) => {
                note(format_args!("waiting: {error}"));
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Failure::failed(format!("the log {} has ended", args.log))),
        }
    }
    Ok(())
}

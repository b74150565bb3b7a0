//! `accept-loss`: has a stopped node trust its logs.

use std::path::PathBuf;

use quorumlog::offline;

use crate::commands::inspect::log_label;
use crate::failure::Result;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  quorumlog accept-loss /var/lib/quorumlog

With `storage.flush = async` a power cut takes what a node had not flushed. Until another node has
brought it up to date, its vote counts only together with those of trusted nodes. If the nodes that
have the rest never come back, the log stays without a leader. In that case stop the remaining
nodes, run this on their data directories, and start them again. You lose what only the missing
nodes had.

The same goes for a node on which you have put back an older copy of its data: the others refuse it
unless you run this.
Exit code 1: a process uses the directory.";

/// Trust the logs of a stopped node, even if a power cut or an older copy of its data may have cost them records.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The data directory.
    dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A process uses the directory, or it cannot be read or written.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result {
    let accepted = offline::accept_loss(&args.dir)?;
    if accepted.is_empty() {
        return out.line(format_args!("all logs are trusted already"));
    }
    for log in accepted {
        out.line(format_args!("log {} is trusted now", log_label(log)))?;
    }
    Ok(())
}

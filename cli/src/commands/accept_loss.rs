//! `accept-loss`: has a node that does not run take its logs for whole.

use std::path::PathBuf;

use quorumlog::offline;

use crate::commands::inspect::log_label;
use crate::failure::Result;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  quorumlog accept-loss /var/lib/quorumlog

With `storage.flush = async` a power cut takes what a node had not flushed. Until another node has brought it up to
date, it helps to elect a leader only together with trusted nodes. If the nodes that have the rest never come back, the
log stays without a leader. Then stop the nodes that are left, run this on their data directories, and start them:
what only the missing nodes had is lost.
Exit code 1: a process uses the directory.";

/// Trust the logs of a node that does not run, though a power cut may have cost them records.
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
        return out.line(format_args!("no log is in doubt"));
    }
    for log in accepted {
        out.line(format_args!("log {} counts as whole", log_label(log)))?;
    }
    Ok(())
}

//! `leader`: who leads.

use quorumlog::{LogName, NodeId};

use crate::client::{ClientArgs, log_name};
use crate::failure::Result;
use crate::output::{Output, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog leader transfer --to 2
  quorumlog leader transfer --log orders --to 3";

/// Hand leadership over.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Hand the leadership of one log, or of all, to a voter.
    #[command(after_help = AFTER_HELP)]
    Transfer {
        /// The log; all logs if not given.
        #[arg(long, value_parser = log_name)]
        log: Option<LogName>,
        /// The node to lead from now on.
        #[arg(long, value_name = "ID")]
        to: NodeId,
        #[command(flatten)]
        cluster: ClientArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The cluster refuses, or cannot be reached.
pub(crate) async fn run(args: Args, _out: &mut Output) -> Result {
    let Command::Transfer { log, to, cluster } = args.command;
    cluster.connect().await?.transfer_leadership(log.as_ref(), to).await?;
    match log {
        Some(log) => note(format_args!("node {to} leads {log}")),
        None => note(format_args!("node {to} leads all logs")),
    }
    Ok(())
}

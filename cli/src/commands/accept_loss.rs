//! `accept-loss`: has a stopped node trust its logs.

use std::path::PathBuf;

use quorumlog::offline::{self, AcceptedLoss};

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

The others also refuse an older copy of a node's data: a backup that was put back, or data beside which
a copy has run that came later. If other nodes are well, remove the node and add it again with an empty
directory instead. This command makes the copy count as the newest. Use it where all nodes have to go
back to copies: what one copy has and the others lack is lost.
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
    report(&accepted).into_iter().try_for_each(|line| out.line(format_args!("{line}")))
}

/// What was the case, and what is now.
fn report(accepted: &AcceptedLoss) -> Vec<String> {
    let AcceptedLoss { node, logs, outdated } = accepted;
    let trusted = logs.iter().map(|log| format!("log {} is trusted now", log_label(*log)));
    let mut lines: Vec<_> = trusted.collect();
    if logs.is_empty() {
        lines.push("no log is known to have lost anything in a power cut".to_owned());
    }
    if *outdated {
        lines.push(format!(
            "the other nodes refused this data: newer data of node {node} has taken part in the cluster"
        ));
        lines.push(format!(
            "if you start node {node} with this data now, it is let in, and what only the newer data had is lost; if the \
             other nodes are well, remove node {node} instead, and add it again with an empty directory"
        ));
    }
    lines.push(format!("this data counts as the newest of node {node} from now on"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It said that all logs are trusted already.
    #[test]
    fn data_that_was_refused_as_older_is_told_of_with_what_to_do() {
        let accepted = AcceptedLoss { node: 2, logs: Vec::new(), outdated: true };
        let told = report(&accepted).join("\n");
        assert!(told.contains("newer data of node 2 has taken part"), "{told}");
        assert!(told.contains("remove node 2 instead"), "{told}");
        let whole = report(&AcceptedLoss { outdated: false, ..accepted }).join("\n");
        assert!(!whole.contains("refused") && whole.ends_with("from now on"), "{whole}");
    }
}

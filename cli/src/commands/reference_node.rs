//! `reference-node`: one node of the reference that `bench --reference` measures. Not for use by hand.

use std::io::Read;
use std::path::PathBuf;

use quorumlog::Flush;

use crate::client::host_port;
use crate::failure::{Failure, Result};

/// Length of a node's file.
const JOURNAL_BYTES: u64 = 256 << 20;

const AFTER_HELP: &str = "\
Examples:
  quorumlog reference-node --listen 127.0.0.1:21001 --data node-1 \\
    --follower 127.0.0.1:21002 --follower 127.0.0.1:21003

It runs until its standard input ends. The data is no log and is lost on purpose.";

/// Run one node of the reference that `bench --reference` measures.
#[derive(Debug, clap::Args)]
#[command(hide = true, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Address to listen on.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    listen: String,
    /// Where a follower listens, on the leader; two of them.
    #[arg(long = "follower", value_name = "HOST:PORT", value_parser = host_port)]
    followers: Vec<String>,
    /// An existing directory for its file.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// sync or async.
    #[arg(long, value_name = "MODE", default_value_t = Flush::Sync)]
    flush: Flush,
}

/// Runs the command.
///
/// # Errors
/// The node cannot start.
pub(crate) fn run(args: Args) -> Result {
    let failed = |error: std::io::Error| Failure::io("the reference node", &error);
    let watch = || {
        let mut scratch = [0; 64];
        while std::io::stdin().read(&mut scratch).is_ok_and(|read| read > 0) {}
        // Nothing is worth saving.
        std::process::exit(0);
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(watch).map_err(failed)?;
    quorumlog_reference::run(&quorumlog_reference::Config {
        listen: args.listen,
        followers: args.followers,
        data: args.data,
        sync: args.flush == Flush::Sync,
        journal: JOURNAL_BYTES,
    })
    .map_err(failed)
}

//! `log`: the logs of a cluster.

use quorumlog::client::Client;
use quorumlog::{AdminError, LogName};
use serde::Serialize;

use crate::client::{ClientArgs, log_name};
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog log create orders
  quorumlog log list --output json
  quorumlog log delete orders --yes";

/// Create, list and delete logs.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create logs on all members.
    #[command(
        after_help = "Examples:\n  quorumlog log create orders\n  quorumlog log create orders payments --if-absent"
    )]
    Create {
        /// Names of the logs.
        #[arg(required = true, value_name = "LOG", value_parser = log_name)]
        logs: Vec<LogName>,
        /// Succeed if a log exists already.
        #[arg(long)]
        if_absent: bool,
        #[command(flatten)]
        cluster: ClientArgs,
    },
    /// List the logs.
    #[command(after_help = "Examples:\n  quorumlog log list\n  quorumlog log list --output json")]
    List {
        /// How to write them.
        #[arg(short, long, value_enum, default_value_t)]
        output: OutputKind,
        #[command(flatten)]
        cluster: ClientArgs,
    },
    /// Delete a log and its data on all members. You cannot undo this.
    #[command(after_help = "Examples:\n  quorumlog log delete orders --yes")]
    Delete {
        /// Name of the log.
        #[arg(value_name = "LOG", value_parser = log_name)]
        log: LogName,
        /// Really delete it.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        cluster: ClientArgs,
    },
}

/// Shape of listings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputKind {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    id: u64,
}

/// Runs the command.
///
/// # Errors
/// The cluster refuses, or cannot be reached.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    match args.command {
        Command::Create { logs, if_absent, cluster } => {
            let client = cluster.connect().await?;
            for log in &logs {
                create(&client, log, if_absent).await?;
            }
            Ok(())
        }
        Command::List { output, cluster } => list(&cluster.connect().await?, output, out).await,
        Command::Delete { log, yes, cluster } => {
            if !yes {
                return Err(Failure::usage(format!("{log} and all its records would be deleted"))
                    .with_hint("add --yes if that is what you want"));
            }
            cluster.connect().await?.delete_log(&log).await?;
            note(format_args!("deleted {log}"));
            Ok(())
        }
    }
}

async fn create(client: &Client, log: &LogName, if_absent: bool) -> Result {
    match client.create_log(log).await {
        Ok(info) => note(format_args!("created {log}, number {}", info.id.0)),
        Err(AdminError::LogExists { .. }) if if_absent => note(format_args!("{log} exists")),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn list(client: &Client, kind: OutputKind, out: &mut Output) -> Result {
    let logs = client.logs().await?;
    let listed: Vec<Listed<'_>> =
        logs.iter().map(|log| Listed { name: log.name.as_str(), id: log.id.0 }).collect();
    match kind {
        OutputKind::Json => out.json(&listed),
        OutputKind::Table => {
            let mut table = Table::new(&["log", "number"]);
            for log in &listed {
                table.row(vec![log.name.to_owned(), log.id.to_string()]);
            }
            if listed.is_empty() {
                note("there are no logs; make one with `quorumlog log create NAME`");
            }
            out.line(table)
        }
    }
}

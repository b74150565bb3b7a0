//! `topic`: the topics of a cluster that runs brokers.

use quorumlog_broker::{TopicAdmin, TopicInfo};
use serde::Serialize;

use super::name_servers::NameServers;
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog topic create Orders --queues 8
  quorumlog topic list --output json
  quorumlog topic delete Orders --yes";

/// Create, list and delete topics of brokers.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a topic, or change the number of its queues.
    #[command(
        after_help = "Examples:\n  quorumlog topic create Orders\n  quorumlog topic create Orders --queues 1"
    )]
    Create {
        /// Name of the topic.
        #[arg(value_name = "TOPIC")]
        topic: String,
        /// Queues in each log.
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
        queues: u32,
        #[command(flatten)]
        servers: NameServers,
    },
    /// List the topics.
    #[command(
        after_help = "Examples:\n  quorumlog topic list\n  quorumlog topic list --output json"
    )]
    List {
        /// How to write them.
        #[arg(short, long, value_enum, default_value_t)]
        output: OutputKind,
        #[command(flatten)]
        servers: NameServers,
    },
    /// Delete a topic, its messages and its consumed offsets. You cannot undo this.
    #[command(after_help = "Examples:\n  quorumlog topic delete Orders --yes")]
    Delete {
        /// Name of the topic.
        #[arg(value_name = "TOPIC")]
        topic: String,
        /// Really delete it.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        servers: NameServers,
    },
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    brokers: Vec<Queues<'a>>,
}

#[derive(Serialize)]
struct Queues<'a> {
    broker: &'a str,
    read: u64,
    write: u64,
}

/// Runs the command.
///
/// # Errors
/// A broker refuses, or none can be reached.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    match args.command {
        Command::Create { topic, queues, servers } => {
            let made = admin(servers).put(&topic, queues).await;
            made.map_err(|error| Failure::broker(format_args!("cannot make {topic}"), &error))?;
            note(format_args!("{topic} has {queues} queues in each log"));
            Ok(())
        }
        Command::List { output, servers } => {
            let topics = admin(servers).topics().await;
            list(
                &topics.map_err(|error| Failure::broker("cannot list topics", &error))?,
                output,
                out,
            )
        }
        Command::Delete { topic, yes, servers } => {
            if !yes {
                return Err(Failure::usage(format!("{topic} and its messages would be deleted"))
                    .with_hint("add --yes if that is what you want"));
            }
            let deleted = admin(servers).delete(&topic).await;
            deleted
                .map_err(|error| Failure::broker(format_args!("cannot delete {topic}"), &error))?;
            note(format_args!("deleted {topic}"));
            Ok(())
        }
    }
}

fn admin(servers: NameServers) -> TopicAdmin {
    TopicAdmin::new(servers.name_server)
}

fn list(topics: &[TopicInfo], kind: OutputKind, out: &mut Output) -> Result {
    match kind {
        OutputKind::Json => {
            let listed: Vec<Listed<'_>> = topics.iter().map(listed).collect();
            out.json(&listed)
        }
        OutputKind::Table => {
            let mut table = Table::new(&["topic", "broker", "read queues", "write queues"]);
            for topic in topics {
                for (broker, read, write) in &topic.brokers {
                    let counts = [read.to_string(), write.to_string()];
                    table.row([vec![topic.name.clone(), broker.clone()], counts.to_vec()].concat());
                }
            }
            if topics.is_empty() {
                note(
                    "there are no topics; they are made as messages come, or with `quorumlog topic create NAME`",
                );
            }
            out.line(table)
        }
    }
}

fn listed(topic: &TopicInfo) -> Listed<'_> {
    let brokers = topic.brokers.iter();
    let brokers =
        brokers.map(|(broker, read, write)| Queues { broker, read: *read, write: *write });
    Listed { name: &topic.name, brokers: brokers.collect() }
}

//! `member`: who belongs to the cluster.

use quorumlog::{Member, NodeId};

use crate::client::ClientArgs;
use crate::commands::log::OutputKind;
use crate::failure::Result;
use crate::output::{Output, Table, note};
use crate::settings::parse_peer;

const AFTER_HELP: &str = "\
Examples:
  quorumlog member list
  quorumlog member add 4=127.0.0.1:20914,127.0.0.1:20924
  quorumlog member promote 4
  quorumlog member remove 2

A node joins as a learner, which holds copies and does not vote. Promote it once it has caught up.
Start the new node first, without --bootstrap. To change a member's addresses, add it again.";

/// List, add, promote and remove members.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add a running node as a learner of all logs, or change a member's addresses.
    #[command(after_help = "Examples:\n  quorumlog member add 4=127.0.0.1:20914,127.0.0.1:20924")]
    Add {
        /// The node and its addresses.
        #[arg(value_name = "ID=PEER_ADDR[,CLIENT_ADDR]", value_parser = parse_peer)]
        member: Member,
        #[command(flatten)]
        cluster: ClientArgs,
    },
    /// Make a learner a voter of all logs, once it has caught up.
    #[command(after_help = "Examples:\n  quorumlog member promote 4 --timeout 5m")]
    Promote {
        /// The node.
        id: NodeId,
        #[command(flatten)]
        cluster: ClientArgs,
    },
    /// Remove a node, voter or learner, from all logs.
    #[command(after_help = "Examples:\n  quorumlog member remove 2")]
    Remove {
        /// The node.
        id: NodeId,
        #[command(flatten)]
        cluster: ClientArgs,
    },
    /// List the members.
    #[command(after_help = "Examples:\n  quorumlog member list --output json")]
    List {
        /// How to write them.
        #[arg(short, long, value_enum, default_value_t)]
        output: OutputKind,
        #[command(flatten)]
        cluster: ClientArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The cluster refuses, or cannot be reached.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    match args.command {
        Command::Add { member, cluster } => {
            let id = member.id;
            let client = cluster.connect().await?;
            let before = client.members().await?.into_iter().find(|status| status.member.id == id);
            client.add_learner(member.clone()).await?;
            let learner = before.as_ref().is_none_or(|before| !before.voter);
            match before {
                Some(before) if before.member != member => {
                    note(format_args!("node {id} is a member, and is at {} now", member.peer_addr));
                }
                Some(_) => note(format_args!("node {id} is a member at these addresses already")),
                None => {}
            }
            if learner {
                note(format_args!(
                    "node {id} is a learner; make it vote: quorumlog member promote {id}"
                ));
            }
        }
        Command::Promote { id, cluster } => {
            cluster.connect().await?.promote(id).await?;
            note(format_args!("node {id} votes"));
        }
        Command::Remove { id, cluster } => {
            cluster.connect().await?.remove(id).await?;
            note(format_args!("node {id} is no member any more; stop it now"));
        }
        Command::List { output, cluster } => {
            let members = cluster.connect().await?.members().await?;
            if output == OutputKind::Json {
                return out.json(&members);
            }
            let mut table = Table::new(&["node", "votes", "peers", "clients"]);
            for status in members {
                let votes = if status.voter { "yes" } else { "no" };
                let Member { id, peer_addr, client_addr, .. } = status.member;
                table.row(vec![id.to_string(), votes.to_owned(), peer_addr, client_addr]);
            }
            out.line(table)?;
        }
    }
    Ok(())
}

//! `group`: the consumer groups of a cluster that runs brokers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorumlog_broker::{GroupAdmin, GroupInfo, QueueLag, QueueReset, ResetTo};
use serde::Serialize;

use super::name_servers::NameServers;
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog group list
  quorumlog group lag readers --topic Orders
  quorumlog group reset readers --topic Orders --to-begin --dry-run";

/// List the consumer groups of brokers, see how far behind they are, and move them.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Where the name servers are, and how to write what they say.
#[derive(Debug, clap::Args)]
struct Common {
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputKind,
    #[command(flatten)]
    servers: NameServers,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the groups, their members and their topics.
    #[command(
        after_help = "Examples:\n  quorumlog group list\n  quorumlog group list --output json"
    )]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show how far a group is in each queue, and how many messages it is behind.
    ///
    /// The time is when the last consumed message was stored.
    #[command(
        after_help = "Examples:\n  quorumlog group lag readers\n  quorumlog group lag readers --topic Orders --output json"
    )]
    Lag {
        /// Name of the group.
        #[arg(value_name = "GROUP")]
        group: String,
        /// This topic only.
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Move a consumer group to another position in a topic.
    ///
    /// The broker tells running consumers, and they continue there after about ten seconds. It ignores what they report
    /// until then.
    #[command(
        after_help = "Examples:\n  quorumlog group reset readers --topic Orders --to-begin --dry-run\n  quorumlog group reset readers --topic Orders --to-time 2026-01-31T12:00:00Z"
    )]
    Reset {
        /// Name of the group.
        #[arg(value_name = "GROUP")]
        group: String,
        /// The topic.
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        #[command(flatten)]
        target: Target,
        /// Show what would happen, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
}

/// Where to go on.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// At the first message that is still there.
    #[arg(long)]
    to_begin: bool,
    /// Behind the last message.
    #[arg(long)]
    to_end: bool,
    /// At this offset, which each queue must have.
    #[arg(long, value_name = "N")]
    to_offset: Option<u64>,
    /// At the first message stored at this time or later, as 2026-01-31T12:00:00Z or milliseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to_time: Option<u64>,
}

impl Target {
    fn reset(&self) -> ResetTo {
        match (self.to_offset, self.to_time) {
            (Some(offset), _) => ResetTo::Offset(offset),
            (None, Some(ms)) => ResetTo::Time(ms),
            (None, None) if self.to_end => ResetTo::End,
            (None, None) => ResetTo::Begin,
        }
    }
}

/// Milliseconds since 1970.
fn time(text: &str) -> std::result::Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let wrong = || "write 2026-01-31T12:00:00Z, or milliseconds since 1970".to_owned();
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
    u64::try_from(since.as_millis()).map_err(|_| wrong())
}

/// The time of day, or a dash.
fn written(ms: Option<u64>) -> String {
    let time = ms.and_then(|ms| SystemTime::checked_add(&UNIX_EPOCH, Duration::from_millis(ms)));
    time.map_or_else(|| "-".to_owned(), |time| humantime::format_rfc3339_millis(time).to_string())
}

/// Runs the command.
///
/// # Errors
/// There is no such group or topic, a broker refuses, or none can be reached.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    match args.command {
        Command::List { common } => {
            let groups = common.admin().groups().await;
            let groups = groups.map_err(|error| Failure::broker("cannot list groups", &error))?;
            list(&groups, common.output, out)
        }
        Command::Lag { group, topic, common } => {
            let lags = common.admin().lag(&group, topic.as_deref()).await;
            let failed =
                |error| Failure::broker(format_args!("cannot tell how far {group} is"), &error);
            lag(&lags.map_err(failed)?, common.output, out)
        }
        Command::Reset { group, topic, target, dry_run, common } => {
            let (admin, to) = (common.admin(), target.reset());
            let done = if dry_run {
                admin.plan_reset(&group, &topic, to).await
            } else {
                admin.reset(&group, &topic, to).await
            };
            let failed = |error| Failure::broker(format_args!("cannot reset {group}"), &error);
            resets(&topic, &done.map_err(failed)?, common.output, out)?;
            let said = if dry_run { "nothing was changed" } else { "the group goes on there" };
            note(said);
            Ok(())
        }
    }
}

impl Common {
    fn admin(&self) -> GroupAdmin {
        GroupAdmin::new(self.servers.name_server.iter().cloned())
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    topics: Vec<&'a str>,
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    client_id: &'a str,
    addr: &'a str,
}

fn list(groups: &[GroupInfo], kind: OutputKind, out: &mut Output) -> Result {
    let member = |group: &GroupInfo| group.members.len().to_string();
    match kind {
        OutputKind::Json => {
            let listed = groups.iter().map(|group| Listed {
                name: &group.name,
                topics: group.topics.iter().map(String::as_str).collect(),
                members: (group.members.iter())
                    .map(|member| Member { client_id: &member.client_id, addr: &member.addr })
                    .collect(),
            });
            out.json(&listed.collect::<Vec<_>>())
        }
        OutputKind::Table => {
            let mut table = Table::new(&["group", "members", "topics"]);
            for group in groups {
                let topics: Vec<_> = group.topics.iter().map(String::as_str).collect();
                table.row(vec![group.name.clone(), member(group), topics.join(" ")]);
            }
            if groups.is_empty() {
                note("there are no groups; they are there once something consumes");
            }
            out.line(table)
        }
    }
}

#[derive(Serialize)]
struct Lag<'a> {
    topic: &'a str,
    broker: &'a str,
    queue: u32,
    consumed: u64,
    max: u64,
    lag: u64,
    last_stored_ms: Option<u64>,
}

fn lag(lags: &[QueueLag], kind: OutputKind, out: &mut Output) -> Result {
    match kind {
        OutputKind::Json => {
            let lags = lags.iter().map(|lag| Lag {
                topic: &lag.topic,
                broker: &lag.broker,
                queue: lag.queue,
                consumed: lag.consumed,
                max: lag.max,
                lag: lag.lag(),
                last_stored_ms: lag.last_stored_ms,
            });
            out.json(&lags.collect::<Vec<_>>())
        }
        OutputKind::Table => {
            let columns = ["topic", "broker", "queue", "consumed", "max", "lag", "last stored at"];
            let mut table = Table::new(&columns);
            for it in lags {
                let numbers = [u64::from(it.queue), it.consumed, it.max, it.lag()];
                let numbers = numbers.iter().map(ToString::to_string);
                let names = [it.topic.clone(), it.broker.clone()].into_iter();
                table.row(names.chain(numbers).chain([written(it.last_stored_ms)]).collect());
            }
            out.line(table)?;
            let all: u64 = lags.iter().map(QueueLag::lag).sum();
            note(format_args!("{all} messages behind"));
            Ok(())
        }
    }
}

#[derive(Serialize)]
struct Reset<'a> {
    topic: &'a str,
    broker: &'a str,
    queue: u32,
    from: u64,
    to: u64,
}

fn resets(topic: &str, resets: &[QueueReset], kind: OutputKind, out: &mut Output) -> Result {
    match kind {
        OutputKind::Json => {
            let resets = resets.iter().map(|it| Reset {
                topic,
                broker: &it.broker,
                queue: it.queue,
                from: it.from,
                to: it.to,
            });
            out.json(&resets.collect::<Vec<_>>())
        }
        OutputKind::Table => {
            let mut table = Table::new(&["topic", "broker", "queue", "from", "to"]);
            for it in resets {
                let numbers = [u64::from(it.queue), it.from, it.to];
                let names = [topic.to_owned(), it.broker.clone()].into_iter();
                table.row(names.chain(numbers.iter().map(ToString::to_string)).collect());
            }
            out.line(table)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(time("1700000000000"), Ok(1_700_000_000_000));
        assert_eq!(time("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
        assert!(time("yesterday").is_err());
        assert_eq!(written(Some(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(written(None), "-");
    }
}

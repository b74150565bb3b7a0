//! The command line: its syntax, and which command it runs.

use std::future::Future;

use clap::{Parser, Subcommand};

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::LogFormat;
use crate::{commands, logging};

const AFTER_HELP: &str = "\
Examples:
  quorumlog demo                     three nodes, a killed leader, nothing lost
  quorumlog start --dev              three nodes in this process, to try things out
  echo hello | quorumlog append default
  quorumlog tail default --begin

Exit codes: 0 ok, 1 failed, 2 usage, 3 unknown whether it took effect.
Standard output is data; standard error is progress and hints.";

/// A Raft-replicated, durable, append-only commit log.
#[derive(Debug, Parser)]
#[command(name = "quorumlog", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Say more on standard error; twice or three times for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(commands::start::Args),
    Broker(commands::broker::Args),
    Demo(commands::demo::Args),
    Append(commands::append::Args),
    Read(commands::read::Args),
    Tail(commands::tail::Args),
    Status(commands::status::Args),
    Log(commands::log::Args),
    Topic(commands::topic::Args),
    Group(commands::group::Args),
    Member(commands::member::Args),
    Leader(commands::leader::Args),
    Bench(commands::bench::Args),
    ReferenceNode(commands::reference_node::Args),
    Inspect(commands::inspect::Args),
    Verify(commands::verify::Args),
    AcceptLoss(commands::accept_loss::Args),
    Config(commands::config::Args),
    Completions(commands::completions::Args),
}

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// Whatever the command could not do.
    pub(crate) fn run(self, out: &mut Output) -> Result {
        if !matches!(self.command, Command::Start(_) | Command::Broker(_)) {
            logging::init(logging::level_of_verbosity(self.verbose), LogFormat::Text)?;
        }
        match self.command {
            Command::Start(args) => commands::start::run(args, self.verbose),
            Command::Broker(args) => commands::broker::run(args, self.verbose),
            Command::Demo(args) => block_on(0, commands::demo::run(args, out)),
            Command::Append(args) => block_on(0, commands::append::run(args, out)),
            Command::Read(args) => block_on(0, commands::read::run(args, out)),
            Command::Tail(args) => block_on(0, commands::tail::run(args, out)),
            Command::Status(args) => block_on(0, commands::status::run(args, out)),
            Command::Log(args) => block_on(0, commands::log::run(args, out)),
            Command::Topic(args) => block_on(0, commands::topic::run(args, out)),
            Command::Group(args) => block_on(0, commands::group::run(args, out)),
            Command::Member(args) => block_on(0, commands::member::run(args, out)),
            Command::Leader(args) => block_on(0, commands::leader::run(args, out)),
            Command::Bench(args) => block_on(args.threads(), commands::bench::run(args, out)),
            Command::ReferenceNode(args) => commands::reference_node::run(args),
            Command::Inspect(args) => commands::inspect::run(&args, out),
            Command::Verify(args) => commands::verify::run(&args, out),
            Command::AcceptLoss(args) => commands::accept_loss::run(&args, out),
            Command::Config(args) => commands::config::run(&args, out),
            Command::Completions(args) => commands::completions::run(&args, out),
        }
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs a future on this many threads; 0 means one for each core. A single thread is the caller's: then nothing is
/// handed over.
///
/// # Errors
/// The runtime could not start, or what the future failed with.
pub(crate) fn block_on(threads: usize, future: impl Future<Output = Result>) -> Result {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start the runtime", &error))?;
    let result = runtime.block_on(future);
    // A read of standard input that nobody waits for any more must not hold up the exit.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn each(command: &mut clap::Command, path: &str, check: &mut dyn FnMut(&str, &str, &str)) {
        let path = format!("{path} {}", command.get_name());
        let help = command.render_long_help().to_string();
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        check(path.trim(), &help, &after);
        for sub in command.get_subcommands_mut() {
            if sub.get_name() != "help" {
                each(sub, &path, check);
            }
        }
    }

    #[test]
    fn a_single_thread_is_the_callers_own() {
        let here = std::thread::current().id();
        block_on(1, async move {
            let there = tokio::spawn(async { std::thread::current().id() }).await;
            assert_eq!(there.expect("a task"), here);
            Ok(())
        })
        .expect("a runtime");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_renders_with_an_example_that_parses() {
        let mut count = 0;
        let mut command = Cli::command();
        command.build();
        each(&mut command, "", &mut |path, help, after| {
            count += 1;
            assert!(help.contains("Usage: ") && help.contains("Examples:"), "{path}: {help}");
            let examples = after.split("Examples:\n").nth(1).unwrap_or_default();
            let examples = examples.split("\n\n").next().unwrap_or_default().replace("\\\n", " ");
            let mut found = false;
            for line in examples.lines() {
                let Some(at) = line.find("quorumlog ") else { continue };
                // A comment stands behind three blanks.
                let text = line[at..].split("   ").next().unwrap_or_default();
                let text = text.split(['|', '>']).next().unwrap_or_default();
                found = true;
                let words = text.split_whitespace().map(|word| word.trim_matches('\''));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{path}: {text}: {error}");
                }
            }
            assert!(found, "{path}: no example begins with `quorumlog `\n{help}");
        });
        assert!(count > 20, "{count} commands");
    }
}

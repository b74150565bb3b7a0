//! The harness's commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Proof by machine that quorumlog keeps its promises.
#[derive(Debug, Parser)]
#[command(name = "jepsen", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Search the models of protocols, with all their rules and without each.
    Model(jepsen::models::ModelArgs),
    /// Run the tests on deliberate bugs, each of which has to make one fail.
    Mutants(jepsen::mutants::MutantsArgs),
    /// Run whole clusters in simulated time, with faults.
    Sim(jepsen::sim::SimArgs),
    /// Crash, fail and damage what is stored, exhaustively.
    Storage(jepsen::storage::StorageArgs),
}

pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Model(args) => jepsen::models::run(&args),
        Command::Mutants(args) => jepsen::mutants::run(&args),
        Command::Sim(args) => jepsen::sim::run(args),
        Command::Storage(args) => jepsen::storage::run(&args),
    }
}

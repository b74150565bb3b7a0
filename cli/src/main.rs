//! The quorumlog binary: run a node, use a log, look into a data directory.

mod cli;
mod client;
mod cluster;
mod commands;
mod failure;
mod http;
mod latency;
mod lines;
mod logging;
mod mutant;
mod open_files;
mod output;
mod ports;
mod proc;
mod progress;
mod recorder;
mod serve;
mod settings;
mod signals;
mod workspace;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::Cli;
use failure::Exit;
use output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, everything else to standard error.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(Exit::Usage as u8),
            };
        }
    };
    open_files::raise_limit();
    let mut out = Output::stdout();
    let result = cli.run(&mut out).and_then(|()| out.flush());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was written before the failure is data, and still wanted.
            let _ = out.flush();
            if failure.exit != Exit::Done {
                output::note(format_args!("error: {failure}"));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

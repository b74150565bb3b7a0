//! `completions`: for the shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Result;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  quorumlog completions bash > /etc/bash_completion.d/quorumlog
  quorumlog completions zsh > ~/.zfunc/_quorumlog";

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// Standard output is closed or broken.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quorumlog", &mut script);
    out.bytes(&script)
}

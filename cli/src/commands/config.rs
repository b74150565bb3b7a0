//! `config`: looks at settings without starting a node.

use std::path::PathBuf;

use crate::failure::Result;
use crate::output::{Output, note};
use crate::settings::{self, Layers};

const AFTER_HELP: &str = "\
Examples:
  quorumlog config print --sample > node.toml
  quorumlog config check node.toml
  quorumlog config print --config node.toml";

/// Check a configuration, or print the settings that a node would run with.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a configuration file, together with the environment.
    #[command(after_help = "Examples:\n  quorumlog config check node.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print all settings as a commented file: defaults, file and environment put together.
    #[command(
        after_help = "Examples:\n  quorumlog config print --sample > node.toml\n  quorumlog config print --config node.toml"
    )]
    Print {
        /// Configuration file (TOML).
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print the defaults, to begin a configuration file with.
        #[arg(long, conflicts_with = "config")]
        sample: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// The settings make no sense.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result {
    match &args.command {
        Command::Check { file } => {
            layers(Some(file))?.settings()?;
            note(format_args!("{} is fine", file.display()));
            Ok(())
        }
        Command::Print { sample: true, .. } => out.bytes(settings::sample().as_bytes()),
        Command::Print { config, .. } => out.bytes(layers(config.as_ref())?.render().as_bytes()),
    }
}

fn layers(file: Option<&PathBuf>) -> Result<Layers> {
    let mut layers = Layers::defaults();
    if let Some(file) = file {
        layers.file(file)?;
    }
    layers.environment(std::env::vars_os())?;
    Ok(layers)
}

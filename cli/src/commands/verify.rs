//! `verify`: checks an offline data directory, and never changes it.

use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use quorumlog::offline::{self, Finding, Severity, Verification};

use crate::commands::inspect::{log_label, warn_in_use};
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table};
use crate::progress::Progress;

const AFTER_HELP: &str = "\
Examples:
  quorumlog verify /var/lib/quorumlog
  quorumlog verify /var/lib/quorumlog --output json | jq '.findings[]'

Reads every file, checks every checksum and the order of the entries, and changes nothing. Stop the
node first: on a running node the newest entries can look torn. `harmless` findings are traces of a
crash, which the next start of the node clears up.
Exit code 1: something is damaged or missing. Each finding names its file and offset.";

/// Check the data directory of a stopped node; changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The data directory.
    dir: PathBuf,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputKind,
}

/// Runs the command.
///
/// # Errors
/// The directory cannot be read, or something in it is damaged.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result {
    let found = check(&args.dir)?;
    if found.in_use {
        warn_in_use(&args.dir);
    }
    match args.output {
        OutputKind::Json => out.json(&found)?,
        OutputKind::Table => write(&found, out)?,
    }
    match damage(&found).count() {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("1 file is damaged in {}", args.dir.display()))),
        n => Err(Failure::failed(format!("{n} files are damaged in {}", args.dir.display()))),
    }
}

/// Reads and checks everything, with progress.
///
/// # Errors
/// The directory cannot be read. What is wrong inside it is a finding.
pub(crate) fn check(dir: &Path) -> Result<Verification> {
    let progress = Progress::bytes(Some(0));
    progress.message(dir.display().to_string());
    let found = offline::verify(dir, &mut |done, all| progress.set_of(done, all));
    progress.clear();
    Ok(found?)
}

/// What is damaged or missing.
pub(crate) fn damage(found: &Verification) -> impl Iterator<Item = &Finding> {
    found.findings.iter().filter(|finding| finding.severity != Severity::Harmless)
}

fn write(found: &Verification, out: &mut Output) -> Result {
    let heads = ["log", "segments", "entries", "records", "payloads", "checkpoints"];
    let mut table = Table::new(&heads);
    for log in &found.logs {
        table.row(vec![
            log_label(log.id),
            log.segments.to_string(),
            log.entries.to_string(),
            log.records.to_string(),
            BinaryBytes(log.payload_bytes).to_string(),
            log.checkpoints.to_string(),
        ]);
    }
    out.line(table)?;
    for finding in &found.findings {
        let severity = if finding.severity == Severity::Harmless { "harmless" } else { "DAMAGED" };
        out.line(format_args!("{severity:<9}{finding}"))?;
    }
    if found.is_sound() {
        out.line("every checksum is right, and nothing is missing")?;
    }
    Ok(())
}

//! `inspect`: describes an offline data directory, and never changes it.

use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use quorumlog::LogId;
use quorumlog::offline::{self, Inspection, LogSummary, Position, SegmentSummary};

use crate::commands::log::OutputKind;
use crate::failure::Result;
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog inspect /var/lib/quorumlog
  quorumlog inspect /var/lib/quorumlog --output json | jq '.logs[].vote'

Prints the node, its logs with their votes and boundaries, and their segments and checkpoints. It
changes nothing. Stop the node first: on a running node the newest entries can look half written.
`quorumlog verify` also reads and checks the contents.
Exit code 1: a file is missing or damaged. The message names the file and offset.";

/// Describe the data directory of a stopped node; changes nothing.
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
/// The directory cannot be read, or a file in it is missing or damaged.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result {
    let found = offline::inspect(&args.dir)?;
    if found.in_use {
        warn_in_use(&args.dir);
    }
    match args.output {
        OutputKind::Json => out.json(&found),
        OutputKind::Table => write(&found, &args.dir, out),
    }
}

/// Says that what is seen may be a moment between two states.
pub(super) fn warn_in_use(dir: &Path) {
    let dir = dir.display();
    note(format_args!("a process uses {dir}: the newest entries may be seen half written"));
}

/// How a log is called where only its number is known.
pub(crate) fn log_label(id: LogId) -> String {
    if id == LogId::SYSTEM { format!("{} (system)", id.0) } else { id.0.to_string() }
}

fn write(found: &Inspection, dir: &Path, out: &mut Output) -> Result {
    let node = &found.node;
    let cluster = match node.cluster {
        0 => "none yet".to_owned(),
        cluster => format!("{cluster:032x}"),
    };
    let generation = match node.outdated {
        true => {
            format!("{}, refused by other nodes as older than they have heard of", node.generation)
        }
        false => node.generation.to_string(),
    };
    for (name, value) in [
        ("node", node.node_id.to_string()),
        ("incarnation", format!("{:032x}", node.incarnation)),
        ("cluster", cluster),
        ("generation", generation),
    ] {
        out.line(format_args!("{name:<13}{value}"))?;
    }
    out.line(format_args!("\n{}", logs(found)))?;
    out.line(format_args!("\n{}", files(found, dir)))
}

fn logs(found: &Inspection) -> Table {
    let mut table = Table::new(&[
        "log",
        "term",
        "vote for",
        "vote",
        "begin",
        "committed",
        "end",
        "segments",
        "checkpoints",
        "disk",
    ]);
    for log in &found.logs {
        let vote = log.vote.map(|vote| {
            let state = if vote.committed { "committed" } else { "given" };
            [vote.term.to_string(), vote.voted_for.to_string(), state.to_owned()]
        });
        let [term, voted_for, state] = vote.unwrap_or_else(|| ["-", "-", "-"].map(str::to_owned));
        let begin = log.boundary.map_or(0, |boundary| boundary.index + 1);
        let segments: u64 = log.segments.iter().map(|segment| segment.bytes).sum();
        let checkpoints: u64 = log.checkpoints.iter().map(|checkpoint| checkpoint.bytes).sum();
        table.row(vec![
            log_label(log.id),
            term,
            voted_for,
            state,
            begin.to_string(),
            log.committed.to_string(),
            end_of(log).unwrap_or(begin).to_string(),
            log.segments.len().to_string(),
            log.checkpoints.len().to_string(),
            BinaryBytes(segments + checkpoints).to_string(),
        ]);
    }
    table
}

fn end_of(log: &LogSummary) -> Option<u64> {
    log.segments.iter().rev().find_map(|segment| segment.last).map(|last| last.index + 1)
}

fn files(found: &Inspection, dir: &Path) -> Table {
    let heads = ["log", "state", "first", "last", "last term", "entries", "disk", "file"];
    let mut table = Table::new(&heads);
    let relative = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    for log in &found.logs {
        for checkpoint in &log.checkpoints {
            table.row(vec![
                log_label(log.id),
                "checkpoint".to_owned(),
                "-".to_owned(),
                checkpoint.last.index.to_string(),
                checkpoint.last.term.to_string(),
                "-".to_owned(),
                BinaryBytes(checkpoint.bytes).to_string(),
                relative(&checkpoint.path),
            ]);
        }
        for segment in &log.segments {
            table.row(segment_row(log.id, segment, relative(&segment.path)));
        }
    }
    table
}

fn segment_row(log: LogId, segment: &SegmentSummary, file: String) -> Vec<String> {
    let of_last = |field: fn(Position) -> u64| {
        segment.last.map_or_else(|| "-".to_owned(), |last| field(last).to_string())
    };
    vec![
        log_label(log),
        if segment.sealed { "sealed" } else { "active" }.to_owned(),
        segment.base_index.to_string(),
        of_last(|last| last.index),
        of_last(|last| last.term),
        segment.entries.to_string(),
        BinaryBytes(segment.bytes).to_string(),
        file,
    ]
}

//! `jepsen sim`: runs seeds, one process each, and says what they came to.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::batch::Batch;
use super::profile::ProfileKind;
use super::run::{Options, run as run_seed};
use super::story;
use super::summary::{Summary, Verdict};

/// Text of a trace that is kept.
const TRACE_BYTES_MAX: usize = 256 << 20;
/// Exit code for arguments that make no sense.
const USAGE: u8 = 2;

/// Runs a whole cluster in simulated time, with faults, and checks what it did.
#[derive(Debug, Clone, clap::Args)]
pub struct SimArgs {
    /// Replay this seed, here and now.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Seeds that run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Kind of cluster and load.
    #[arg(long, value_enum, default_value_t = ProfileKind::Dense)]
    profile: ProfileKind,
    /// Run this many of the seeds twice, and compare the traces byte by byte.
    #[arg(long, default_value_t = 0)]
    twice: u64,
    /// With --seed: print everything that happened.
    #[arg(long)]
    trace: bool,
    /// With --trace: what consensus and the library have to say in detail, too.
    #[arg(long, requires = "seed")]
    verbose: bool,
    /// With --seed: only the faults with these numbers.
    #[arg(long, value_delimiter = ',', num_args = 0.., requires = "seed")]
    pub(super) keep: Option<Vec<usize>>,
    /// Turn on a deliberate bug by its name (needs the feature `mutants`).
    #[arg(long)]
    mutant: Option<String>,
    /// Write the history of each log into this directory, as JSON lines and as EDN.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Do not look for a smaller schedule that fails too.
    #[arg(long)]
    no_shrink: bool,
    /// Print the summary as one line of JSON; how a child tells its parent.
    #[arg(long, hide = true, requires = "seed")]
    json: bool,
    /// Write the trace into this file.
    #[arg(long, hide = true, requires = "seed")]
    trace_file: Option<PathBuf>,
}

/// Does what was asked. The exit code is 0 if all passed, 1 if something did not hold, 2 if the arguments make
/// no sense, and 3 if nothing was wrong but some run shows too little.
pub fn run(args: SimArgs) -> ExitCode {
    if let Some(mutant) = &args.mutant
        && let Err(reason) = crate::mutants::activate(mutant)
    {
        return complain(&reason);
    }
    match (args.seed, args.seeds) {
        (Some(seed), _) => one(seed, &args),
        (None, Some(seeds)) => {
            let batch = Batch {
                first: args.from,
                seeds,
                jobs: args.jobs.clamp(1, 64),
                twice: args.twice,
                shrink: !args.no_shrink,
                common: common(&args),
                profile: args.profile,
            };
            match batch.run() {
                Ok(verdict) => ExitCode::from(verdict.exit_code()),
                Err(error) => complain(&format!("cannot run the seeds: {error}")),
            }
        }
        (None, None) => complain("say --seed N or --seeds N"),
    }
}

/// Arguments that children get too.
fn common(args: &SimArgs) -> Vec<String> {
    let mut common = vec!["--profile".to_owned(), args.profile.to_string()];
    if let Some(mutant) = &args.mutant {
        common.extend(["--mutant".to_owned(), mutant.clone()]);
    }
    if let Some(history) = &args.history {
        common.extend(["--history".to_owned(), history.display().to_string()]);
    }
    common
}

fn complain(reason: &str) -> ExitCode {
    // Nothing is left to be done if even that fails.
    let _ = writeln!(std::io::stderr(), "{reason}");
    ExitCode::from(USAGE)
}

fn one(seed: u64, args: &SimArgs) -> ExitCode {
    let wants_text = args.trace || args.trace_file.is_some();
    let options = Options {
        seed,
        kind: args.profile,
        keep: args.keep.clone(),
        trace_bytes_max: if wants_text { TRACE_BYTES_MAX } else { 0 },
        history: args.history.clone(),
        verbose: args.verbose,
    };
    let done = run_seed(&options);
    if let Some(path) = &args.trace_file
        && let Err(error) = std::fs::write(path, &done.trace)
    {
        return complain(&format!("cannot write {}: {error}", path.display()));
    }
    let text = match serde_json::to_string(&done.summary) {
        Ok(line) if args.json => line,
        _ => tell(&done.summary, &done.trace, args),
    };
    // A reader that went away needs no text.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(done.summary.verdict.exit_code())
}

fn tell(summary: &Summary, trace: &str, args: &SimArgs) -> String {
    let mut text = String::new();
    if args.trace {
        text += trace;
    }
    text += &story::describe(summary);
    if summary.verdict == Verdict::Failed {
        let children = super::batch::Children::new(common(args), args.profile);
        text += &story::of_failure(summary, args.keep.is_none() && !args.no_shrink, &children);
    }
    text
}

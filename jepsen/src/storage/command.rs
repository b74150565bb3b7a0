//! The command `storage`: runs all families, or one point, and prints a table.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::crashes::Crashes;
use super::cuts::{Cuts, Tails};
use super::files::Files;
use super::flips::Flips;
use super::host::DATA;
use super::io_errors::IoErrors;
use super::sample::{LOG, Sample};
use super::scenarios;
use super::tally::{Address, Family, Tally, panic_text};

/// Tests what is stored, exhaustively, on a simulated disk.
///
/// Every crash, every failing call, every flipped bit, every cut. Exits with 1 if anything acknowledged was
/// lost, anything read was wrong, or anything panicked.
#[derive(Debug, Clone, clap::Args)]
pub struct StorageArgs {
    /// Sample what the full run enumerates: every scenario and file, in a fraction of the time.
    #[arg(long)]
    quick: bool,
    /// Only the families whose name contains this, such as `crash-truncate` or `flip`.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Only this point of the family that `--only` names in full; say why if it fails.
    #[arg(long, value_name = "POINT", requires = "only")]
    at: Option<Address>,
    /// List the families.
    #[arg(long)]
    list: bool,
    /// Stop at the first family with a failure.
    #[arg(long)]
    fail_fast: bool,
    /// Turn on a deliberate bug by its name, and stop at the first failure (needs the feature `mutants`).
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Threads. The result does not depend on them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: u64,
}

/// Runs the command.
pub fn run(args: &StorageArgs) -> ExitCode {
    if let Some(mutant) = &args.mutant
        && let Err(reason) = crate::mutants::activate(mutant)
    {
        say(&reason);
        return ExitCode::from(2);
    }
    let wanted = |name: &str| match (&args.only, &args.at) {
        (Some(only), Some(_)) => name == only,
        (Some(only), None) => name.contains(only.as_str()),
        (None, _) => true,
    };
    // Panics are counted, and told with the point that they belong to.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut families = Families { quick: args.quick, wanted: &wanted, all: Vec::new() };
    let collected = catch_unwind(AssertUnwindSafe(|| families.collect()));
    if let Err(panic) = collected {
        say(&format!("fails without a fault: {}", panic_text(&*panic)));
        return ExitCode::FAILURE;
    }
    let families = families.all;
    if args.list {
        for family in &families {
            say(&format!("{} ({} units)", family.name(), family.units()));
        }
        return ExitCode::SUCCESS;
    }
    if families.is_empty() {
        say("no family has that name; see `storage --list`");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let mut rows = Vec::new();
    for (number, family) in families.iter().enumerate() {
        let begun = Instant::now();
        let tally = try_family(&**family, args);
        let seconds = begun.elapsed();
        progress(number + 1, families.len(), &tally, seconds);
        let stop = !tally.is_sound() && (args.fail_fast || args.mutant.is_some());
        rows.push((family.name(), tally, seconds));
        if stop {
            break;
        }
    }
    std::panic::set_hook(hook);
    report(&rows, begun.elapsed(), args.quick)
}

struct Families<'a> {
    quick: bool,
    wanted: &'a dyn Fn(&str) -> bool,
    all: Vec<Box<dyn Family>>,
}

impl Families<'_> {
    fn add(&mut self, family: impl Family + 'static) {
        if (self.wanted)(&family.name()) {
            self.all.push(Box::new(family));
        }
    }

    fn collect(&mut self) {
        self.collect_crashes(if self.quick { 17 } else { 1 });
        self.collect_damage();
    }

    fn collect_crashes(&mut self, again: u64) {
        for script in scenarios::all() {
            if (self.wanted)(&format!("crash-{}", script.name)) {
                self.add(Crashes::new(script, again));
            }
        }
        for script in scenarios::all() {
            if (self.wanted)(&format!("io-error-{}", script.name)) {
                self.add(IoErrors::new(script));
            }
        }
    }

    fn collect_damage(&mut self) {
        let every = if self.quick { 61 } else { 1 };
        let sample = Arc::new(Sample::new());
        self.add(Tails::new("flushed-tail", Sample::new()));
        self.add(Tails::new("unflushed-tail", Sample::unflushed()));
        let in_log = |name: &str| {
            let dir = std::path::Path::new(DATA).join(format!("logs/{LOG:016x}"));
            vec![dir.join(name)]
        };
        let mut sealed: Vec<_> = sample.segments.iter().map(|s| s.path.clone()).collect();
        let active = sealed.pop().into_iter().collect();
        let ending = |end: &str| {
            let mut files = sample.files();
            files.retain(|path| path.to_string_lossy().ends_with(end));
            files
        };
        self.add(Flips::new("active-segment", &sample, active, every));
        self.add(Flips::new("sealed-segments", &sample, sealed, every));
        self.add(Flips::new("manifest", &sample, in_log("MANIFEST"), 1));
        self.add(Flips::new("vote", &sample, in_log("VOTE"), every));
        self.add(Flips::new("superblock", &sample, ending("/NODE"), 1));
        self.add(Flips::new("checkpoints", &sample, ending(".ckpt"), every));
        self.add(Files::sectors(&sample));
        self.add(Files::whole(&sample));
        self.add(Files::earlier(&sample));
        self.add(Cuts::new(&sample, if self.quick { 7 } else { 1 }));
    }
}

fn try_family(family: &dyn Family, args: &StorageArgs) -> Tally {
    let whole = Mutex::new(Tally::new(&family.name(), args.at.clone()));
    let only = args.at.as_ref().and_then(|at| at.0.first()).map(|first| family.unit_of(*first));
    let (first, end) = match only {
        Some(unit) => (unit, (unit + 1).min(family.units())),
        None => (0, family.units()),
    };
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            if unit >= end {
                return;
            }
            let mut tally = Tally::new(&family.name(), args.at.clone());
            family.try_unit(unit, &mut tally);
            whole.lock().unwrap_or_else(PoisonError::into_inner).add(tally);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..args.threads {
            scope.spawn(work);
        }
        work();
    });
    whole.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn progress(number: usize, of: usize, tally: &Tally, seconds: Duration) {
    let failed = tally.wrong + tally.panics;
    let failed = if failed == 0 { String::new() } else { format!(", {failed} FAILED") };
    let seconds = seconds.as_secs_f64();
    let Tally { family, points, .. } = tally;
    say(&format!("{number:>3}/{of} {family}: {points} points in {seconds:.1} s{failed}"));
}

fn report(rows: &[(String, Tally, Duration)], took: Duration, quick: bool) -> ExitCode {
    say("");
    say(&format!(
        "{:<26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6} {:>8}",
        "", "points", "detected", "repaired", "harmless", "no trace", "wrong", "panics", "seconds"
    ));
    let mut total = Tally::new("total", None);
    for (name, tally, seconds) in rows {
        row(name, tally, *seconds);
        total.add(tally.clone());
    }
    row("total", &total, took);
    say("no trace: shorter or older, nothing in it wrong, and the damage took what would tell");
    for failure in &rows.iter().flat_map(|(_, tally, _)| &tally.failures).collect::<Vec<_>>() {
        let quick = if quick { "--quick " } else { "" };
        say("");
        say(&format!(
            "cargo run --release -p jepsen -- storage {quick}--only {} --at {}",
            failure.family, failure.at
        ));
        say(&failure.why);
    }
    if total.points == 0 {
        say("no point was tried");
        return ExitCode::FAILURE;
    }
    if total.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn row(name: &str, tally: &Tally, seconds: Duration) {
    say(&format!(
        "{name:<26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6} {:>8.1}",
        tally.points,
        tally.detected,
        tally.repaired,
        tally.harmless,
        tally.unwitnessed,
        tally.wrong,
        tally.panics,
        seconds.as_secs_f64(),
    ));
}

/// Prints a line; a closed pipe is no reason to stop the tests.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

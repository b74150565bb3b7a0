//! The command `model`: searches the models, and prints a line for each search.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::async_recovery::{Bounds, Cluster, Knockout, PROMISES, Rules, SIGHTS};
use super::search::{Found, exhaustive, walk};

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p jepsen -- model
  cargo run --release -p jepsen -- model --only walks --nodes 5 --steps 50000000 --seed 7
  cargo run --release -p jepsen -- model --only rules --without mark-volatile --trace

Exits with 0 if every promise holds with all rules, and a search breaks one without each rule.
Exits with 1 otherwise.";

/// Searches the model of how nodes recover that lost what they had not flushed.
///
/// With all rules, every promise must hold in every state. Without any one of them a search must
/// find a state in which a promise is broken. Otherwise the model could not fail.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ModelArgs {
    /// Only these searches.
    #[arg(long, value_delimiter = ',', default_values = ["states", "walks", "rules"])]
    only: Vec<Part>,
    /// Leave out only these rules.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    without: Vec<Knockout>,
    /// Nodes of the clusters that are walked through.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Steps of random walks.
    #[arg(long, default_value_t = 3_000_000)]
    steps: u64,
    /// The walks' seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which a search of all states gives up, and fails.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Threads that search all states.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Print the steps to each broken promise.
    #[arg(long)]
    trace: bool,
}

/// Searches of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Every state within small bounds, with all rules.
    States,
    /// Random walks within wide bounds, with all rules.
    Walks,
    /// The same without one rule at a time.
    Rules,
}

/// Runs the command.
pub fn run(args: &ModelArgs) -> ExitCode {
    let mut failed = 0;
    if args.only.contains(&Part::States) {
        failed += u32::from(!all_states(args));
    }
    if args.only.contains(&Part::Walks) {
        failed += u32::from(!walks(args));
    }
    if args.only.contains(&Part::Rules) {
        failed += without_rules(args);
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    say(format_args!("{failed} searches failed"));
    ExitCode::FAILURE
}

fn all_states(args: &ModelArgs) -> bool {
    let begun = Instant::now();
    let cluster = Cluster { bounds: Bounds::SMALL, rules: Rules::ALL };
    let found = exhaustive(cluster, args.threads.into(), Duration::from_secs(args.seconds));
    let passed = found.broken.is_none() && found.complete && found.seen.len() == SIGHTS.len();
    report("all rules, every state", &found, "states", begun, args.trace);
    if !found.complete && found.broken.is_none() {
        say(format_args!("  not every state was seen; give it more --seconds"));
    }
    passed
}

fn walks(args: &ModelArgs) -> bool {
    let begun = Instant::now();
    let bounds = Bounds { nodes: args.nodes, ..Bounds::WIDE };
    let found = walk(&Cluster { bounds, rules: Rules::ALL }, args.seed, args.steps);
    report("all rules, random walks", &found, "steps", begun, args.trace);
    found.broken.is_none()
}

/// Searches without each rule that is wanted, and without all of them unless some are named.
/// Returns how many searches broke nothing.
fn without_rules(args: &ModelArgs) -> u32 {
    let mut survived = 0;
    if args.without.is_empty() {
        let begun = Instant::now();
        let plain = Cluster { bounds: Bounds::WIDE, rules: Rules::NONE };
        let found = walk(&plain, args.seed, args.steps);
        report("plain Raft, flushed later", &found, "steps", begun, args.trace);
        survived += u32::from(found.broken.is_none());
    }
    let all = <Knockout as clap::ValueEnum>::value_variants();
    let wanted = |knockout: &&Knockout| args.without.is_empty() || args.without.contains(knockout);
    for knockout in all.iter().filter(wanted) {
        let begun = Instant::now();
        let rules = Rules::without(*knockout);
        let found = match knockout.bounds() {
            Some(bounds) => {
                let limit = Duration::from_secs(args.seconds);
                exhaustive(Cluster { bounds, rules }, args.threads.into(), limit)
            }
            None => walk(&Cluster { bounds: Bounds::WIDE, rules }, args.seed, args.steps),
        };
        let unit = if knockout.bounds().is_some() { "states" } else { "steps" };
        report(&format!("without {knockout:?}"), &found, unit, begun, args.trace);
        survived += u32::from(found.broken.is_none());
    }
    survived
}

fn report(what: &str, found: &Found, unit: &str, begun: Instant, trace: bool) {
    let Found { states, broken, seen, .. } = found;
    let seconds = begun.elapsed().as_secs_f64();
    let result = match broken {
        Some((name, steps)) => format!("broken in {} steps: {name}", steps.len()),
        None => format!("{} promises hold", PROMISES.len()),
    };
    say(format_args!("{what:<42} {states:>11} {unit:<6} {seconds:>6.1} s  {result}"));
    match broken {
        Some((_, steps)) if trace => steps.iter().for_each(|step| say(format_args!("  {step:?}"))),
        Some(_) => {}
        None => seen.iter().for_each(|name| say(format_args!("  seen: {name}"))),
    }
}

fn say(line: std::fmt::Arguments<'_>) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stdout(), "{line}");
}

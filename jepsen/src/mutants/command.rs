//! The command `mutants`: plans the run, in a program that has the mutants.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::killers::Program;
use super::runner::{self, Kind, Plan};
use super::table::{self, Expected, Row};

/// Exit code of bad usage, and of tests that cannot be run.
const USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p jepsen -- mutants --list
  cargo run -p jepsen -- mutants --table > docs/mutants.md
  cargo run --release -p jepsen -- mutants --only M1,M5,TornTailOverwritten
  cargo run --release -p jepsen -- mutants --seeds 200 --jobs 4 --killers sim

To repeat a run that found one:
  QUORUMLOG_MUTANT=AckBeforeFlush cargo run --release -p jepsen --features mutants \\
      --bin jepsen-mutants -- sim --seed 17

Exits with 0 if every mutant was killed, with 1 if one survived, with 2 if the tests cannot be run.";

/// Runs the tests on deliberate bugs: each has to make one of them fail.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct MutantsArgs {
    /// Only these, by id or name.
    #[arg(long, value_name = "MUTANT", value_delimiter = ',')]
    only: Vec<String>,
    /// Seeds of the simulation for each mutant.
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first_seed: u64,
    /// Minutes after which no further seed is begun, for each mutant.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Processes at once.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Only these kinds of tests.
    #[arg(long, value_delimiter = ',', default_values = ["storage", "sim", "leaders", "async", "broker", "test"])]
    killers: Vec<Kind>,
    /// List the mutants, and what is expected to find each.
    #[arg(long)]
    list: bool,
    /// Print docs/mutants.md.
    #[arg(long, conflicts_with_all = ["list", "only"])]
    table: bool,
}

/// Runs the command.
pub fn run(args: &MutantsArgs) -> ExitCode {
    match try_run(args) {
        Ok(code) => code,
        Err(reason) => {
            // Nothing is left to be done if even that fails.
            let _ = writeln!(std::io::stderr(), "error: {reason}");
            ExitCode::from(USAGE)
        }
    }
}

fn try_run(args: &MutantsArgs) -> Result<ExitCode, String> {
    if args.table {
        let page = table::page();
        std::io::stdout().write_all(page.as_bytes()).map_err(|error| error.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = select(&args.only)?;
    if args.list {
        let mut out = std::io::stdout().lock();
        for row in rows {
            writeln!(out, "{}", describe(row)).map_err(|error| error.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !cfg!(feature = "mutants") {
        return with_mutants();
    }
    let plan = Plan {
        rows,
        seeds: args.seeds,
        first_seed: args.first_seed,
        jobs: usize::from(args.jobs),
        limit: Duration::from_secs(args.minutes * 60),
        killers: args.killers.clone(),
    };
    let program = Program::this().map_err(|error| format!("who am I: {error}"))?;
    let score = plan.run(&runner::armoury(program), &mut std::io::stdout())?;
    Ok(if score.survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rows that were asked for; all if none were.
fn select(only: &[String]) -> Result<Vec<&'static Row>, String> {
    let unknown = only.iter().find(|wanted| !table::rows().any(|row| row.is_called(wanted)));
    if let Some(unknown) = unknown {
        return Err(format!("there is no mutant {unknown:?}; see `mutants --list`"));
    }
    let wanted = |row: &&Row| only.is_empty() || only.iter().any(|wanted| row.is_called(wanted));
    Ok(table::rows().filter(wanted).collect())
}

fn describe(row: &Row) -> String {
    let Row { id, name, breaks, place, rule, expected } = row;
    let killer = match expected {
        Expected::Storage => "storage".to_owned(),
        Expected::Sim => "sim".to_owned(),
        Expected::Leaders => "sim --profile leaders".to_owned(),
        Expected::Async => "sim --profile async".to_owned(),
        Expected::Broker => "sim --profile broker".to_owned(),
        Expected::Test(target, test) => format!("test {target}::{test}"),
        Expected::NotApplicable(why) => return format!("{id}: {breaks}\n    not here: {why}"),
        Expected::Equivalent(why) => return format!("{id}: {breaks}\n    not a bug: {why}"),
    };
    format!("{id} {name}: {breaks}\n    in {place}; rule: {rule}; expected killer: {killer}")
}

/// Hands over to the program that has the mutants, and builds it first: this one is what everybody uses, and
/// has none.
fn with_mutants() -> Result<ExitCode, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["run", "-p", "jepsen", "--features", "mutants", "--bin", "jepsen-mutants"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.arg("--").args(std::env::args_os().skip(1));
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(USAGE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_are_selected_by_id_or_name_and_unknown_ones_refused() {
        let ids = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|&name| name.to_owned()).collect();
            select(&only).map(|rows| rows.iter().map(|row| row.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["m5", "AckBeforeFlush"]), Ok(vec!["M1", "M5"]));
        assert!(ids(&[]).is_ok_and(|all| all.len() == table::rows().count()));
        assert!(ids(&["M1", "M99"]).is_err_and(|error| error.contains("M99")));
    }
}

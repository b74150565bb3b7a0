//! The three kinds of tests: simulated clusters, the storage's exhaustive tests, tests of the library.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::child::{self, Ended};
use super::killer::{Budget, Killed, Killer, Tried};

/// A seed that takes longer hangs.
const SEED_LIMIT: Duration = Duration::from_secs(120);
/// So does a test, and the whole of the storage's tests.
const TEST_LIMIT: Duration = Duration::from_secs(1200);

/// The program with this crate's commands.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    /// Arguments before the command.
    first: Vec<String>,
}

impl Program {
    /// This very program.
    pub(super) fn this() -> std::io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, first: Vec::new() })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.first).args(args);
        command
    }
}

/// What a child's exit code says. The library's tests have their own codes.
enum Verdict {
    Passed,
    Found(String),
    Invalid,
}

/// Reads the end of `sim` or `storage`. `found` takes what was found from its output.
fn verdict(ended: &Ended, found: impl Fn(&str) -> String) -> Result<Verdict, String> {
    match ended.code() {
        Some(0) => Ok(Verdict::Passed),
        Some(1) => Ok(Verdict::Found(found(&ended.out))),
        Some(2) => Err(format!("the child did not understand us: {}", ended.last_words())),
        Some(3) => Ok(Verdict::Invalid),
        _ if ended.status.is_none() => Ok(Verdict::Found("it hung".to_owned())),
        _ => Ok(Verdict::Found(format!("it crashed: {}", ended.last_words()))),
    }
}

/// Simulated clusters, a process per seed.
pub(super) struct SimSeeds {
    program: Program,
    name: &'static str,
    profile: &'static str,
}

impl SimSeeds {
    /// Seeds of the usual profile.
    pub(super) fn dense(program: Program) -> Self {
        Self { program, name: "sim", profile: "dense" }
    }

    /// Seeds about leaders that lose touch.
    pub(super) fn leaders(program: Program) -> Self {
        Self { program, name: "leaders", profile: "leaders" }
    }

    /// Seeds of nodes that acknowledge before they flush.
    pub(super) fn asynchronous(program: Program) -> Self {
        Self { program, name: "async", profile: "async" }
    }

    /// Seeds of nodes with brokers.
    pub(super) fn brokers(program: Program) -> Self {
        Self { program, name: "broker", profile: "broker" }
    }

    fn run(&self, mutant: Option<&str>, seed: u64) -> Result<Verdict, String> {
        let seed = seed.to_string();
        let args = ["sim", "--json", "--profile", self.profile, "--seed", &seed];
        let command = self.program.command(&args);
        verdict(&child::run(command, mutant, SEED_LIMIT)?, first_breach)
    }

    /// The same; a seed that fails without the mutant too says nothing about it.
    fn compare(&self, mutant: &str, seed: u64) -> Result<Verdict, String> {
        let found = self.run(Some(mutant), seed)?;
        if let Verdict::Found(_) = found
            && let Verdict::Found(_) = self.run(None, seed)?
        {
            return Ok(Verdict::Invalid);
        }
        Ok(found)
    }
}

/// The first breach of a run's summary, which is a line of JSON.
fn first_breach(out: &str) -> String {
    let line = out.lines().last().unwrap_or_default();
    let summary: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let breach = &summary["breaches"][0];
    match (breach["kind"].as_str(), breach["detail"].as_str()) {
        (Some(kind), Some(detail)) => format!("{kind}: {detail}"),
        _ => line.to_owned(),
    }
}

impl Killer for SimSeeds {
    fn name(&self) -> &str {
        self.name
    }

    /// The lowest seed that fails, whatever the number of jobs: seeds are started in their order, and those
    /// that were begun are waited for.
    fn try_kill(&self, mutant: &str, budget: &Budget) -> Result<Tried, String> {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let seen = Mutex::new(Seen::default());
        let work = || {
            while !stop.load(Ordering::Relaxed) && Instant::now() < budget.deadline {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= budget.seeds {
                    return;
                }
                let seed = budget.first_seed + turn;
                let result = self.compare(mutant, seed);
                if seen.lock().unwrap_or_else(PoisonError::into_inner).take(seed, result) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..budget.jobs {
                scope.spawn(work);
            }
            work();
        });
        let Seen { tried, lowest, error } =
            seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let killed = lowest.map(|(seed, how)| Killed { by: format!("seed {seed}"), how });
        match error {
            Some(why) if killed.is_none() => Err(why),
            _ => Ok(Tried { killed, ..tried }),
        }
    }
}

/// What the seeds have shown so far.
#[derive(Default)]
struct Seen {
    tried: Tried,
    /// The lowest seed that failed.
    lowest: Option<(u64, String)>,
    error: Option<String>,
}

impl Seen {
    /// Adds a seed's result. True if no more seeds are wanted.
    fn take(&mut self, seed: u64, result: Result<Verdict, String>) -> bool {
        self.tried.runs += 1;
        match result {
            Ok(Verdict::Passed) => false,
            Ok(Verdict::Invalid) => {
                self.tried.invalid += 1;
                false
            }
            Ok(Verdict::Found(how)) => {
                if self.lowest.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                    self.lowest = Some((seed, how));
                }
                true
            }
            Err(why) => {
                self.error = Some(why);
                true
            }
        }
    }
}

/// The exhaustive tests of the storage, sampled.
pub(super) struct StorageTests {
    pub(super) program: Program,
}

/// A failure of the storage's tests.
struct Point {
    /// The family, and the place in it; empty if it fails before there is any.
    address: Vec<String>,
    why: String,
}

/// The first failure that the output tells: the command that repeats it, and why in the next line.
fn first_point(out: &str) -> Point {
    let mut lines = out.lines().skip_while(|line| !line.contains(" --only "));
    let command = lines.next().unwrap_or_default();
    let words = command.split_whitespace().skip_while(|word| *word != "--only");
    let address: Vec<String> = words.map(str::to_owned).collect();
    let why = if address.is_empty() { out.lines().last() } else { lines.next() };
    Point { address, why: why.unwrap_or_default().trim().to_owned() }
}

impl StorageTests {
    fn run(&self, mutant: Option<&str>, jobs: usize, only: &[String]) -> Result<Ended, String> {
        let threads = jobs.max(1).to_string();
        let mut command =
            self.program.command(&["storage", "--quick", "--fail-fast", "--threads", &threads]);
        command.args(only);
        child::run(command, mutant, TEST_LIMIT)
    }
}

impl Killer for StorageTests {
    fn name(&self) -> &str {
        "storage"
    }

    fn try_kill(&self, mutant: &str, budget: &Budget) -> Result<Tried, String> {
        let ended = self.run(Some(mutant), budget.jobs, &[])?;
        let Point { address, why } = first_point(&ended.out);
        let how = match verdict(&ended, |_| why.clone())? {
            Verdict::Passed => return Ok(Tried { runs: 1, ..Tried::default() }),
            Verdict::Invalid => return Ok(Tried { runs: 1, invalid: 1, ..Tried::default() }),
            Verdict::Found(how) => how,
        };
        // The whole family: without the mutant there may be no such point.
        let family = &address[..address.len().min(2)];
        let control = self.run(None, budget.jobs, family)?;
        if control.code() != Some(0) {
            let why = first_point(&control.out).why;
            return Err(format!("storage {} fails without a mutant: {why}", family.join(" ")));
        }
        // Without the names of the two arguments.
        let by: Vec<_> = address.iter().skip(1).step_by(2).cloned().collect();
        let by = if by.is_empty() { "without a fault".to_owned() } else { by.join(" ") };
        Ok(Tried { killed: Some(Killed { by, how }), runs: 1, invalid: 0 })
    }
}

/// One test of the library.
pub(super) struct LibraryTest {
    /// `lib`, or a file of `tests`; `broker-lib` is the broker's library, and `cli` the binary.
    pub(super) target: &'static str,
    /// The test's full name.
    pub(super) test: &'static str,
}

impl LibraryTest {
    /// Builds the test binary, with the mutants in it.
    fn build(&self) -> Result<PathBuf, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        let (package, features) = match self.target {
            "broker" | "broker-lib" | "broker_costs" => ("quorumlog-broker", "mutants"),
            "cli" => ("quorumlog-cli", "mutants"),
            _ => ("quorumlog", "client,server,mutants"),
        };
        command.args(["test", "-p", package, "--features", features]);
        command.args(["--no-run", "--message-format=json"]);
        match self.target {
            "lib" | "broker-lib" => command.arg("--lib"),
            "cli" => command.args(["--bin", "quorumlog"]),
            target => command.args(["--test", target]),
        };
        let ended = child::run(command, None, TEST_LIMIT)?;
        let messages = ended.out.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut built = messages.filter_map(|message: serde_json::Value| {
            message["executable"].as_str().map(PathBuf::from)
        });
        let built = built.next_back().filter(|_| ended.code() == Some(0));
        built
            .ok_or_else(|| format!("cannot build the test {}: {}", self.target, ended.last_words()))
    }
}

impl Killer for LibraryTest {
    fn name(&self) -> &str {
        "test"
    }

    fn try_kill(&self, mutant: &str, _budget: &Budget) -> Result<Tried, String> {
        let binary = self.build()?;
        let run = |mutant| {
            let mut command = Command::new(&binary);
            command.args(["--exact", self.test]);
            child::run(command, mutant, TEST_LIMIT)
        };
        let control = run(None)?;
        if !control.out.contains("running 1 test") {
            return Err(format!("there is no test {} in {}", self.test, self.target));
        }
        if control.code() != Some(0) {
            return Err(format!("{} fails without a mutant: {}", self.test, panic_of(&control)));
        }
        let ended = run(Some(mutant))?;
        let how = match ended.code() {
            Some(0) => None,
            None if ended.status.is_none() => Some("it hung".to_owned()),
            _ => Some(panic_of(&ended)),
        };
        let by = format!("{}::{}", self.target, self.test);
        Ok(Tried { killed: how.map(|how| Killed { by, how }), runs: 1, invalid: 0 })
    }
}

/// The message of the panic that made a test fail.
fn panic_of(ended: &Ended) -> String {
    let mut lines = ended.out.lines().skip_while(|line| !line.contains(" panicked at "));
    let message = lines.nth(1).map(str::trim).filter(|line| !line.is_empty());
    message.unwrap_or_else(|| ended.last_words()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that stands in for the commands of this crate.
    fn stand_in(script: &str) -> Program {
        let first = ["-c", script, "stand-in"].map(str::to_owned).to_vec();
        Program { path: PathBuf::from("/bin/sh"), first }
    }

    fn budget(seeds: u64, jobs: usize) -> Budget {
        let deadline = Instant::now() + Duration::from_secs(60);
        Budget { seeds, first_seed: 1, jobs, deadline }
    }

    #[test]
    fn the_lowest_failing_seed_is_told_whatever_the_jobs() {
        let breach = r#"{"breaches":[{"kind":"C1","detail":"lost 7"}]}"#;
        let program = stand_in(&format!(
            "[ \"$*\" = \"sim --json --profile leaders --seed $6\" ] || exit 2\n\
             [ $6 = 3 ] && exit 1\n\
             [ \"$QUORUMLOG_MUTANT\" = Bug ] || exit 0\n\
             case $6 in 2) exit 3;; 5|6) echo '{breach}'; exit 1;; *) exit 0;; esac"
        ));
        let sim = SimSeeds::leaders(program);
        for jobs in [1, 3] {
            let tried = sim.try_kill("Bug", &budget(100, jobs)).expect("it runs");
            let killed = Killed { by: "seed 5".to_owned(), how: "C1: lost 7".to_owned() };
            assert_eq!((tried.killed, tried.invalid), (Some(killed), 2), "3 fails in any case");
            assert!((5..100).contains(&tried.runs), "{} runs", tried.runs);
        }
        let tried = sim.try_kill("Other", &budget(9, 2)).expect("it runs");
        assert_eq!(tried, Tried { killed: None, runs: 9, invalid: 1 });
    }

    #[test]
    fn a_crash_counts_and_bad_usage_is_an_error() {
        let crashes = "[ -z \"$QUORUMLOG_MUTANT\" ] && exit 0; echo I6 >&2; kill -9 $$";
        let sim = SimSeeds::dense(stand_in(crashes));
        let tried = sim.try_kill("Bug", &budget(1, 1)).expect("it runs");
        assert_eq!(tried.killed.expect("a crash").how, "it crashed: I6");
        let sim = SimSeeds::dense(stand_in("exit 2"));
        assert!(sim.try_kill("Bug", &budget(1, 1)).is_err());
    }

    #[test]
    fn the_first_point_of_the_storage_tests_is_told_if_it_passes_without_the_mutant() {
        let lines =
            "1/9 flip: 8 points\n\ncargo run -- storage --quick --only flip --at 3.1\nit lied";
        let tests = |control: &str| {
            let script = format!(
                "[ -z \"$QUORUMLOG_MUTANT\" ] && {{ [ \"$6 $7 $8\" = '--only flip ' ]; {control}; }}\n\
                 printf '%s\\n' '{lines}'; exit 1"
            );
            StorageTests { program: stand_in(&script) }
        };
        let tried = tests("exit $?").try_kill("Bug", &budget(1, 1)).expect("it runs");
        let killed = Killed { by: "flip 3.1".to_owned(), how: "it lied".to_owned() };
        assert_eq!(tried.killed, Some(killed));
        let error = tests("exit 1").try_kill("Bug", &budget(1, 1)).expect_err("it shows nothing");
        assert!(error.contains("storage --only flip fails without a mutant"), "{error}");
    }
}

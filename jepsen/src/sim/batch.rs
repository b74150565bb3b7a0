//! Many seeds, one process each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::profile::ProfileKind;
use super::story;
use super::summary::{Breach, Summary, Totals, Verdict};

/// A run that takes longer hangs, on however busy a machine.
const fn patience(profile: ProfileKind) -> Duration {
    match profile {
        ProfileKind::Dense | ProfileKind::Leaders | ProfileKind::Async | ProfileKind::Broker => {
            Duration::from_secs(300)
        }
        ProfileKind::Long => Duration::from_secs(3600),
    }
}

/// Failures whose story is told in full.
const TOLD_MAX: usize = 5;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Seeds to run.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    pub(crate) jobs: usize,
    /// So many of them run twice.
    pub(crate) twice: u64,
    pub(crate) shrink: bool,
    /// Arguments for each.
    pub(crate) common: Vec<String>,
    pub(crate) profile: ProfileKind,
}

/// Starts each run in its own process.
#[derive(Debug)]
pub(crate) struct Children {
    common: Vec<String>,
    patience: Duration,
}

impl Children {
    pub(crate) fn new(common: Vec<String>, profile: ProfileKind) -> Self {
        Self { common, patience: patience(profile) }
    }

    /// Arguments that all of them get.
    pub(crate) fn common(&self) -> &[String] {
        &self.common
    }

    /// Runs a seed with these arguments beside the common ones.
    pub(crate) fn run(&self, seed: u64, more: &[String]) -> Summary {
        self.try_run(seed, more).unwrap_or_else(|error| {
            Summary::died(seed, format!("its process could not be started: {error}"))
        })
    }

    fn try_run(&self, seed: u64, more: &[String]) -> io::Result<Summary> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["sim", "--json", "--seed", &seed.to_string()])
            .args(&self.common)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let (sender, ended) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut text = String::new();
                // What cannot be read counts as not said.
                let _ = out.as_mut().map(|out| out.read_to_string(&mut text));
                // The parent waits for it.
                let _ = sender.send(text);
            });
            let complaints = scope.spawn(move || {
                let mut text = Vec::new();
                let _ = err.as_mut().map(|err| err.read_to_end(&mut text));
                String::from_utf8_lossy(&text).into_owned()
            });
            let Ok(text) = ended.recv_timeout(self.patience) else {
                child.kill()?;
                child.wait()?;
                let reason = format!("it hung for {:?} and was killed", self.patience);
                return Ok(Summary::died(seed, reason));
            };
            let status = child.wait()?;
            let complaints = complaints.join().unwrap_or_default();
            let summary = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
            Ok(summary.unwrap_or_else(|| {
                Summary::died(seed, format!("its process ended with {status}: {complaints}"))
            }))
        })
    }

    /// Runs a seed twice, and compares what happened.
    fn run_twice(&self, seed: u64) -> Summary {
        let dir = output_dir();
        let path = |turn: u32| {
            PathBuf::from(&dir).join(format!("trace-{}-{seed}-{turn}.txt", std::process::id()))
        };
        let run = |turn| {
            let file = ["--trace-file".to_owned(), path(turn).display().to_string()];
            self.run(seed, &file)
        };
        let (mut first, second) = (run(1), run(2));
        let texts = [1, 2].map(|turn| std::fs::read(path(turn)).unwrap_or_default());
        let equal = first.trace_hash == second.trace_hash && texts[0] == texts[1];
        if equal && first.verdict == second.verdict {
            for turn in [1, 2] {
                // It is only in the way.
                let _ = std::fs::remove_file(path(turn));
            }
            return first;
        }
        let lines = texts.each_ref().map(|text| text.split(|byte| *byte == b'\n'));
        let [left, right] = lines;
        let line = left.zip(right).take_while(|(a, b)| a == b).count() + 1;
        let (one, two) = (path(1), path(2));
        first.verdict = Verdict::Failed;
        first.breaches.push(Breach {
            kind: "not-deterministic".to_owned(),
            detail: format!("line {line} differs: {} and {}", one.display(), two.display()),
        });
        first
    }
}

/// Where files go; made if absent.
pub(crate) fn output_dir() -> String {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let dir = format!("{target}/jepsen");
    // Without it the files themselves cannot be written, which will be said.
    let _ = std::fs::create_dir_all(&dir);
    dir
}

/// What the jobs share.
struct Progress {
    totals: Totals,
    failures: BTreeMap<u64, Summary>,
    invalid: BTreeSet<u64>,
    told: Instant,
}

impl Batch {
    /// Runs them all, with progress and a table at the end.
    ///
    /// # Errors
    /// No process could be started, or nothing can be written.
    pub(crate) fn run(&self) -> io::Result<Verdict> {
        let begun = Instant::now();
        let children = Children::new(self.common.clone(), self.profile);
        let next = AtomicU64::new(0);
        let progress = Mutex::new(Progress {
            totals: Totals::default(),
            failures: BTreeMap::new(),
            invalid: BTreeSet::new(),
            told: begun,
        });
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    loop {
                        let turn = next.fetch_add(1, Ordering::Relaxed);
                        if turn >= self.seeds {
                            return;
                        }
                        let seed = self.first + turn;
                        let twice = turn < self.twice;
                        let summary =
                            if twice { children.run_twice(seed) } else { children.run(seed, &[]) };
                        self.take(&progress, summary, twice, begun);
                    }
                });
            }
        });
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut out = io::stdout().lock();
        for summary in progress.failures.values().take(TOLD_MAX) {
            writeln!(out, "{}", story::describe(summary))?;
            writeln!(out, "{}", story::of_failure(summary, self.shrink, &children))?;
        }
        writeln!(out, "{}", progress.totals.table(wall_ms))?;
        let list = |seeds: Vec<String>| seeds.join(" ");
        if !progress.invalid.is_empty() {
            let seeds = progress.invalid.iter().take(50).map(u64::to_string).collect();
            writeln!(out, "invalid seeds: {}", list(seeds))?;
        }
        if !progress.failures.is_empty() {
            let seeds = progress.failures.keys().map(u64::to_string).collect();
            writeln!(out, "FAILED seeds: {}", list(seeds))?;
            return Ok(Verdict::Failed);
        }
        let never: Vec<_> = progress.totals.never_bit(self.profile.due()).collect();
        if !never.is_empty() {
            writeln!(out, "NEVER BIT: {}", never.join(" "))?;
        }
        let shows_all = progress.invalid.is_empty() && never.is_empty();
        Ok(if shows_all { Verdict::Passed } else { Verdict::Invalid })
    }

    fn take(&self, progress: &Mutex<Progress>, summary: Summary, twice: bool, begun: Instant) {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let Progress { totals, failures, invalid, told } = &mut *progress;
        totals.add(&summary);
        if twice && !summary.kinds().contains("not-deterministic") {
            totals.compared += 1;
        }
        let mut line = String::new();
        match summary.verdict {
            Verdict::Passed => {}
            Verdict::Invalid => drop(invalid.insert(summary.seed)),
            Verdict::Failed => {
                let kinds: Vec<_> = summary.kinds().into_iter().collect();
                line = format!("seed {} FAILED: {}\n", summary.seed, kinds.join(", "));
                failures.insert(summary.seed, summary);
            }
        }
        if told.elapsed() >= PROGRESS || totals.runs == self.seeds {
            *told = Instant::now();
            line += &format!(
                "{:>6} of {} {} seeds, {} failed, {} invalid, {:.0} seeds per hour\n",
                totals.runs,
                self.seeds,
                self.profile,
                totals.failed,
                totals.invalid,
                totals.runs as f64 * 3600.0 / begun.elapsed().as_secs_f64()
            );
        }
        // Progress that nobody reads is no failure.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

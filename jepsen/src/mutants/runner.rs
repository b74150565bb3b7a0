//! Tries one mutant after the other, and says which survive.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::killer::{Budget, Killed, Killer, Tried};
use super::killers::{LibraryTest, Program, SimSeeds, StorageTests};
use super::table::{Expected, Row};

/// Longest text of what was found, in characters.
const HOW_CHARS_MAX: usize = 100;

/// What to run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) rows: Vec<&'static Row>,
    pub(super) seeds: u64,
    pub(super) first_seed: u64,
    pub(super) jobs: usize,
    /// For each mutant and killer.
    pub(super) limit: Duration,
    /// Kinds of killers to use.
    pub(super) killers: Vec<Kind>,
}

/// A kind of killer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Kind {
    /// The exhaustive tests of the storage.
    Storage,
    /// Simulated clusters.
    Sim,
    /// Simulated clusters whose leaders lose touch, again and again.
    Leaders,
    /// Simulated clusters that acknowledge before they flush, and lose power.
    Async,
    /// Simulated clusters with brokers, whose clients speak RocketMQ's protocol.
    Broker,
    /// The test of the library that the table names.
    Test,
}

/// What came of all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Score {
    pub(super) killed: usize,
    /// Ids and names.
    pub(super) survivors: Vec<String>,
}

/// Makes a killer of a kind for a row; none if it has none.
pub(super) type Armoury<'a> = dyn Fn(Kind, &Row) -> Option<Box<dyn Killer>> + 'a;

/// The killers of this crate, as commands of `program`.
pub(super) fn armoury(program: Program) -> impl Fn(Kind, &Row) -> Option<Box<dyn Killer>> {
    move |kind, row| match (kind, row.expected) {
        (Kind::Storage, _) => Some(Box::new(StorageTests { program: program.clone() })),
        (Kind::Sim, _) => Some(Box::new(SimSeeds::dense(program.clone()))),
        (Kind::Leaders, _) => Some(Box::new(SimSeeds::leaders(program.clone()))),
        (Kind::Async, _) => Some(Box::new(SimSeeds::asynchronous(program.clone()))),
        (Kind::Broker, _) => Some(Box::new(SimSeeds::brokers(program.clone()))),
        (Kind::Test, Expected::Test(target, test)) => Some(Box::new(LibraryTest { target, test })),
        (Kind::Test, _) => None,
    }
}

impl Plan {
    fn budget(&self) -> Budget {
        let deadline = Instant::now() + self.limit;
        Budget { seeds: self.seeds, first_seed: self.first_seed, jobs: self.jobs, deadline }
    }

    /// Kinds of killers for a row: the one that is expected to find it first.
    fn order(&self, row: &Row) -> Vec<Kind> {
        let expected = match row.expected {
            Expected::Storage => Some(Kind::Storage),
            Expected::Sim => Some(Kind::Sim),
            Expected::Leaders => Some(Kind::Leaders),
            Expected::Async => Some(Kind::Async),
            Expected::Broker => Some(Kind::Broker),
            Expected::Test(..) => Some(Kind::Test),
            Expected::NotApplicable(_) | Expected::Equivalent(_) => return Vec::new(),
        };
        let mut kinds = self.killers.clone();
        kinds.sort_by_key(|kind| (Some(*kind) != expected, *kind));
        kinds.dedup();
        kinds
    }

    /// Tries them all, and writes a line for each.
    ///
    /// # Errors
    /// A killer cannot be run, or fails without any mutant.
    pub(super) fn run(&self, armoury: &Armoury<'_>, out: &mut dyn Write) -> Result<Score, String> {
        let unwritable = |error: io::Error| format!("cannot write the table: {error}");
        let mut score = Score::default();
        writeln!(out, "{}", line("", "mutant", "", "killer", "runs", "time", "what it found"))
            .map_err(unwritable)?;
        for row in &self.rows {
            if let Expected::NotApplicable(why) | Expected::Equivalent(why) = row.expected {
                writeln!(out, "{}", line(row.id, "", "-", "", "", "", why)).map_err(unwritable)?;
                continue;
            }
            let begun = Instant::now();
            let mut whole = Tried::default();
            let mut killer_name = String::new();
            for kind in self.order(row) {
                let Some(killer) = armoury(kind, row) else { continue };
                let tried = killer.try_kill(row.name, &self.budget())?;
                whole.runs += tried.runs;
                whole.invalid += tried.invalid;
                if tried.killed.is_some() {
                    whole.killed = tried.killed;
                    killer_name = killer.name().to_owned();
                    break;
                }
            }
            let seconds = format!("{:.1}s", begun.elapsed().as_secs_f64());
            let text = tell(row, &whole, &killer_name, &seconds);
            writeln!(out, "{text}").and_then(|()| out.flush()).map_err(unwritable)?;
            match whole.killed {
                Some(_) => score.killed += 1,
                None => score.survivors.push(format!("{} {}", row.id, row.name)),
            }
        }
        let all = score.killed + score.survivors.len();
        writeln!(out, "{} of {all} mutants killed", score.killed).map_err(unwritable)?;
        for survivor in &score.survivors {
            writeln!(out, "SURVIVED: {survivor}").map_err(unwritable)?;
        }
        Ok(score)
    }
}

fn tell(row: &Row, tried: &Tried, killer: &str, seconds: &str) -> String {
    let runs = match tried.invalid {
        0 => tried.runs.to_string(),
        invalid => format!("{} ({invalid} invalid)", tried.runs),
    };
    match &tried.killed {
        Some(Killed { by, how }) => {
            let first = how.lines().next().unwrap_or_default();
            let how: String = first.chars().take(HOW_CHARS_MAX).collect();
            line(row.id, row.name, "killed", &format!("{killer} {by}"), &runs, seconds, &how)
        }
        None => line(row.id, row.name, "SURVIVED", "", &runs, seconds, row.breaks),
    }
}

fn line(
    id: &str,
    name: &str,
    result: &str,
    killer: &str,
    runs: &str,
    time: &str,
    how: &str,
) -> String {
    let text = format!("{id:<5} {name:<26} {result:<9} {killer:<26} {runs:>6} {time:>8}  {how}");
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the mutants with this name.
    struct Finds(&'static str);

    impl Killer for Finds {
        fn name(&self) -> &str {
            "stand-in"
        }

        fn try_kill(&self, mutant: &str, budget: &Budget) -> Result<Tried, String> {
            let found = mutant == self.0;
            let killed =
                found.then(|| Killed { by: "seed 3".to_owned(), how: "it bit\nhard".to_owned() });
            Ok(Tried { killed, runs: budget.seeds, invalid: 0 })
        }
    }

    const ROWS: [Row; 3] = [
        row("X1", "Storage", Expected::Storage),
        row("X2", "Nobody", Expected::Sim),
        row("X3", "", Expected::NotApplicable("there is none")),
    ];

    const fn row(id: &'static str, name: &'static str, expected: Expected) -> Row {
        Row { id, name, breaks: "something", place: "", rule: "", expected }
    }

    fn plan() -> Plan {
        Plan {
            rows: ROWS.iter().collect(),
            seeds: 7,
            first_seed: 1,
            jobs: 1,
            limit: Duration::from_secs(60),
            killers: vec![Kind::Storage, Kind::Sim, Kind::Test],
        }
    }

    fn finds(kind: Kind, _: &Row) -> Option<Box<dyn Killer>> {
        let name = if kind == Kind::Storage { "Storage" } else { "Other" };
        (kind != Kind::Test).then(|| Box::new(Finds(name)) as Box<dyn Killer>)
    }

    #[test]
    fn who_is_found_by_nobody_survives_and_is_named() {
        let mut out = Vec::new();
        let score = plan().run(&finds, &mut out).expect("it runs");
        assert_eq!(score, Score { killed: 1, survivors: vec!["X2 Nobody".to_owned()] });
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("X1    Storage") && lines[1].contains("killed"), "{text}");
        assert!(lines[1].ends_with("it bit") && lines[2].contains("SURVIVED"), "{text}");
        assert!(lines[2].contains(" 14 "), "both killers had their seeds: {text}");
        assert!(lines[3].ends_with("there is none"), "{text}");
        assert!(text.contains("1 of 2 mutants killed"), "{text}");
    }

    #[test]
    fn the_expected_killer_comes_first() {
        assert_eq!(plan().order(&ROWS[0]), [Kind::Storage, Kind::Sim, Kind::Test]);
        assert_eq!(plan().order(&ROWS[1]), [Kind::Sim, Kind::Storage, Kind::Test]);
        assert_eq!(plan().order(&ROWS[2]), []);
    }
}

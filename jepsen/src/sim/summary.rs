//! What one run came to: what a child process tells its parent, and what the table at the end adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::FaultCount;

/// A fault that was put in so often without any effect is not one.
const INJECTED_FOR_NOTHING: u64 = 30;
/// So many runs go through all that their profile is about.
const RUNS_THAT_SHOW_ALL: u64 = 100;

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// All held, and the run went through enough to show it.
    Passed,
    /// Something did not hold, or the library panicked.
    Failed,
    /// Nothing was wrong, but the run shows too little.
    Invalid,
}

impl Verdict {
    /// What the process exits with.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Invalid => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Invalid => "invalid",
        })
    }
}

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Breach {
    /// What kind, in one word: a shrunk run has to show the same.
    pub(crate) kind: String,
    /// Where and how.
    pub(crate) detail: String,
}

/// One thing that happened, for the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Simulated time.
    pub(crate) at_ms: u64,
    /// When it was over, for what lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until_ms: Option<u64>,
    /// Whose: `node 1`, `cluster`.
    pub(crate) lane: String,
    /// What.
    pub(crate) what: String,
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    pub(crate) verdict: Verdict,
    pub(crate) breaches: Vec<Breach>,
    /// Why the run shows too little.
    pub(crate) vacuous: Vec<String>,
    pub(crate) profile: String,
    /// Faults of the schedule: number and text.
    pub(crate) schedule: Vec<(usize, String)>,
    pub(crate) faults: BTreeMap<String, FaultCount>,
    pub(crate) operations: u64,
    pub(crate) ok: u64,
    pub(crate) acknowledged: u64,
    /// Acknowledgements that the auditor looked at.
    pub(crate) audited: u64,
    pub(crate) leaders: u64,
    pub(crate) restarts: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) heal_ms: u64,
    pub(crate) cpu_ms: u64,
    pub(crate) trace_lines: u64,
    pub(crate) trace_hash: u64,
    /// Of a run that did not pass.
    #[serde(default)]
    pub(crate) events: Vec<Event>,
}

impl Summary {
    /// Kinds of breaches.
    pub(crate) fn kinds(&self) -> BTreeSet<&str> {
        self.breaches.iter().map(|breach| breach.kind.as_str()).collect()
    }

    /// A run whose process ended without saying what it came to.
    pub(crate) fn died(seed: u64, how: String) -> Self {
        Self {
            seed,
            verdict: Verdict::Failed,
            breaches: vec![Breach { kind: "died".to_owned(), detail: how }],
            vacuous: Vec::new(),
            profile: String::new(),
            schedule: Vec::new(),
            faults: BTreeMap::new(),
            operations: 0,
            ok: 0,
            acknowledged: 0,
            audited: 0,
            leaders: 0,
            restarts: 0,
            simulated_ms: 0,
            heal_ms: 0,
            cpu_ms: 0,
            trace_lines: 0,
            trace_hash: 0,
            events: Vec::new(),
        }
    }
}

/// Sums over many runs.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) runs: u64,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) invalid: u64,
    pub(crate) compared: u64,
    faults: BTreeMap<String, FaultCount>,
    operations: u64,
    ok: u64,
    acknowledged: u64,
    audited: u64,
    leaders: u64,
    restarts: u64,
    simulated_ms: u64,
    heal_max: (u64, u64),
    cpu_ms: u64,
}

impl Totals {
    /// Adds a run.
    pub(crate) fn add(&mut self, run: &Summary) {
        self.runs += 1;
        match run.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Invalid => self.invalid += 1,
        }
        for (kind, count) in &run.faults {
            let sum = self.faults.entry(kind.clone()).or_default();
            sum.injected += count.injected;
            sum.bites += count.bites;
        }
        self.operations += run.operations;
        self.ok += run.ok;
        self.acknowledged += run.acknowledged;
        self.audited += run.audited;
        self.leaders += run.leaders;
        self.restarts += run.restarts;
        self.simulated_ms += run.simulated_ms;
        self.heal_max = self.heal_max.max((run.heal_ms, run.seed));
        self.cpu_ms += run.cpu_ms;
    }

    /// Kinds of faults that were put in so often that one must have taken effect, and none did; and of `due` those that never
    /// happened.
    pub(crate) fn never_bit<'a>(&'a self, due: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let none = |count: &FaultCount| count.injected >= INJECTED_FOR_NOTHING && count.bites == 0;
        let idle = self.faults.iter().filter(move |(_, count)| none(count));
        let is_missing = |kind: &&&str| {
            self.runs >= RUNS_THAT_SHOW_ALL
                && self.faults.get(**kind).is_none_or(|count| count.bites == 0)
        };
        idle.map(|(kind, _)| kind.as_str()).chain(due.iter().filter(is_missing).copied())
    }

    /// The table at the end. `wall_ms` is how long it all took.
    pub(crate) fn table(&self, wall_ms: u64) -> String {
        let rate = self.runs as f64 * 3_600_000.0 / wall_ms.max(1) as f64;
        let each = |sum: u64| sum as f64 / self.runs.max(1) as f64;
        let mut lines = vec![
            format!("seeds                 {:>12}", self.runs),
            format!("  passed              {:>12}", self.passed),
            format!("  FAILED              {:>12}", self.failed),
            format!("  invalid             {:>12}", self.invalid),
            format!("  run twice, equal    {:>12}", self.compared),
            format!("seeds per hour        {rate:>12.0}"),
            format!("CPU ms per seed       {:>12.0}", each(self.cpu_ms)),
            format!("simulated seconds     {:>12.0}", self.simulated_ms as f64 / 1000.0),
            format!(
                "operations checked    {:>12}   {:.0} a seed",
                self.operations,
                each(self.operations)
            ),
            format!("  ok                  {:>12}", self.ok),
            format!("appends acknowledged  {:>12}", self.acknowledged),
            format!("  audited on disk     {:>12}", self.audited),
            format!(
                "leaders elected       {:>12}   {:.1} a seed",
                self.leaders,
                each(self.leaders)
            ),
            format!(
                "restarts              {:>12}   {:.1} a seed",
                self.restarts,
                each(self.restarts)
            ),
            format!("longest heal          {:>9} ms   seed {}", self.heal_max.0, self.heal_max.1),
            format!("{:<24}{:>9}{:>12}", "fault", "injected", "bit"),
        ];
        lines.extend(
            self.faults.iter().map(|(kind, count)| {
                format!("  {kind:<22}{:>9}{:>12}", count.injected, count.bites)
            }),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(faults: &[(&str, u64, u64)], runs: u64) -> Totals {
        let count = |(kind, injected, bites): &(&str, u64, u64)| {
            ((*kind).to_owned(), FaultCount { injected: *injected, bites: *bites })
        };
        Totals { runs, faults: faults.iter().map(count).collect(), ..Totals::default() }
    }

    #[test]
    fn faults_that_never_bit_in_many_runs_are_named() {
        let totals =
            runs(&[("kill", 90, 0), ("pause", 90, 1), ("join", 3, 0), ("rewind", 0, 2)], 150);
        let never = |due| totals.never_bit(due).collect::<Vec<_>>();
        assert_eq!(never(&["rewind"]), ["kill"]);
        assert_eq!(never(&["rewind", "lost-pages"]), ["kill", "lost-pages"]);
        assert_eq!(runs(&[], 5).never_bit(&["rewind"]).count(), 0, "few runs show little");
    }
}

//! What may find a mutant.

use std::time::Instant;

/// What may be spent on one mutant.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    /// Seeds, from `first_seed` on.
    pub(super) seeds: u64,
    pub(super) first_seed: u64,
    /// Processes at once.
    pub(super) jobs: usize,
    /// Nothing is started after this.
    pub(super) deadline: Instant,
}

/// What made a test fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Killed {
    /// The seed, or the test.
    pub(super) by: String,
    /// What it found, in a line.
    pub(super) how: String,
}

/// What came of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) killed: Option<Killed>,
    /// Seeds or tests that ran.
    pub(super) runs: u64,
    /// Runs that do not count: they showed too little, or fail in any case.
    pub(super) invalid: u64,
}

/// Tests that can be run with a mutant in force.
pub(super) trait Killer: Sync {
    /// What they are.
    fn name(&self) -> &str;

    /// Runs them with this mutant until one fails that passes without it, or the budget is used up.
    ///
    /// # Errors
    /// They cannot be run, or fail without any mutant: then they show nothing.
    fn try_kill(&self, mutant: &str, budget: &Budget) -> Result<Tried, String>;
}

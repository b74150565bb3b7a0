//! Tests of the tests: every deliberate bug in the library has to make one of them fail.
//!
//! The bugs are in the library behind the feature `mutants`, and a process has at most one. The runner tries
//! one after the other: it runs the tests in child processes that have the bug, until one fails. A mutant that
//! survives is a hole in the tests.

mod child;
mod command;
mod killer;
mod killers;
mod runner;
mod table;

pub use command::{MutantsArgs, run};

/// Turns a mutant on in this process, by its name.
#[cfg(feature = "mutants")]
pub(crate) fn activate(mutant: &str) -> Result<(), String> {
    if !names().any(|name| name == mutant) {
        return Err(format!("there is no mutant {mutant:?}"));
    }
    quorumlog::simulation::select_mutant(mutant);
    Ok(())
}

/// Checks the name that `QUORUMLOG_MUTANT` gives, if it gives one.
///
/// # Errors
/// There is no such mutant in this program.
#[cfg(feature = "mutants")]
pub fn check_selected() -> Result<(), String> {
    let name = std::env::var(child::VARIABLE).unwrap_or_default();
    match name.is_empty() || names().any(|known| known == name) {
        true => Ok(()),
        false => Err(format!("there is no mutant {name:?}")),
    }
}

/// The names of the library's mutants, and of the broker's.
#[cfg(feature = "mutants")]
fn names() -> impl Iterator<Item = &'static str> {
    let all = [quorumlog::simulation::Mutant::NAMES, quorumlog_broker::mutant::Mutant::NAMES];
    all.into_iter().flatten().copied()
}

/// A library without mutants has none to turn on.
#[cfg(not(feature = "mutants"))]
pub(crate) fn activate(mutant: &str) -> Result<(), String> {
    Err(format!("{mutant:?} needs a build with --features mutants"))
}

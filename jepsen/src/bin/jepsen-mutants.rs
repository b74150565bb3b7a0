//! The harness's commands, in a build whose library holds the mutants. `QUORUMLOG_MUTANT` names the one that
//! a process has.

#[path = "../main.rs"]
mod commands;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = commands::main();
    let reached = quorumlog::simulation::mutant_reached();
    if reached > 0 {
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stderr(), "the mutant was reached {reached} times");
    }
    code
}

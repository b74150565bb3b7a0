//! The harness's commands, in a build whose library holds the mutants. `QUORUMLOG_MUTANT` names the one that
//! a process has.

#[path = "../main.rs"]
mod commands;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(reason) = jepsen::mutants::check_selected() {
        let _ = writeln!(std::io::stderr(), "error: {reason}");
        return ExitCode::from(2);
    }
    let code = commands::main();
    let reached = quorumlog::simulation::mutant_reached();
    if reached > 0 {
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stderr(), "the mutant was reached {reached} times");
    }
    code
}

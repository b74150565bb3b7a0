//! What a failing run looks like: its command, what did not hold, the faults that it takes, and a timeline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::batch::{Children, output_dir};
use super::picture;
use super::shrink::shrink;
use super::summary::{Breach, Event, Summary, Verdict};

/// How long a smaller schedule is looked for.
const SHRINK_TIME: Duration = Duration::from_secs(90);
/// What did not hold is printed so often for each kind.
const BREACHES_MAX: usize = 5;
/// Lines of a timeline that are printed; the picture has all.
const TIMELINE_MAX: usize = 120;

/// The outcome in a few lines.
pub(crate) fn describe(summary: &Summary) -> String {
    let Summary { seed, verdict, profile, .. } = summary;
    let mut text = format!("seed {seed} {verdict}\n{profile}\n");
    let _ = writeln!(
        text,
        "{} operations, {} ok, {} appends acknowledged, {} audited, {} leaders, {} restarts, \
         {} ms simulated, {} ms to heal, {} ms of CPU, trace of {} lines with hash {:016x}",
        summary.operations,
        summary.ok,
        summary.acknowledged,
        summary.audited,
        summary.leaders,
        summary.restarts,
        summary.simulated_ms,
        summary.heal_ms,
        summary.cpu_ms,
        summary.trace_lines,
        summary.trace_hash
    );
    text += &breaches(&summary.breaches);
    for reason in &summary.vacuous {
        let _ = writeln!(text, "  shows too little: {reason}");
    }
    text
}

/// What did not hold: the first few of each kind.
fn breaches(all: &[Breach]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut text = String::new();
    for Breach { kind, detail } in all {
        let count = counts.entry(kind).or_default();
        *count += 1;
        if *count <= BREACHES_MAX {
            let _ = writeln!(text, "  {kind}: {detail}");
        }
    }
    for (kind, count) in counts.into_iter().filter(|(_, count)| *count > BREACHES_MAX) {
        let _ = writeln!(text, "  {kind}: {} more", count - BREACHES_MAX);
    }
    text
}

/// The arguments that leave out all other faults. With none, there is nothing behind the name.
fn keep(ids: &[usize]) -> Vec<String> {
    let ids: Vec<_> = ids.iter().map(usize::to_string).collect();
    let list = (!ids.is_empty()).then(|| ids.join(","));
    std::iter::once("--keep".to_owned()).chain(list).collect()
}

/// How to see it again, the faults that it takes, and the timeline.
pub(crate) fn of_failure(summary: &Summary, may_shrink: bool, children: &Children) -> String {
    // The library holds the mutants in a separate build.
    let build =
        if cfg!(feature = "mutants") { " --features mutants --bin jepsen-mutants" } else { "" };
    let again = format!(
        "cargo run --release -p jepsen{build} -- sim --seed {} {}",
        summary.seed,
        children.common().join(" ")
    );
    let mut text = format!("again:  {again}\n");
    let mut shown = summary.clone();
    if may_shrink {
        let (kept, smaller) = smaller(summary, children);
        let _ = writeln!(text, "with {} of {} faults:", kept.len(), summary.schedule.len());
        let _ = writeln!(text, "        {again} {}", keep(&kept).join(" "));
        for (_, line) in summary.schedule.iter().filter(|(id, _)| kept.contains(id)) {
            let _ = writeln!(text, "{line}");
        }
        if let Some(smaller) = smaller {
            shown = smaller;
            text += &breaches(&shown.breaches);
        }
    }
    text += &timeline(&shown.events);
    let path = format!("{}/seed-{}.html", output_dir(), summary.seed);
    match std::fs::write(&path, picture::html(&shown)) {
        Ok(()) => drop(writeln!(text, "picture: {path}")),
        Err(error) => drop(writeln!(text, "no picture in {path}: {error}")),
    }
    text
}

/// The smallest schedule found that fails in the same way, and its run.
fn smaller(summary: &Summary, children: &Children) -> (Vec<usize>, Option<Summary>) {
    let deadline = Instant::now() + SHRINK_TIME;
    let mut smallest = None;
    let mut attempt = |kept: &[usize]| {
        if Instant::now() >= deadline {
            return None;
        }
        let run = children.run(summary.seed, &keep(kept));
        let same = run.verdict == Verdict::Failed && !run.kinds().is_disjoint(&summary.kinds());
        if same {
            smallest = Some(run);
        }
        Some(same)
    };
    let ids = summary.schedule.iter().map(|(id, _)| *id).collect();
    let kept = shrink(ids, &mut attempt);
    (kept, smallest)
}

fn timeline(events: &[Event]) -> String {
    let mut text = String::from("timeline:\n");
    let left_out = events.len().saturating_sub(TIMELINE_MAX);
    if left_out > 0 {
        let _ = writeln!(text, "  ... {left_out} earlier events, see the picture");
    }
    for Event { at_ms, until_ms, lane, what } in &events[left_out..] {
        let until = until_ms.map(|until| format!(" (until {until} ms)")).unwrap_or_default();
        let _ = writeln!(text, "  {at_ms:>6} ms  {lane:<9} {what}{until}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::sim::SimArgs;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: SimArgs,
    }

    #[test]
    fn the_command_line_takes_what_is_asked_of_a_smaller_run() {
        for ids in [vec![], vec![3], vec![3, 17]] {
            let arguments = ["sim", "--seed", "1"].map(str::to_owned).into_iter().chain(keep(&ids));
            let command = Command::try_parse_from(arguments).expect("it is what it takes");
            assert_eq!(command.args.keep.as_deref(), Some(&ids[..]));
        }
    }

    #[test]
    fn many_breaches_of_one_kind_do_not_hide_one_of_another() {
        let breach = |kind: &str| Breach { kind: kind.to_owned(), detail: "it is so".to_owned() };
        let mut all = vec![breach("lost-write"); BREACHES_MAX + 3];
        all.push(breach("phantom"));
        let text = breaches(&all);
        assert!(text.contains("  phantom: it is so\n"), "{text}");
        assert!(text.contains("  lost-write: 3 more\n"), "{text}");
        assert_eq!(text.lines().count(), BREACHES_MAX + 2);
    }
}

//! What a failing run looks like: its command, what did not hold, the faults that it takes, and a timeline.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::batch::{Children, output_dir};
use super::picture;
use super::shrink::shrink;
use super::summary::{Event, Summary, Verdict};

/// How long a smaller schedule is looked for.
const SHRINK_TIME: Duration = Duration::from_secs(90);
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
    for breach in &summary.breaches {
        let _ = writeln!(text, "  {}: {}", breach.kind, breach.detail);
    }
    for reason in &summary.vacuous {
        let _ = writeln!(text, "  shows too little: {reason}");
    }
    text
}

/// How to see it again, the faults that it takes, and the timeline.
pub(crate) fn of_failure(summary: &Summary, may_shrink: bool, children: &Children) -> String {
    let again = format!(
        "cargo run --release -p jepsen -- sim --seed {} {}",
        summary.seed,
        children.common().join(" ")
    );
    let mut text = format!("again:  {again}\n");
    let mut shown = summary.clone();
    if may_shrink {
        let (kept, smaller) = smaller(summary, children);
        let ids: Vec<_> = kept.iter().map(usize::to_string).collect();
        let _ = writeln!(text, "with {} of {} faults:", kept.len(), summary.schedule.len());
        let _ = writeln!(text, "        {again} --keep {}", ids.join(","));
        for (_, line) in summary.schedule.iter().filter(|(id, _)| kept.contains(id)) {
            let _ = writeln!(text, "{line}");
        }
        if let Some(smaller) = smaller {
            shown = smaller;
            for breach in shown.breaches.iter().take(10) {
                let _ = writeln!(text, "  {}: {}", breach.kind, breach.detail);
            }
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
        let ids: Vec<_> = kept.iter().map(usize::to_string).collect();
        let keep = format!("--keep={}", ids.join(","));
        let run = children.run(summary.seed, &[keep]);
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

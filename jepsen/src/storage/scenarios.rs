//! The scenarios in which every call of the disk is a place to crash or fail at.

use quorumlog::Flush;

use super::script::{
    Script, Step, append, batch, blank, cut, id, idle, install, members, purge, record, records,
    vote,
};

const LOG: u64 = 7;
const SEGMENT: u64 = 12 << 10;

fn script(name: &'static str, steps: Vec<Step>) -> Script {
    Script { name, flush: Flush::Sync, segment_size: SEGMENT, steps }
}

fn apply(change: quorumlog::simulation::StoredChange) -> Step {
    Step::Apply(LOG, change)
}

fn commit(term: u64, index: u64) -> Step {
    Step::Commit(LOG, id(term, index))
}

fn received(term: u64, index: u64) -> Step {
    Step::Received(LOG, id(term, index), 1500, 600)
}

fn checkpoint(term: u64, index: u64) -> Step {
    Step::Checkpoint(LOG, id(term, index), 1500)
}

/// A log with a vote and a membership.
fn begin() -> Vec<Step> {
    vec![Step::Make(LOG), apply(vote(1, true)), apply(append(vec![members(1, 0)]))]
}

fn after_begin(steps: Vec<Step>) -> Vec<Step> {
    [begin(), steps].concat()
}

/// All of them.
pub(crate) fn all() -> Vec<Script> {
    vec![
        first_open(),
        appends(),
        roll(),
        truncate(),
        purges(),
        checkpoints(),
        installs(),
        votes(),
        group_commit(),
        no_flush(),
        create_and_destroy(),
        restarts(),
        join(),
        everything(),
    ]
}

/// A new data directory, its first log, and a second one.
fn first_open() -> Script {
    let steps = vec![
        Step::Cluster(77),
        Step::Make(0),
        Step::Apply(0, vote(1, false)),
        Step::Apply(0, append(vec![members(1, 0), blank(1, 1)])),
        Step::Make(1),
        Step::Apply(1, append(records(1, 0..2, 80))),
        Step::Restart,
        Step::Apply(1, append(records(1, 2..3, 80))),
    ];
    script("first-open", steps)
}

/// Records of many sizes, alone, in groups and in batches, with and without a marker behind them.
fn appends() -> Script {
    let steps = vec![
        apply(append(vec![record(1, 1, 0)])),
        apply(append(records(1, 2..9, 100))),
        idle(),
        apply(append(vec![record(1, 9, 3000)])),
        commit(1, 9),
        apply(append(batch(1, 10..15, 40))),
        idle(),
        apply(append(vec![blank(2, 15), members(2, 16)])),
        apply(append(vec![record(2, 17, 1)])),
    ];
    script("append", after_begin(steps))
}

/// Segments that fill up, and an entry that is larger than a segment.
fn roll() -> Script {
    let steps = vec![
        apply(append(records(1, 1..6, 1900))),
        apply(append(records(1, 6..9, 1100))),
        commit(1, 7),
        idle(),
        apply(append(records(1, 9..15, 1000))),
        apply(append(vec![record(1, 15, 20_000)])),
        apply(append(vec![record(1, 16, 10)])),
        idle(),
        apply(append(records(2, 17..20, 2000))),
    ];
    script("roll", after_begin(steps))
}

/// Cuts in the active segment, at its beginning, in a sealed one, and of everything.
fn truncate() -> Script {
    let steps = vec![
        apply(append(records(1, 1..6, 700))),
        apply(cut(1, 3)),
        apply(append(records(2, 4..9, 700))),
        apply(append(records(2, 9..16, 900))),
        apply(append(records(2, 16..22, 900))),
        apply(cut(2, 10)),
        apply(append(records(3, 11..14, 400))),
        idle(),
        apply(append(records(3, 14..22, 800))),
        apply(cut(3, 13)),
        // Both before the writer runs.
        Step::Submit(LOG, append(records(4, 14..18, 900))),
        Step::Submit(LOG, cut(4, 14)),
        Step::Submit(LOG, append(records(5, 15..18, 900))),
        Step::Settle,
        apply(quorumlog::simulation::StoredChange::TruncateAfter(None)),
        apply(append(records(6, 0..3, 50))),
    ];
    script("truncate", after_begin(steps))
}

/// The boundary moves within a segment, over several, to the tail, and beyond it.
fn purges() -> Script {
    let steps = vec![
        apply(append(records(1, 1..6, 1500))),
        apply(append(records(1, 6..12, 1500))),
        apply(append(vec![members(1, 12), record(1, 13, 1500)])),
        commit(1, 13),
        apply(purge(1, 3)),
        apply(append(records(1, 14..20, 1500))),
        commit(1, 19),
        apply(purge(1, 12)),
        Step::Submit(LOG, append(records(1, 20..23, 900))),
        Step::Commit(LOG, id(1, 21)),
        Step::Submit(LOG, purge(1, 21)),
        Step::Submit(LOG, append(records(1, 23..27, 900))),
        Step::Settle,
        apply(purge(1, 26)),
        apply(append(records(2, 27..29, 300))),
        apply(purge(3, 40)),
        apply(append(records(3, 41..43, 300))),
    ];
    script("purge", after_begin(steps))
}

/// Checkpoints, more than are kept, the boundary behind them, and one that is saved while the boundary
/// is about to move.
fn checkpoints() -> Script {
    let mut steps = after_begin(vec![
        apply(append(records(1, 1..10, 800))),
        commit(1, 9),
        checkpoint(1, 2),
        checkpoint(1, 5),
        apply(purge(1, 2)),
        received(1, 8),
        apply(purge(1, 5)),
        apply(append(records(1, 10..40, 300))),
        commit(1, 39),
    ]);
    steps.extend((10..34).map(|index| checkpoint(1, index)));
    steps.extend([
        apply(purge(1, 10)),
        Step::Submit(LOG, purge(1, 31)),
        checkpoint(1, 34),
        received(1, 35),
        Step::Settle,
        apply(append(records(2, 40..42, 300))),
    ]);
    script("checkpoint", steps)
}

/// Boundaries from a leader: beyond the tail, inside of it over other entries, at an entry that is held.
fn installs() -> Script {
    let steps = vec![
        apply(append(records(1, 1..8, 1200))),
        checkpoint(3, 20),
        apply(install(3, 20)),
        apply(append(records(3, 21..30, 1200))),
        commit(3, 22),
        checkpoint(4, 27),
        apply(install(4, 27)),
        apply(append(records(4, 28..33, 700))),
        commit(4, 32),
        apply(quorumlog::simulation::StoredChange::Install(id(4, 30), None)),
        // What waits to be written is replaced.
        Step::Submit(LOG, append(records(4, 33..36, 200))),
        Step::Submit(LOG, install(5, 50)),
        Step::Commit(LOG, id(5, 52)),
        Step::Submit(LOG, append(records(5, 51..54, 200))),
        Step::Settle,
        apply(purge(5, 52)),
        apply(append(vec![record(5, 54, 100)])),
    ];
    script("install", after_begin(steps))
}

/// Votes, and votes that vouch for appends before them.
fn votes() -> Script {
    let mut steps = vec![Step::Make(LOG)];
    for term in 1..6 {
        steps.extend([
            apply(vote(term, false)),
            Step::Submit(LOG, append(records(term, term * 3..term * 3 + 3, 200))),
            Step::Commit(LOG, id(term, term * 3)),
            Step::Submit(LOG, vote(term, true)),
            Step::Settle,
        ]);
    }
    steps.push(apply(vote(9, false)));
    script("vote", steps)
}

/// Three logs, each with several appends waiting when its writer runs.
fn group_commit() -> Script {
    let mut steps: Vec<_> = (1..4).map(Step::Make).collect();
    for round in 0..4 {
        for log in 1..4 {
            let first = round * 6;
            steps.extend([
                Step::Submit(log, append(records(round, first..first + 2, 300))),
                Step::Submit(log, append(Vec::new())),
                Step::Submit(log, append(vec![record(round, first + 2, 700)])),
                Step::Submit(log, append(batch(round, first + 3..first + 6, 100))),
            ]);
        }
        steps.push(Step::Submit(round % 3 + 1, vote(round + 1, true)));
        steps.push(Step::Settle);
    }
    script("group-commit", steps)
}

/// Appends that are acknowledged before they are flushed, and what flushes them.
fn no_flush() -> Script {
    let urgent = quorumlog::simulation::StoredEntry { sync: true, ..record(2, 16, 100) };
    let steps = after_begin(vec![
        apply(append(records(1, 1..4, 300))),
        apply(append(records(1, 4..8, 1100))),
        apply(append(records(1, 8..12, 1100))),
        commit(1, 9),
        apply(vote(2, true)),
        apply(append(records(2, 12..14, 100))),
        apply(append(records(2, 14..16, 100))),
        apply(append(vec![urgent])),
        apply(append(records(2, 17..20, 900))),
        idle(),
        apply(append(records(2, 20..23, 900))),
        apply(cut(2, 21)),
        apply(append(records(3, 22..24, 900))),
        apply(purge(2, 18)),
        apply(append(records(3, 24..30, 400))),
        Step::Restart,
        apply(append(records(3, 30..34, 400))),
        apply(install(5, 60)),
        apply(append(records(5, 61..64, 400))),
    ]);
    Script { flush: Flush::Async, ..script("async", steps) }
}

/// Logs that come and go beside one that stays.
fn create_and_destroy() -> Script {
    let filled = |log| {
        [
            Step::Make(log),
            Step::Apply(log, vote(1, true)),
            Step::Apply(log, append(records(1, 0..8, 1900))),
        ]
    };
    let mut steps = after_begin(vec![apply(append(records(1, 1..4, 500)))]);
    steps.extend(filled(8));
    steps.push(Step::Destroy(8));
    steps.extend(filled(9));
    steps.push(Step::Submit(9, append(records(1, 8..9, 100))));
    steps.push(Step::Destroy(9));
    steps.extend(filled(10));
    steps.push(Step::Restart);
    steps.push(Step::Destroy(10));
    script("create-destroy", steps)
}

/// Closed and opened again after each kind of change.
fn restarts() -> Script {
    let steps = vec![
        Step::Restart,
        apply(append(records(1, 1..4, 500))),
        Step::Restart,
        apply(append(records(1, 4..9, 2000))),
        Step::Restart,
        apply(cut(1, 6)),
        Step::Restart,
        apply(vote(2, false)),
        Step::Restart,
        apply(append(records(2, 7..9, 500))),
        commit(2, 8),
        checkpoint(2, 8),
        apply(purge(2, 8)),
        Step::Restart,
        apply(append(records(2, 9..11, 500))),
    ];
    script("restart", after_begin(steps))
}

/// A new node as its storage sees it: the cluster, a boundary with a checkpoint, the log behind.
fn join() -> Script {
    let steps = vec![
        Step::Cluster(77),
        Step::Make(0),
        Step::Apply(0, vote(4, true)),
        Step::Checkpoint(0, id(4, 30), 700),
        Step::Apply(0, install(4, 30)),
        Step::Apply(0, append(vec![members(4, 31), record(4, 32, 100)])),
        Step::Commit(0, id(4, 32)),
        Step::Make(5),
        Step::Apply(5, vote(6, true)),
        Step::Checkpoint(5, id(6, 900), 5000),
        Step::Apply(5, install(6, 900)),
        Step::Apply(5, append(records(6, 901..905, 1000))),
        Step::Commit(5, id(6, 904)),
        idle(),
        Step::Apply(5, append(records(6, 905..915, 1000))),
    ];
    script("join", steps)
}

/// A long life.
fn everything() -> Script {
    let steps = vec![
        apply(append(records(1, 1..6, 100))),
        apply(append(records(1, 6..12, 1000))),
        apply(append(records(1, 12..14, 700))),
        commit(1, 9),
        idle(),
        apply(vote(2, false)),
        apply(cut(1, 12)),
        apply(append(records(2, 13..16, 50))),
        apply(append(records(2, 16..24, 900))),
        apply(cut(2, 16)),
        apply(append(records(3, 17..20, 300))),
        commit(3, 18),
        checkpoint(1, 10),
        apply(purge(1, 10)),
        apply(vote(3, true)),
        apply(append(vec![members(3, 20), record(3, 21, 3000)])),
        apply(append(records(3, 22..30, 600))),
        idle(),
        Step::Restart,
        apply(purge(3, 24)),
        apply(cut(3, 27)),
        apply(install(5, 60)),
        apply(append(records(5, 61..64, 400))),
        apply(quorumlog::simulation::StoredChange::TruncateAfter(None)),
        apply(append(records(6, 61..63, 40))),
        apply(purge(7, 90)),
        apply(append(records(7, 91..99, 900))),
    ];
    script("everything", after_begin(steps))
}

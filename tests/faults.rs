//! Random kills and partitions under load, judged by the checker of the jepsen crate.

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cluster::{Cluster, Setup, meanwhile, read_all};
use jepsen::{Action, History, Observation, Recorder, Requirements, check};
use quorumlog::{
    AppendError, AppendOptions, Appended, CommitLog, NodeId, Outcome, Record, Role, Start,
};

/// Numbers that are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// What the clients share.
struct Run {
    cluster: Cluster,
    recorder: Recorder,
    /// The next payload's number. Each attempt has its own.
    value: AtomicU64,
    /// The next subscription's number.
    subscription: AtomicU64,
    /// For each node how often it was stopped or started; it runs if that is even.
    changes: BTreeMap<NodeId, AtomicU64>,
    over: AtomicBool,
}

impl Run {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn changed(&self, id: NodeId) -> u64 {
        self.changes[&id].fetch_add(1, Ordering::SeqCst)
    }
}

fn numbered(records: &[Record]) -> Vec<(u64, u64)> {
    let value = |payload: &Bytes| std::str::from_utf8(payload).ok()?.trim_end().parse().ok();
    // What cannot be read back is a value that nobody appended.
    records.iter().map(|r| (r.index, value(&r.payload).unwrap_or(u64::MAX))).collect()
}

/// Appends to whoever leads, one record or batch after the other.
async fn write(run: Arc<Run>, process: u64, mut random: Random) {
    let mut to = 1;
    while !run.is_over() {
        let Some(log) = run.cluster.log_if_up(to) else {
            to = 1 + random.below(3);
            tokio::task::yield_now().await;
            continue;
        };
        let count = if random.below(4) == 0 { 2 + random.below(4) } else { 1 };
        if let Err(error) = append(&run, &log, process, count, &mut random).await {
            to = error.leader().map_or(1 + random.below(3), |leader| leader.id);
            meanwhile(Duration::from_millis(5)).await;
        }
    }
}

/// Appends once, and records what came of it.
async fn append(
    run: &Run,
    log: &CommitLog,
    process: u64,
    count: u64,
    random: &mut Random,
) -> Result<Appended, AppendError> {
    let first = run.value.fetch_add(count, Ordering::Relaxed);
    let values: Vec<u64> = (first..first + count).collect();
    let mut payload = |value| format!("{value}{}", " ".repeat(random.below(2_000) as usize)).into();
    let mut payloads: Vec<Bytes> = values.iter().map(|value| payload(*value)).collect();
    let options = AppendOptions::default().with_timeout(Duration::from_millis(500));
    let (asked, appended) = if let [value] = values[..] {
        let asked = run.recorder.invoke(process, Action::append(value));
        (asked, log.append_with(payloads.remove(0), options).await)
    } else {
        let asked = run.recorder.invoke(process, Action::append_batch(values.clone()));
        (asked, log.append_batch_with(payloads, options).await)
    };
    match &appended {
        Ok(Appended { index, term, .. }) => {
            let told = match values[..] {
                [value] => Action::appended(value, *index, *term),
                _ => Action::batch_appended(values, *index, *term),
            };
            run.recorder.ok(asked, told);
        }
        Err(error) if error.outcome() == Outcome::Unknown => run.recorder.info(asked),
        Err(_) => run.recorder.fail(asked),
    }
    appended
}

/// The records in `from..to`; none if a read fails.
async fn read_range(log: &CommitLog, from: u64, to: u64) -> Option<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    let mut next = from;
    while next < to {
        let more = log.read(next, 64 << 10).await.ok()?;
        let Some(last) = more.last() else { break };
        next = last.index + 1;
        records.extend(more.into_iter().filter(|record| record.index < to));
    }
    Some(records)
}

/// Reads the end of the log from any node, behind a barrier or not.
async fn read(run: Arc<Run>, process: u64, mut random: Random) {
    while !run.is_over() {
        // paced: readers are not to starve the writers.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let Some(log) = run.cluster.log_if_up(1 + random.below(3)) else { continue };
        let asked = run.recorder.invoke(process, Action::read(0));
        let (to, bound) = if random.below(2) == 0 {
            (log.watermarks().committed, None)
        } else {
            match tokio::time::timeout(Duration::from_millis(500), log.read_barrier()).await {
                Ok(Ok(bound)) => (bound, Some(bound)),
                _ => {
                    run.recorder.fail(asked);
                    continue;
                }
            }
        };
        let from = to.saturating_sub(1 + random.below(100)).max(log.watermarks().begin);
        match read_range(&log, from, to).await {
            Some(records) => {
                let records = numbered(&records);
                run.recorder.ok(asked, Action::Read { from, to, records, bound });
            }
            None => run.recorder.fail(asked),
        }
    }
}

/// Follows the log on any node for a while, again and again.
async fn follow(run: Arc<Run>, process: u64, mut random: Random) {
    while !run.is_over() {
        // paced: there may be nothing to follow.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let Some(log) = run.cluster.log_if_up(1 + random.below(3)) else { continue };
        let watermarks = log.watermarks();
        let start = watermarks.committed.saturating_sub(random.below(50)).max(watermarks.begin);
        let subscription = run.subscription.fetch_add(1, Ordering::Relaxed);
        let mut records = log.subscribe(Start::At(start));
        for _ in 0..random.below(300) {
            let next = tokio::time::timeout(Duration::from_millis(100), records.next()).await;
            let Ok(Some(Ok(record))) = next else { break };
            let records = numbered(&[record]);
            run.recorder.instant(process, Action::Deliver { subscription, start, records });
        }
    }
}

/// Records what the nodes say about themselves.
async fn observe(run: Arc<Run>) {
    while !run.is_over() {
        // paced: what a node says does not change at every moment.
        tokio::time::sleep(Duration::from_millis(1)).await;
        for (&node, changes) in &run.changes {
            let restarts = changes.load(Ordering::SeqCst);
            let Some(log) = run.cluster.log_if_up(node).filter(|_| restarts % 2 == 0) else {
                continue;
            };
            let status = log.status();
            // A node that was just opened says term 0 until its core has told of the vote that it found.
            let told = status.role != Role::Stopped && status.term > 0;
            if changes.load(Ordering::SeqCst) != restarts || !told {
                continue;
            }
            if status.role == Role::Leader {
                run.recorder.leader(node, status.term);
            }
            run.recorder.observe(Observation {
                node,
                restarts,
                term: status.term,
                begin: status.begin,
                committed: status.committed,
                applied: Some(status.applied),
                end: status.end,
                ..Observation::default()
            });
        }
    }
}

/// Kinds of faults.
const FAULTS: u64 = 6;

/// Does something bad for a while.
async fn disturb(run: &Run, fault: u64, random: &mut Random) {
    let (cluster, recorder) = (&run.cluster, &run.recorder);
    let ids: [NodeId; 3] = [1, 2, 3];
    let one = 1 + random.below(3);
    let leads = |id: &NodeId| {
        cluster.log_if_up(*id).is_some_and(|log| log.status().leader.is_some_and(|l| l.id == *id))
    };
    let leader = ids.into_iter().find(leads).unwrap_or(one);
    let pause = Duration::from_millis(200 + random.below(400));
    let before = cluster.network.bites();
    match fault {
        kill @ (0 | 1) => {
            let id = if kill == 0 { leader } else { one };
            run.changed(id);
            cluster.kill(id);
            recorder.fault("kill", 1);
            meanwhile(pause).await;
            cluster.start(id).await;
            run.changed(id);
        }
        cut @ (2 | 3) => {
            recorder.fault("partition", 0);
            cluster.network.split(&[if cut == 2 { leader } else { one }], &ids);
            meanwhile(pause).await;
            recorder.bit("partition", cluster.network.bites().held - before.held);
        }
        4 => {
            recorder.fault("one-way partition", 0);
            cluster.network.cut(leader, leader % 3 + 1);
            meanwhile(pause).await;
            recorder.bit("one-way partition", cluster.network.bites().held - before.held);
        }
        _ => {
            recorder.fault("reset", 0);
            for other in ids {
                cluster.network.reset_after(leader, other, 1 + random.below(5_000) as usize);
                cluster.network.reset_after(other, leader, 1 + random.below(500) as usize);
            }
            meanwhile(pause).await;
            recorder.bit("reset", cluster.network.bites().broken - before.broken);
        }
    }
    cluster.network.heal();
}

async fn run(seed: u64) -> History {
    let mut random = Random(seed);
    let cluster = Setup::new(3).small_segments().start().await;
    let began = Instant::now();
    let clock = move || u64::try_from(began.elapsed().as_nanos()).expect("less than 500 years");
    let run = Arc::new(Run {
        recorder: Recorder::new(clock),
        value: AtomicU64::new(1),
        subscription: AtomicU64::new(1),
        changes: cluster.ids().into_iter().map(|id| (id, AtomicU64::new(0))).collect(),
        over: AtomicBool::new(false),
        cluster,
    });
    let mut clients = tokio::task::JoinSet::new();
    for process in 0..4 {
        clients.spawn(write(run.clone(), process, Random(random.below(u64::MAX))));
    }
    for process in 4..6 {
        clients.spawn(read(run.clone(), process, Random(random.below(u64::MAX))));
    }
    clients.spawn(follow(run.clone(), 6, Random(random.below(u64::MAX))));
    clients.spawn(observe(run.clone()));
    let first = random.below(FAULTS);
    for round in 0..FAULTS + 3 {
        // Each at least once.
        let fault = if round < FAULTS { (first + round) % FAULTS } else { random.below(FAULTS) };
        disturb(&run, fault, &mut random).await;
        meanwhile(Duration::from_millis(random.below(400))).await;
    }
    run.over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client panics");
    }
    run.cluster.agree().await;
    for id in run.cluster.ids() {
        let log = run.cluster.log(id);
        let (from, to) = (log.watermarks().begin, log.watermarks().committed);
        let records = numbered(&read_all(&log, from).await);
        run.recorder.instant(100 + id, Action::FinalRead { from, to, records });
    }
    let faults = ["kill", "partition", "one-way partition", "reset"].map(str::to_owned).into();
    // A leader that comes back soon may lead again, so that no change of leader is certain.
    run.recorder.require(Requirements { faults, ..Requirements::default() });
    run.recorder.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_moved_under_random_faults() {
    let given = std::env::var("QUORUMLOG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let time = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        u64::from(time.subsec_nanos())
    });
    let history = Box::pin(run(seed)).await;
    let report = check(&history);
    if !report.is_valid() {
        let path = std::env::temp_dir().join(format!("quorumlog-history-{seed}.jsonl"));
        std::fs::write(&path, history.to_json_lines()).expect("the history can be kept");
        panic!("QUORUMLOG_SEED={seed}: {report}\nhistory: {}", path.display());
    }
    let count = report.acknowledged;
    assert!(count > 20, "QUORUMLOG_SEED={seed}: only {count} appends were acknowledged");
    eprintln!("QUORUMLOG_SEED={seed}: {report}");
}

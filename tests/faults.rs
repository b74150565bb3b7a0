//! Random kills and partitions under load, judged by the checker of the jepsen crate.

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cluster::{Cluster, Setup, meanwhile, read_all};
use jepsen::{
    Action, AppendLog, Checker, History, Operation, Outcome as Known, RequireFaults, Verdict,
};
use quorumlog::{AppendOptions, CommitLog, NodeId, Outcome, Record};
use tokio::sync::mpsc;

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
    began: Instant,
    /// The next payload's number. Each attempt has its own.
    value: AtomicU64,
    over: AtomicBool,
    operations: mpsc::UnboundedSender<Operation>,
}

impl Run {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("less than 500 years")
    }

    fn record(&self, process: u64, call: u64, outcome: Known, action: Action) {
        let ret = Some(self.now());
        // Fails only when the test is over.
        self.operations.send(Operation { process, call, ret, outcome, action }).ok();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn numbered(records: &[Record]) -> Vec<(u64, u64)> {
    let value = |payload: &Bytes| std::str::from_utf8(payload).ok()?.trim_end().parse().ok();
    // What cannot be read back is a value that nobody appended.
    records.iter().map(|r| (r.index, value(&r.payload).unwrap_or(u64::MAX))).collect()
}

/// Appends to whoever leads, one record after the other.
async fn write(run: Arc<Run>, process: u64, mut random: Random) {
    let mut to = 1;
    while !run.is_over() {
        let Some(log) = run.cluster.log_if_up(to) else {
            to = 1 + random.below(3);
            tokio::task::yield_now().await;
            continue;
        };
        let value = run.value.fetch_add(1, Ordering::Relaxed);
        let payload = format!("{value}{}", " ".repeat(random.below(2_000) as usize));
        let options = AppendOptions::default().with_timeout(Duration::from_millis(500));
        let call = run.now();
        let (known, index) = match log.append_with(payload, options).await {
            Ok(appended) => (Known::Ok, Some(appended.index)),
            Err(error) => {
                to = error.leader().map_or(1 + random.below(3), |leader| leader.id);
                let unsure = error.outcome() == Outcome::Unknown;
                (if unsure { Known::Info } else { Known::Fail }, None)
            }
        };
        run.record(process, call, known, Action::Append { value, index });
        if known != Known::Ok {
            meanwhile(Duration::from_millis(5)).await;
        }
    }
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
        let call = run.now();
        let (to, bound) = if random.below(2) == 0 {
            (log.watermarks().committed, None)
        } else {
            match tokio::time::timeout(Duration::from_millis(500), log.read_barrier()).await {
                Ok(Ok(bound)) => (bound, Some(bound)),
                _ => continue,
            }
        };
        let from = to.saturating_sub(1 + random.below(100)).max(log.watermarks().begin);
        if let Some(records) = read_range(&log, from, to).await {
            let records = numbered(&records);
            run.record(process, call, Known::Ok, Action::Read { from, to, records, bound });
        }
    }
}

/// Kinds of faults.
const FAULTS: u64 = 6;

/// Does something bad for a while, and gives its name.
async fn disturb(cluster: &Cluster, fault: u64, random: &mut Random) -> &'static str {
    let ids: [NodeId; 3] = [1, 2, 3];
    let one = 1 + random.below(3);
    let leads = |id: &NodeId| {
        cluster.log_if_up(*id).is_some_and(|log| log.status().leader.is_some_and(|l| l.id == *id))
    };
    let leader = ids.into_iter().find(leads).unwrap_or(one);
    let pause = Duration::from_millis(200 + random.below(400));
    match fault {
        kill @ (0 | 1) => {
            let id = if kill == 0 { leader } else { one };
            cluster.kill(id);
            meanwhile(pause).await;
            cluster.start(id).await;
            "kill"
        }
        cut @ (2 | 3) => {
            cluster.network.split(&[if cut == 2 { leader } else { one }], &ids);
            meanwhile(pause).await;
            "partition"
        }
        4 => {
            cluster.network.cut(leader, leader % 3 + 1);
            meanwhile(pause).await;
            "one-way partition"
        }
        _ => {
            for other in ids {
                cluster.network.reset_after(leader, other, 1 + random.below(5_000) as usize);
                cluster.network.reset_after(other, leader, 1 + random.below(500) as usize);
            }
            meanwhile(pause).await;
            "reset"
        }
    }
}

async fn run(seed: u64) -> History {
    let mut random = Random(seed);
    let cluster = Setup::new(3).small_segments().start().await;
    let (operations, mut recorded) = mpsc::unbounded_channel();
    let (value, over) = (AtomicU64::new(1), AtomicBool::new(false));
    let run = Arc::new(Run { cluster, began: Instant::now(), value, over, operations });
    let mut clients = tokio::task::JoinSet::new();
    for process in 0..4 {
        clients.spawn(write(run.clone(), process, Random(random.below(u64::MAX))));
    }
    for process in 4..6 {
        clients.spawn(read(run.clone(), process, Random(random.below(u64::MAX))));
    }
    let first = random.below(FAULTS);
    for round in 0..FAULTS + 3 {
        // Each at least once.
        let fault = if round < FAULTS { (first + round) % FAULTS } else { random.below(FAULTS) };
        let call = run.now();
        let name = disturb(&run.cluster, fault, &mut random).await.to_owned();
        run.record(100, call, Known::Ok, Action::Fault { name, bites: 1 });
        run.cluster.network.heal();
        meanwhile(Duration::from_millis(random.below(400))).await;
    }
    run.over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client panics");
    }
    run.cluster.agree().await;
    for id in run.cluster.ids() {
        let log = run.cluster.log(id);
        let call = run.now();
        let (from, to) = (log.watermarks().begin, log.watermarks().committed);
        let records = numbered(&read_all(&log, from).await);
        run.record(101, call, Known::Ok, Action::FinalRead { from, to, records });
    }
    drop(run);
    let mut operations = Vec::new();
    while let Ok(operation) = recorded.try_recv() {
        operations.push(operation);
    }
    operations.sort_by_key(|operation| operation.call);
    History { operations }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_moved_under_random_faults() {
    let given = std::env::var("QUORUMLOG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let time = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        u64::from(time.subsec_nanos())
    });
    let history = run(seed).await;
    let acknowledged =
        |op: &&Operation| op.outcome == Known::Ok && matches!(op.action, Action::Append { .. });
    let count = history.operations.iter().filter(acknowledged).count();
    let faults = ["kill", "partition", "one-way partition", "reset"].map(str::to_owned).to_vec();
    let verdict = RequireFaults { inner: AppendLog, faults }.check(&history);
    if verdict != Verdict::Valid {
        let path = std::env::temp_dir().join(format!("quorumlog-history-{seed}.jsonl"));
        std::fs::write(&path, history.to_json_lines()).expect("the history can be kept");
        panic!("QUORUMLOG_SEED={seed}: {verdict:#?}\nhistory: {}", path.display());
    }
    assert!(count > 20, "QUORUMLOG_SEED={seed}: only {count} appends were acknowledged");
}

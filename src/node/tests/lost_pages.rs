//! Nodes that acknowledge before they flush, and lose power.

use super::*;
use crate::format::superblock::Superblock;
use crate::seam::Disk as _;
use crate::seam::disk::sim::{OpKind, Ops, Rule, When};

/// Three nodes that flush only when they must, with one log beside the system log.
struct Three {
    transport: MemoryTransport,
    disks: BTreeMap<NodeId, SimDisk>,
    nodes: BTreeMap<NodeId, Running>,
    /// The longest election timeout.
    election: Duration,
    change: fn(&mut Config),
}

/// Flushes in the background only after so long that nobody sees it.
fn flush_seldom(config: &mut Config) {
    config.storage.flush = Flush::Async;
    config.storage.flush_interval = Duration::from_secs(3600);
}

fn may_lack_records(disk: &SimDisk) -> bool {
    doubts(disk, disk.boot_id(Path::new("/data")))
}

/// True if a node that starts in this boot doubts some log.
fn doubts(disk: &SimDisk, boot: Option<u128>) -> bool {
    let bytes = disk.durable_file(Path::new("/data/NODE")).expect("a data directory").to_vec();
    let superblock = Superblock::decode(&bytes).expect("whole");
    !superblock.doubtful(boot).is_empty()
}

impl Three {
    fn new() -> Self {
        Self::with_elections(Duration::from_millis(120))
    }

    fn with_elections(election: Duration) -> Self {
        Self::that(election, flush_seldom)
    }

    fn that(election: Duration, change: fn(&mut Config)) -> Self {
        let disks = (1..=3).map(|id| (id, SimDisk::new())).collect();
        let transport = MemoryTransport::default();
        let mut three = Self { transport, disks, nodes: BTreeMap::new(), election, change };
        (1..=3).for_each(|id| three.start(id));
        let members = three.nodes.values().map(|running| running.node.member()).collect();
        let first = &three.nodes[&1];
        first.bootstrap(members);
        first.run(first.node.create_log(&name("orders"))).expect("all run");
        three
    }

    fn start(&mut self, id: NodeId) {
        let change = |config: &mut Config| {
            (self.change)(config);
            config.raft.election_timeout_min = self.election / 2;
            config.raft.election_timeout_max = self.election;
        };
        let started = Running::try_start(&self.transport, &self.disks[&id], id, change);
        self.nodes.insert(id, started.expect("the node opens"));
    }

    /// Ends a node; `keeps` says what is left of what it had not flushed.
    fn end(&mut self, id: NodeId, keeps: &CrashPolicy) {
        self.nodes.remove(&id).expect("it runs").kill();
        let disk = self.disks[&id].crash(keeps);
        self.disks.insert(id, disk);
    }

    fn status(&self, id: NodeId) -> Option<Status> {
        self.nodes[&id].node.statuses().into_iter().find(|status| status.log == "orders")
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| self.status(*id).is_some_and(|s| s.role == Role::Leader);
        self.nodes.keys().copied().find(leads)
    }

    fn until<T>(&self, what: &str, probe: impl FnMut() -> Option<T>) -> T {
        self.nodes.values().next().expect("some node runs").until(what, probe)
    }

    fn append(&self, by: NodeId, count: u64) -> u64 {
        let running = &self.nodes[&by];
        let log = running.node.log(&name("orders")).expect("it has it");
        let last = (0..count).map(|number| {
            let record = format!("record {number}").into_bytes();
            running.run(log.append(record)).expect("a majority runs").index
        });
        last.max().unwrap_or(0)
    }

    fn is_suspect(&self, id: NodeId) -> bool {
        may_lack_records(&self.disks[&id])
    }
}

#[test]
fn a_node_that_lost_its_tail_elects_nobody_without_it_and_is_whole_again_once_the_leader_is_back() {
    // Whichever of the two that are left holds more.
    lose_a_tail(false);
    lose_a_tail(true);
}

fn lose_a_tail(absent_holds_more: bool) {
    let mut three = Three::new();
    let leader = three.until("a leader", || three.leader());
    let mut others = (1..=3).filter(|id| *id != leader);
    let (cut, absent) = (others.next().expect("two"), others.next().expect("two"));
    if absent_holds_more {
        let seen = three.append(leader, 1);
        three.until("all to hold it", || {
            three.status(absent).filter(|status| status.end > seen).map(drop)
        });
    }
    three.end(absent, &CrashPolicy::KeepAll);
    let last = three.append(leader, 20);
    let term = three.status(leader).expect("it runs").term;
    // Two nodes acknowledged it. One loses it, the other is away: what is left are two that do not know of it.
    three.end(cut, &CrashPolicy::LoseAll);
    three.end(leader, &CrashPolicy::KeepAll);
    three.start(cut);
    three.start(absent);
    // Of what must not happen nobody tells: some election timeouts pass.
    let begun = std::time::Instant::now();
    three.until("elections to fail", || {
        assert_eq!(three.leader(), None, "by nodes of which none knows what was acknowledged");
        (begun.elapsed() > Duration::from_secs(2)).then_some(())
    });
    for id in [cut, absent] {
        let now = three.status(id).expect("it runs").term;
        assert!(now <= term, "a candidate that cannot be elected has raised the term to {now}");
    }
    three.start(leader);
    let next = three.until("a leader", || three.leader());
    assert_eq!(next, leader, "it is the only one that holds what was acknowledged");
    three.until("the tail to be back", || {
        three.status(cut).filter(|status| status.end > last).map(drop)
    });
    three.until("it to be trusted", || (!three.is_suspect(cut)).then_some(()));
}

#[test]
fn the_leader_goes_on_through_a_cut_of_another_and_processes_that_die_are_never_in_doubt() {
    let mut three = Three::new();
    let leader = three.until("a leader", || three.leader());
    let cut = (1..=3).find(|id| *id != leader).expect("three nodes");
    three.append(leader, 5);
    three.end(cut, &CrashPolicy::LoseAll);
    let term = three.status(leader).expect("it runs").term;
    let last = three.append(leader, 5);
    three.start(cut);
    three.until("it to be whole again", || {
        let whole = three.status(cut).is_some_and(|status| status.end > last);
        (whole && !three.is_suspect(cut)).then_some(())
    });
    assert_eq!(three.status(leader).expect("it runs").term, term, "nobody else was elected");
    three.end(cut, &CrashPolicy::KeepAll);
    three.start(cut);
    assert!(!three.is_suspect(cut), "its page cache is still there");
}

#[test]
fn nodes_that_all_lost_power_elect_a_leader_and_end_with_one_history() {
    let mut three = Three::new();
    let leader = three.until("a leader", || three.leader());
    three.append(leader, 10);
    for id in 1..=3 {
        three.end(id, &CrashPolicy::LoseAll);
    }
    (1..=3).for_each(|id| three.start(id));
    let leader = three.until("a leader", || three.leader());
    let last = three.append(leader, 3);
    for id in 1..=3 {
        three.until("all to hold it, trusted", || {
            let holds = three.status(id).is_some_and(|status| status.end > last);
            (holds && !three.is_suspect(id)).then_some(())
        });
    }
}

#[test]
fn all_nodes_learn_what_a_majority_has_flushed() {
    let mut three = Three::that(Duration::from_millis(120), |config| {
        config.storage.flush = Flush::Async;
        config.storage.flush_interval = Duration::from_millis(300);
    });
    let leader = three.until("a leader", || three.leader());
    let follower = (1..=3).find(|id| *id != leader).expect("three nodes");
    three.end(follower, &CrashPolicy::KeepAll);
    let last = three.append(leader, 10);
    let stable = |three: &Three, id: NodeId| {
        // One that starts may not have opened it yet.
        three.nodes[&id].node.inner.group_named("orders").map_or(0, |group| group.log.stable())
    };
    three.start(follower);
    for id in 1..=3 {
        three.until("it to be stable", || (stable(&three, id) > last).then_some(()));
    }
}

#[test]
fn a_node_that_has_everything_is_elected_though_two_that_lost_something_were_there_first() {
    let mut three = Three::with_elections(Duration::from_millis(600));
    let leader = three.until("a leader", || three.leader());
    let last = three.append(leader, 10);
    let others: Vec<NodeId> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        three.end(*id, &CrashPolicy::LoseAll);
    }
    three.end(leader, &CrashPolicy::KeepAll);
    for id in &others {
        three.start(*id);
    }
    // Of what must not happen nobody tells: two election timeouts pass.
    let begun = std::time::Instant::now();
    three.until("them to wait", || {
        assert_eq!(three.leader(), None, "of two that lost something");
        (begun.elapsed() > Duration::from_millis(1_500)).then_some(())
    });
    three.start(leader);
    assert_eq!(three.until("a leader", || three.leader()), leader);
    for id in 1..=3 {
        three.until("all to be back", || {
            three.status(id).filter(|status| status.end > last).map(drop)
        });
    }
}

#[test]
fn a_leader_tells_where_its_log_ends_and_not_how_far_it_is_committed() {
    let mut three = Three::with_elections(Duration::from_secs(3));
    let leader = three.until("a leader", || three.leader());
    let last = three.append(leader, 3);
    for id in (1..=3).filter(|id| *id != leader) {
        three.end(id, &CrashPolicy::KeepAll);
    }
    let running = &three.nodes[&leader];
    let log = running.node.log(&name("orders")).expect("it has it");
    // It does not know yet that they are gone, and nobody will acknowledge it.
    let ticket = running.run(log.submit("not committed")).expect("it leads");
    let group = running.node.inner.group_named("orders").expect("it is open");
    running.until("it to be in the log", || {
        let told = group.position().expect("it leads").last.expect("it holds entries");
        (told.index > last).then(|| assert_eq!(Some(told), group.log.last_id()))
    });
    assert!(log.watermarks().committed <= last + 1);
    drop(ticket);
}

#[test]
fn a_leader_goes_on_when_an_older_copy_of_a_followers_data_is_put_back() {
    let mut three = Three::that(Duration::from_millis(120), |_| {});
    let leader = three.until("a leader", || three.leader());
    let follower = (1..=3).find(|id| *id != leader).expect("three nodes");
    let older = three.disks[&follower].after_crash(&CrashPolicy::KeepAll);
    let last = three.append(leader, 20);
    let has_all = |three: &Three| three.status(follower).is_some_and(|status| status.end > last);
    three.until("the follower to have all", || has_all(&three).then_some(()));
    three.end(follower, &CrashPolicy::KeepAll);
    three.disks.insert(follower, older);
    three.start(follower);
    three.until("it to have all again", || has_all(&three).then_some(()));
    let status = three.status(leader).expect("it runs");
    assert_eq!((status.role, status.failure), (Role::Leader, None));
    three.append(leader, 1);
}

/// A node alone that flushes in the background each `interval`.
fn asynchronous(disk: &SimDisk, interval: Duration) -> Running {
    let change = |config: &mut Config| {
        config.storage.flush = Flush::Async;
        config.storage.flush_interval = interval;
    };
    Running::try_start(&MemoryTransport::default(), disk, 1, change).expect("the node opens")
}

#[test]
fn a_log_whose_flush_failed_is_suspect_at_the_next_start() {
    let disk = SimDisk::new();
    let running = asynchronous(&disk, Duration::from_millis(100));
    running.bootstrap(vec![running.node.member()]);
    let log = running.run(running.node.create_log(&name("orders"))).expect("one node");
    running.run(log.append("kept")).expect("a healthy disk");
    disk.inject(Rule {
        ops: Ops::Kind(OpKind::Flush),
        path: format!("{:016x}/{:016x}.seg", log.id().0, 1),
        when: When::Nth(0),
        fault: Fault::Eio,
    });
    // It may be told of the failure, or of nothing yet.
    let _ = running.run(log.append("lost"));
    running.until("the flush to fail", || {
        let stopped = |status: &Status| status.log == "orders" && status.failure.is_some();
        running.node.statuses().iter().any(stopped).then_some(())
    });
    running.kill();
    let disk = disk.crash(&CrashPolicy::KeepAll);
    assert!(may_lack_records(&disk), "its page cache is there, but not what failed");
}

#[test]
fn a_run_ends_well_only_once_all_of_its_logs_are_closed() {
    for at in 0.. {
        let disk = SimDisk::new();
        let running = asynchronous(&disk, Duration::from_secs(3600));
        running.bootstrap(vec![running.node.member()]);
        let log = running.run(running.node.create_log(&name("orders"))).expect("one node");
        let last = running.run(log.append("last")).expect("it runs").index;
        disk.fail_nth_change(at, Fault::Halt);
        let ended = running.run(running.node.shutdown());
        let halted = disk.is_dead();
        running.kill();
        let disk = disk.crash(&CrashPolicy::LoseAll);
        let in_doubt = may_lack_records(&disk);
        let running = asynchronous(&disk, Duration::from_secs(3600));
        let status = running.until("the log", || {
            running.node.statuses().into_iter().find(|status| status.log == "orders")
        });
        assert!(in_doubt || status.end > last, "cut at operation {at}: {status:?}");
        running.kill();
        if !halted {
            ended.expect("a healthy node");
            assert!(!in_doubt, "it ended well");
            assert!(at > 3, "more operations than {at}");
            return;
        }
    }
}

/// A log that was opened late left the node marked until its next start, and a power cut before that made all logs suspect.
#[test]
fn a_node_that_flushes_always_now_notes_it_once_the_last_of_its_logs_is_open() {
    let transport = MemoryTransport::default();
    let disk = SimDisk::new();
    let running = Running::try_start(&transport, &disk, 1, flush_seldom).expect("it opens");
    running.bootstrap(vec![running.node.member()]);
    let log = running.run(running.node.create_log(&name("orders"))).expect("one node");
    running.run(log.append("in the page cache")).expect("one node");
    let manifest = format!("logs/{:016x}/MANIFEST", log.id().0);
    drop(log);
    running.kill();

    let disk = disk.crash(&CrashPolicy::KeepAll);
    let (ops, path) = (Ops::Kind(OpKind::Open), manifest);
    disk.inject(Rule { ops, path, when: When::From(0), fault: Fault::Eio });
    let running = Running::start(&transport, &disk, 1);
    running.until("it to fail", || (!running.node.inner.not_open().is_empty()).then_some(()));
    // As of a start after a power cut.
    let marked = || doubts(&disk, None);
    assert!(marked(), "what is in its page cache was acknowledged");
    disk.clear_rules();
    running.until("the log", || running.node.log(&name("orders")));
    running.until("it to be noted", || (!marked()).then_some(()));
    running.kill();
}

//! A bug, or damage, in one log: the others go on, and the node says what is wrong.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::*;
use crate::problem::{Problem, ProblemKind};
use crate::record::Record;
use crate::seam::disk::sim::Damage;
use crate::state_machine::{ApplyError, StateMachine};

/// Panics at a record that says so.
struct Fragile;

impl StateMachine for Fragile {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        assert_ne!(record.payload, "poison", "a bug in the state machine");
        if record.payload == "newer" {
            return Err(ApplyError::NewerBuild { detail: "a record of kind 9".to_owned() });
        }
        Ok(Bytes::from_static(b"fine"))
    }

    fn checkpoint(&self, _: &mut dyn std::io::Write) -> std::io::Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &mut dyn std::io::Read) -> std::io::Result<()> {
        Ok(())
    }
}

/// A single node whose log `orders` has the state machine, with a log `other` beside it.
fn fragile(disk: &SimDisk) -> Running {
    let machines = |log: &LogName| {
        (log.as_str() == "orders").then(|| Box::new(Fragile) as Box<dyn StateMachine>)
    };
    let transport = MemoryTransport::default();
    let build = |builder: NodeBuilder| builder.state_machines(machines);
    Running::try_build(&transport, disk, 1, |_| {}, build).expect("it opens")
}

fn with_two_logs(disk: &SimDisk) -> Running {
    let running = fragile(disk);
    running.bootstrap(vec![running.node.member()]);
    for log in ["orders", "other"] {
        running.run(running.node.create_log(&name(log))).expect("one node");
        assert_works(&running, log);
    }
    running
}

fn problem(running: &Running, kind: ProblemKind) -> Problem {
    running.until("the problem", || {
        running.node.problems().into_iter().find(|problem| problem.kind == kind)
    })
}

/// `orders` is a row that says it has stopped and why, and `other` works.
fn assert_only_orders_has_stopped(running: &Running, reason: &str) {
    let status = running.until("the log to be stopped", || {
        let orders = running.node.statuses().into_iter().find(|status| status.log == "orders");
        orders.filter(|status| status.role == Role::Stopped)
    });
    assert_eq!(status.leader, None, "what it knew is out of date");
    let failure = status.failure.expect("a reason");
    assert!(failure.contains(reason), "{failure}");
    assert_works(running, "other");
}

#[test]
fn a_state_machine_that_panics_stops_its_log_and_no_other() {
    let disk = SimDisk::new();
    let running = with_two_logs(&disk);
    let log = running.node.log(&name("orders")).expect("it is open");
    running.run(log.propose("poison")).expect_err("nothing is answered");
    assert_only_orders_has_stopped(&running, "the state machine panicked at record");
    let stopped = problem(&running, ProblemKind::LogStopped);
    assert!(!stopped.needs_restart, "it would come upon the record again");
    assert!(stopped.reason.contains("a bug in the state machine"), "{stopped}");
    let error = running.run(log.append("more")).expect_err("it has stopped");
    assert_eq!(error.outcome(), crate::Outcome::NotAppended, "{error}");
    running.kill();

    // At the next start it comes upon the record again.
    let running = fragile(&disk.crash(&CrashPolicy::KeepAll));
    assert_only_orders_has_stopped(&running, "the state machine panicked at record");
    // While the log is opened if the record is known to be committed by then, or after the election.
    let problems = running.node.problems();
    let kinds = [ProblemKind::LogNotOpen, ProblemKind::LogStopped];
    assert!(problems.iter().all(|problem| kinds.contains(&problem.kind)), "{problems:?}");
    assert!(problems.iter().all(|problem| !problem.needs_restart), "{problems:?}");
    running.run(running.node.shutdown()).expect("the other logs are healthy");
}

/// Before, such records were skipped, and what came of them was missing in this node's state for good.
#[test]
fn a_record_of_a_newer_build_stops_its_log_and_no_other_until_the_node_is_upgraded() {
    let disk = SimDisk::new();
    let running = with_two_logs(&disk);
    let log = running.node.log(&name("orders")).expect("it is open");
    running.run(log.propose("newer")).expect_err("nothing is answered");
    let reason = "written by a newer build; upgrade this node: a record of kind 9";
    assert_only_orders_has_stopped(&running, reason);
    let stopped = problem(&running, ProblemKind::LogStopped);
    assert!(!stopped.needs_restart && stopped.reason.contains(reason), "{stopped}");
    assert!(running.run(log.admin().checkpoint()).is_err(), "it would lie behind the record");
    running.kill();

    // It has skipped nothing: the next start comes upon the record again.
    let running = fragile(&disk.crash(&CrashPolicy::KeepAll));
    assert_only_orders_has_stopped(&running, reason);
    running.run(running.node.shutdown()).expect("the other logs are healthy");
}

#[test]
fn a_panic_of_consensus_stops_its_log_and_no_other_and_a_restart_helps() {
    let disk = SimDisk::new();
    let running = with_two_logs(&disk);
    let group = running.node.inner.group_named("orders").expect("it is open");
    let core = group.raft.with_raft_state(|_| panic!("a bug in consensus"));
    running.run(core).expect_err("the core is gone");
    assert_only_orders_has_stopped(&running, "a bug in consensus");
    assert!(!group.is_leader() && !group.hears_majority(), "it still claims to lead");
    assert!(problem(&running, ProblemKind::LogStopped).needs_restart);
    drop(group);
    running.kill();

    let running = fragile(&disk.crash(&CrashPolicy::KeepAll));
    assert_works(&running, "orders");
    assert_eq!(running.node.problems(), []);
    running.kill();
}

/// A leader whose replication to one follower has ended looks well, and that follower gets nothing any more.
#[test]
fn a_panic_in_any_task_of_consensus_stops_its_log() {
    let disk = SimDisk::new();
    let running = with_two_logs(&disk);
    let group = running.node.inner.group_named("orders").expect("it is open");
    let worker = group.raft.with_state_machine(|_| panic!("a bug in a task"));
    let worker: Result<(), _> = running.run(worker);
    worker.expect_err("the task is gone");
    assert_only_orders_has_stopped(&running, "a bug in a task");
    running.kill();
}

#[test]
fn a_damaged_log_is_listed_with_the_reason_and_keeps_no_other_from_being_opened() {
    let disk = SimDisk::new();
    let running = with_two_logs(&disk);
    let id = running.node.log(&name("orders")).expect("it is open").id();
    running.run(running.node.shutdown()).expect("a healthy node");
    running.kill();
    let manifest = format!("/data/logs/{:016x}/MANIFEST", id.0);
    assert!(disk.damage(Path::new(&manifest), &Damage::ZeroSector(0)), "nothing to damage");
    let before = disk.contents();

    let running = fragile(&disk);
    assert_only_orders_has_stopped(&running, "MANIFEST");
    let logs: Vec<_> = running.node.logs().into_iter().map(|log| log.name.to_string()).collect();
    assert_eq!(logs, ["orders", "other"]);
    let not_open = problem(&running, ProblemKind::LogNotOpen);
    assert_eq!(not_open.log.as_deref(), Some("orders"));
    assert!(!not_open.needs_restart, "a restart repairs no disk");
    assert!(running.node.failure().is_some());
    let of_orders = |path: &&std::path::PathBuf| path.to_string_lossy().contains(&manifest[..27]);
    let after = disk.contents();
    assert!(before.keys().filter(of_orders).all(|path| before[path] == after[path]), "changed");
    // It can be deleted, as on the other nodes.
    running.run(running.node.delete_log(&name("orders"))).expect("one node");
    running.until("no problem", || running.node.problems().is_empty().then_some(()));
    running.kill();
}

#[test]
fn a_task_of_the_node_that_panics_begins_again_and_is_told_of() {
    let running = alone(&SimDisk::new());
    let inner = running.node.inner.clone();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let task = move || {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        async move { assert!(!first, "a bug in a task") }
    };
    running.run(inner.clone().keep("a task", task));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    let problem = problem(&running, ProblemKind::TaskPanicked);
    assert!(!problem.needs_restart && problem.reason.contains("a bug in a task"), "{problem}");
    running.run(inner.run_once("a listener", async { panic!("a bug at its end") }));
    let ended = running.node.problems().into_iter().find(|problem| problem.needs_restart);
    assert!(ended.is_some_and(|ended| ended.reason.contains("a bug at its end")));
    running.kill();
}

fn unhurried(config: &mut Config) {
    config.raft.heartbeat_interval = Duration::from_millis(50);
    config.raft.election_timeout_min = Duration::from_millis(300);
    config.raft.election_timeout_max = Duration::from_millis(600);
}

/// A copy that has stopped hears nobody: it named no leader, and clients of its node were sent nowhere.
#[test]
fn a_node_whose_copy_has_stopped_names_the_leader_that_the_others_have() {
    let disks = [SimDisk::new(), SimDisk::with_seed(2), SimDisk::with_seed(3)];
    let nodes = three(&MemoryTransport::default(), &disks, unhurried);
    let first = &nodes[0];
    let log = first.node.log(&name("orders")).expect("it leads it");
    first.run(log.append("before")).expect("a quorum is there");
    let group = first.node.inner.group_named("orders").expect("it is open");
    let term = log.status().term;
    first.run(group.raft.with_raft_state(|_| panic!("a bug in consensus"))).expect_err("it ends");
    let status = first.until("the next leader", || {
        Some(log.status()).filter(|status| status.leader.is_some() && status.role == Role::Stopped)
    });
    let leader = status.leader.expect("looked for").id;
    assert!(leader != 1 && status.term > term, "node {leader} in term {}", status.term);
    let row = first.node.statuses().into_iter().find(|row| row.log == "orders").expect("a row");
    assert_eq!(row.leader.map(|leader| leader.id), Some(leader));
    assert!(row.members.iter().all(|member| member.matched.is_none()), "it leads no more");
    // Whoever comes here is sent there.
    let error = first.run(log.append("here")).expect_err("it has stopped");
    assert_eq!(error.leader().map(|leader| leader.id), Some(leader), "{error}");
    let error = first.run(log.read_barrier()).expect_err("it has stopped");
    assert!(matches!(&error, crate::ReadError::NotLeader { leader: Some(to) } if to.id == leader));
    let theirs = &nodes[leader as usize - 1];
    theirs
        .run(theirs.node.log(&name("orders")).expect("it leads it").append("after"))
        .expect("two run");
    // Nobody is named who is gone.
    drop(group);
    let [first, others @ ..]: [Running; 3] = nodes.try_into().ok().expect("three");
    others.into_iter().for_each(Running::kill);
    first.until("no leader", || log.status().leader.is_none().then_some(()));
    let error = first.run(log.append("nobody")).expect_err("it has stopped");
    assert_eq!(error.outcome(), crate::Outcome::NotAppended, "{error}");
    first.kill();
}

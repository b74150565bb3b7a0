//! Older copies of a member's data that are put back.

use std::collections::BTreeMap;
use std::io;

use super::moved::{problem, steady};
use super::*;
use crate::member::ReplicaId;
use crate::problem::ProblemKind;
use crate::raft::Identity as _;
use crate::seam::{Acceptor, BoxFuture, Duplex};
use crate::wire::Intro;

/// A network on which all ports are taken.
#[derive(Debug, Clone)]
struct Taken;

impl Transport for Taken {
    fn dial(&self, _addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        Box::pin(std::future::pending())
    }

    fn bind(&self, _addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        Box::pin(async { Err(io::ErrorKind::AddrInUse.into()) })
    }
}

/// Three nodes with the log `orders`, led by the first.
struct Three {
    transport: MemoryTransport,
    nodes: BTreeMap<NodeId, Running>,
    disks: BTreeMap<NodeId, SimDisk>,
}

impl Three {
    fn start() -> Self {
        let disks = (1..=3).map(|id| (id, SimDisk::new())).collect();
        let mut three =
            Self { transport: MemoryTransport::default(), nodes: BTreeMap::new(), disks };
        (1..=3).for_each(|id| three.open(id));
        let first = &three.nodes[&1];
        first.bootstrap(three.nodes.values().map(|running| running.node.member()).collect());
        first.run(first.node.create_log(&name("orders"))).expect("all run");
        first.run(first.node.admin().transfer_leadership(1)).expect("all run");
        three.wait_for(2);
        three
    }

    fn open(&mut self, id: NodeId) {
        let running = Running::try_start(&self.transport, &self.disks[&id], id, steady);
        self.nodes.insert(id, running.expect("it opens"));
    }

    /// Ends a node; what it had flushed stays.
    fn kill(&mut self, id: NodeId) {
        self.nodes.remove(&id).expect("it runs").kill();
        let disk = self.disks[&id].crash(&CrashPolicy::LoseAll);
        self.disks.insert(id, disk);
    }

    /// A copy of a node's disk as it is.
    fn image(&self, id: NodeId) -> SimDisk {
        let image = self.disks[&id].after_crash(&CrashPolicy::KeepAll);
        // What is drawn from now on is not what the node draws.
        image.set_seed(id << 32 | 1);
        image
    }

    fn generation_at(&self, at: NodeId, of: ReplicaId) -> u64 {
        let all = self.nodes[&at].node.inner.peers.contacts.generations.all();
        all.get(&of).map_or(0, |newest| newest.generation)
    }

    fn intro(&self, id: NodeId) -> Intro {
        let hello = self.nodes[&id].node.inner.identity.hello(0, 0);
        hello.intro.expect("a node says who it is")
    }

    /// Waits until a node has raised its generation, and the others have heard of the present one.
    fn wait_for(&self, id: NodeId) {
        let (of, began) = (self.nodes[&id].replica().id, self.intro(id).began);
        for (at, running) in self.nodes.iter().filter(|(at, _)| **at != id) {
            running.until("it to be heard of", || {
                let now = self.intro(id).generation;
                (now > began && self.generation_at(*at, of) >= now).then_some(())
            });
        }
    }

    /// Waits until the others talk to the process that a node runs as, which none of them may have refused as older.
    fn assert_let_in(&self, id: NodeId) {
        let (of, session) = (self.nodes[&id].replica().id, self.intro(id).session);
        for running in self.nodes.iter().filter(|(at, _)| **at != id).map(|(_, running)| running) {
            let contacts = &running.node.inner.peers.contacts;
            running.until("it to be let in", || {
                (contacts.session(of) == Some(session) && contacts.reached(of).is_some())
                    .then_some(())
            });
        }
        let inner = &self.nodes[&id].node.inner;
        assert_eq!(inner.peers.standing.is_outdated(), None);
        assert!(!inner.dir.is_outdated());
    }

    /// What nodes do now and then.
    fn note_generations(&self, id: NodeId) {
        let (running, inner) = (&self.nodes[&id], &self.nodes[&id].node.inner);
        running.run(inner.note_generations(inner.is_admitted(), &mut Vec::new()));
    }

    /// Has all others heard of two starts of the second node since a copy of its data was made, which is given, and ends all
    /// nodes.
    fn older_copy_of_the_second(mut self) -> (Self, SimDisk) {
        let older = self.image(2);
        self.append();
        self.kill(2);
        self.open(2);
        self.wait_for(2);
        self.append();
        [1, 3].into_iter().for_each(|id| self.note_generations(id));
        (1..=3).for_each(|id| self.kill(id));
        (self, older)
    }

    fn append(&self) {
        let (leader, log) = self.nodes[&1].until("a leader", || {
            self.nodes.values().find_map(|running| {
                let log = running.node.log(&name("orders"))?;
                (log.status().role == Role::Leader).then_some((running, log))
            })
        });
        leader.run(log.append("one")).expect("a majority runs");
    }

    fn assert_left_out(&self, id: NodeId) {
        let running = &self.nodes[&id];
        let told = problem(running, ProblemKind::DataLost);
        assert!(told.reason.contains("empty data directory"), "{told}");
        running.until("its logs to be stopped", || {
            let stopped = |status: &Status| status.role == Role::Stopped;
            let all = running.node.statuses();
            (!all.is_empty() && all.iter().all(stopped)).then_some(())
        });
        running.until("it to be said once, and nothing of members that answer", || {
            let problems = running.node.problems();
            let kinds: Vec<_> = problems.iter().map(|problem| problem.kind).collect();
            eprintln!("{problems:#?}");
            (kinds == [ProblemKind::DataLost]).then_some(())
        });
    }
}

#[test]
fn an_older_copy_of_a_members_data_is_left_out_and_the_newest_data_is_not() {
    let mut three = Three::start();
    let older = three.image(2);
    three.append();
    three.kill(2);
    three.open(2);
    three.wait_for(2);
    three.append();
    three.kill(2);
    let newest = three.disks.insert(2, older).expect("its disk");
    three.open(2);
    three.assert_left_out(2);
    for at in [1, 3] {
        let seen = problem(&three.nodes[&at], ProblemKind::PeerLostData);
        assert!(seen.peer == Some(2) && seen.reason.contains("older copy"), "{seen}");
    }
    three.append();
    // However often it is started.
    for _ in 0..2 {
        three.kill(2);
        three.open(2);
        three.assert_left_out(2);
    }
    three.kill(2);
    three.disks.insert(2, newest);
    three.open(2);
    three.wait_for(2);
    let second = three.nodes[&2].replica().id;
    let first = &three.nodes[&1];
    first.until("it to be reached", || first.node.inner.peers.contacts.reached(second));
    three.kill(3);
    three.append();
}

#[test]
fn a_node_that_is_left_out_says_at_once_that_others_must_be_asked() {
    let (mut three, older) = Three::start().older_copy_of_the_second();
    three.disks.insert(2, older);
    (1..=3).for_each(|id| three.open(id));
    three.assert_left_out(2);
    let second = &three.nodes[&2];
    let admin = second.node.admin();
    // Shorter than a leader is looked for.
    let asked = async { tokio::time::timeout(Duration::from_secs(3), admin.remove(2)).await };
    let error = second.run(asked).expect("at once").expect_err("it takes no part");
    assert!(matches!(error, AdminError::NotLeader { leader: None }), "{error}");
    let first = &three.nodes[&1];
    first.run(first.node.admin().remove(2)).expect("a majority runs");
}

#[test]
fn a_copy_of_the_same_run_is_told_apart_once_the_node_has_raised_its_generation_and_after_restarts()
{
    let mut three = Three::start();
    let older = three.image(2);
    three.append();
    three.note_generations(2);
    three.wait_for(2);
    [1, 3].into_iter().for_each(|id| three.note_generations(id));
    (1..=3).for_each(|id| three.kill(id));
    three.disks.insert(2, older);
    (1..=3).for_each(|id| three.open(id));
    three.assert_left_out(2);
    three.append();
}

#[test]
fn members_that_are_restarted_again_and_again_are_let_in() {
    let mut three = Three::start();
    for round in 0..6 {
        let id = 2 + round % 2;
        if round % 3 == 0 {
            three.note_generations(id);
        }
        three.kill(id);
        three.open(id);
        three.wait_for(id);
        three.append();
    }
}

#[test]
fn starts_that_fail_or_meet_nobody_do_not_make_an_older_copy_the_newest() {
    let (mut three, older) = Three::start().older_copy_of_the_second();
    three.disks.insert(2, older);
    for _ in 0..4 {
        let before = three.disks[&2].contents();
        let failed = Running::try_start(&Taken, &three.disks[&2], 2, steady);
        assert!(matches!(failed.err(), Some(OpenError::Listen { .. })));
        assert!(before == three.disks[&2].contents(), "a taken port changed something on disk");
    }
    for _ in 0..4 {
        three.open(2);
        three.note_generations(2);
        three.kill(2);
    }
    // One that knows better comes.
    three.open(2);
    three.open(3);
    three.assert_left_out(2);
    let seen = problem(&three.nodes[&3], ProblemKind::PeerLostData);
    assert!(seen.peer == Some(2) && seen.reason.contains("older copy"), "{seen}");
    three.open(1);
    three.append();
}

#[test]
fn an_older_copy_that_was_refused_stays_out_however_often_it_is_started_also_where_nobody_knows_better()
 {
    let (mut three, older) = Three::start().older_copy_of_the_second();
    three.disks.insert(2, older);
    (1..=3).for_each(|id| three.open(id));
    let generation = three.intro(2).generation;
    for _ in 0..4 {
        three.assert_left_out(2);
        three.note_generations(2);
        three.kill(2);
        three.open(2);
    }
    three.assert_left_out(2);
    assert_eq!(three.intro(2).generation, generation);
    (1..=3).for_each(|id| three.kill(id));
    three.open(2);
    three.assert_left_out(2);
}

#[test]
fn a_member_that_is_started_again_and_again_alone_or_not_is_let_in_at_once() {
    let mut three = Three::start();
    for round in 0..10 {
        three.kill(2);
        three.open(2);
        if round % 2 == 0 {
            three.assert_let_in(2);
        }
    }
    three.assert_let_in(2);
    three.wait_for(2);
    [1, 3].into_iter().for_each(|id| three.note_generations(id));
    (1..=3).for_each(|id| three.kill(id));
    for _ in 0..10 {
        three.open(2);
        three.kill(2);
    }
    (1..=3).for_each(|id| three.open(id));
    (1..=3).for_each(|id| three.assert_let_in(id));
    three.append();
}

#[test]
fn a_member_that_ends_at_any_step_of_a_start_up_to_its_next_generation_is_let_in_again() {
    let mut three = Three::start();
    for at in 0.. {
        let policy = if at % 2 == 0 { CrashPolicy::LoseAll } else { CrashPolicy::KeepAll };
        three.kill(2);
        three.disks[&2].fail_nth_change(at, Fault::Halt);
        if let Ok(running) = Running::try_start(&three.transport, &three.disks[&2], 2, steady) {
            three.nodes.insert(2, running);
            let began = three.intro(2).began;
            three.nodes[&2].until("a raise, or the end", || {
                let raised = three.intro(2).generation > began;
                (raised || three.disks[&2].is_dead()).then_some(())
            });
            three.nodes.remove(&2).expect("it runs").kill();
        }
        let whole = !three.disks[&2].is_dead();
        let disk = three.disks[&2].crash(&policy);
        three.disks.insert(2, disk);
        three.open(2);
        three.assert_let_in(2);
        if whole {
            assert!(at > 3, "more operations than {at}");
            return three.append();
        }
    }
}

//! Older copies of a member's data that are put back.

use std::collections::BTreeMap;

use super::moved::{problem, steady};
use super::*;
use crate::member::ReplicaId;
use crate::problem::ProblemKind;

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
        image.clock().random().expect("a healthy disk");
        image
    }

    fn generation_at(&self, at: NodeId, of: ReplicaId) -> u64 {
        let all = self.nodes[&at].node.inner.peers.contacts.generations.all();
        all.get(&of).map_or(0, |newest| newest.generation)
    }

    /// Waits until the others have heard of the present generation of a node.
    fn wait_for(&self, id: NodeId) {
        let (of, inner) = (self.nodes[&id].replica().id, &self.nodes[&id].node.inner);
        for (at, running) in self.nodes.iter().filter(|(at, _)| **at != id) {
            running.until("it to be heard of", || {
                (self.generation_at(*at, of) >= inner.dir.generation()).then_some(())
            });
        }
    }

    /// What nodes do now and then.
    fn note_generations(&self, id: NodeId) {
        let running = &self.nodes[&id];
        running.run(running.node.inner.note_generations(&mut Vec::new()));
    }

    fn append(&self) {
        let (leader, log) = self.nodes[&1].until("a leader", || {
            self.nodes.values().find_map(|running| {
                let log = running.node.log("orders")?;
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

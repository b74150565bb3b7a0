//! New logs get a leader at once, and not after an election timeout.

use std::sync::{Condvar, Mutex};

use super::*;

/// With elections so slow that every wait of these tests ends before the second one.
fn one_election(config: &mut Config) {
    config.raft.heartbeat_interval = Duration::from_millis(100);
    config.raft.election_timeout_min = PATIENCE * 2;
    config.raft.election_timeout_max = PATIENCE * 3;
}

/// Keeps nodes from opening new logs while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic holds it") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let shut = self.0.0.lock().expect("no panic holds it");
        drop(self.0.1.wait_while(shut, |open| !*open).expect("no panic holds it"));
    }
}

/// Three nodes, of which the second and the third open new logs when the gate lets them.
fn three_gated(gate: &Gate) -> Vec<Running> {
    let transport = MemoryTransport::default();
    let nodes: Vec<Running> = (1..=3)
        .map(|id| {
            let gate = gate.clone();
            let opened =
                Running::try_build(&transport, &SimDisk::new(), id, one_election, |builder| {
                    builder.state_machines(move |_: &LogName| {
                        if id != 1 {
                            // The node's other tasks go on meanwhile.
                            tokio::task::block_in_place(|| gate.wait());
                        }
                        None
                    })
                });
            opened.expect("it opens")
        })
        .collect();
    nodes[0].bootstrap(nodes.iter().map(|running| running.node.member()).collect());
    nodes
}

#[test]
fn a_new_log_gets_its_leader_from_nodes_that_open_it_after_the_first_vote() {
    let gate = Gate::default();
    let nodes = three_gated(&gate);
    let founder = &nodes[0];
    let node = founder.node.clone();
    let making = founder.runtime.spawn(async move { node.create_log(&name("orders")).await });
    let log = founder.until("the log", || founder.node.log(&name("orders")));
    founder.until("it to stand for election", || {
        let status = log.status();
        (status.role == Role::Candidate && status.leader.is_none()).then_some(())
    });
    gate.open();
    founder.run(making).expect("no panic").expect("all run");
    assert_eq!(log.status().term, 1, "the first election was enough");
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_leader_that_dies_soon_after_its_first_election_is_replaced_like_any_other() {
    let election = Duration::from_secs(2);
    let transport = MemoryTransport::default();
    let configure = |config: &mut Config| {
        config.raft.election_timeout_min = election / 2;
        config.raft.election_timeout_max = election;
    };
    let disks: Vec<SimDisk> = (1..=3).map(|_| SimDisk::new()).collect();
    let start = |(id, disk)| Running::try_start(&transport, disk, id, configure);
    let mut nodes: Vec<Running> =
        (1..).zip(&disks).map(|node| start(node).expect("it opens")).collect();
    nodes[0].bootstrap(nodes.iter().map(|running| running.node.member()).collect());
    let founder = nodes.remove(0);
    founder.run(founder.node.create_log(&name("orders"))).expect("all run");
    for other in &nodes {
        let log = other.until("the log", || other.node.log(&name("orders")));
        other.until("its leader", || log.status().leader);
    }
    let killed = Instant::now();
    founder.kill();
    let led = |log: CommitLog| (log.status().role == Role::Leader).then_some(());
    let next = || nodes.iter().find_map(|other| other.node.log(&name("orders")).and_then(led));
    nodes[0].until("the next leader", next);
    // Who waits for a first leader waits twice an election timeout at least, and then stands.
    assert!(killed.elapsed() < election * 2, "after {:?}", killed.elapsed());
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_new_cluster_waits_for_its_founders_and_gets_its_leader_at_once() {
    let transport = MemoryTransport::default();
    let start = |id| Running::try_start(&transport, &SimDisk::new(), id, one_election);
    let mut nodes = vec![start(1).expect("it opens")];
    let first = nodes[0].node.clone();
    let founder = first.clone();
    let members = (1..=3).map(|id| Member::new(id, format!("node{id}:1")));
    let founding = nodes[0].runtime.spawn(async move { founder.bootstrap(members).await });
    nodes.push(start(2).expect("it opens"));
    let second = nodes[1].node.clone();
    nodes[1]
        .until("it to be asked who it is", || (second.inner.identity.cluster() != 0).then_some(()));
    assert!(!first.is_bootstrapped(), "it does not know yet who node 3 is");
    nodes.push(start(3).expect("it opens"));
    nodes[0].run(founding).expect("no panic").expect("a new cluster");
    nodes[0].until("a leader", || first.status().leader);
    assert_eq!(first.status().term, 1, "the first election was enough");
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_vote_for_a_log_that_was_deleted_is_refused_at_once() {
    let running = Running::try_start(&MemoryTransport::default(), &SimDisk::new(), 1, one_election)
        .expect("it opens");
    running.bootstrap(vec![running.node.member()]);
    let id = running.run(running.node.create_log(&name("orders"))).expect("one node").id();
    running.run(running.node.delete_log(&name("orders"))).expect("one node");
    running.until("it to be gone", || running.node.inner.group(id).is_none().then_some(()));
    assert!(running.run(running.node.inner.opened(id)).is_none(), "it is never opened again");
    running.kill();
}

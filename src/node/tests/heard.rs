//! A node names a leader only if it has heard lately that it leads.

use super::*;

fn slow_elections(config: &mut Config) {
    config.raft.election_timeout_min = Duration::from_millis(300);
    config.raft.election_timeout_max = Duration::from_millis(400);
}

/// Who leads each of its logs, as the node says.
fn named(running: &Running) -> Vec<Option<NodeId>> {
    let statuses = running.node.statuses();
    statuses.into_iter().map(|status| status.leader.map(|leader| leader.id)).collect()
}

#[test]
fn without_a_majority_no_node_names_a_leader_and_with_one_all_do_again() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let transport = MemoryTransport::default();
    let mut nodes = three(&transport, &disks, slow_elections);
    let leads = |running: &Running| running.node.status().role == Role::Leader;
    let led = |running: &Running| named(running).iter().all(Option::is_some);
    let at = nodes[0].until("a leader", || nodes.iter().position(leads));
    nodes[0].until("all to name it", || nodes.iter().all(led).then_some(()));
    // A follower whose leader is gone, and then a leader that is left alone.
    let last = nodes.remove(usize::from(at == 0));
    nodes.into_iter().for_each(Running::kill);
    let nobody = |running: &Running| named(running).iter().all(Option::is_none).then_some(());
    last.until("no leader", || nobody(&last));
    let id = last.node.member().id;
    last.kill();
    let on = |id: NodeId| {
        let held = &disks[usize::try_from(id).expect("a small number") - 1];
        let disk = held.crash(&CrashPolicy::KeepAll);
        Running::try_start(&transport, &disk, id, slow_elections).expect("it opens")
    };
    let last = on(id);
    let unheard = "the leader of its last vote is not there";
    assert_eq!(nobody(&last), Some(()), "{unheard}");
    last.until("its logs", || (last.node.statuses().len() > 1).then_some(()));
    assert_eq!(nobody(&last), Some(()), "{unheard}");
    let other = on(if id == 3 { 2 } else { 3 });
    let both = [last, other];
    both[0].until("all to name one", || both.iter().all(led).then_some(()));
    let at = both[0].until("a leader", || both.iter().position(leads));
    let [first, second] = both;
    let (leader, follower) = if at == 0 { (first, second) } else { (second, first) };
    follower.kill();
    leader.until("to know that it is alone", || nobody(&leader));
    leader.kill();
}

#[test]
fn a_node_that_is_alone_in_its_cluster_leads() {
    let running = alone(&SimDisk::new());
    running.run(running.node.create_log(&name("orders"))).expect("one node");
    let log = running.node.log(&name("orders")).expect("it is open");
    running.until("to lead", || log.status().leader);
    let until = Instant::now() + running.node.inner.config.raft.election_timeout_max * 4;
    running.until("a while to pass", || {
        assert_eq!(named(&running), [Some(1), Some(1)]);
        (Instant::now() > until).then_some(())
    });
    assert!(log.hears_majority());
    running.kill();
}

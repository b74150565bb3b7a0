//! Leadership that is handed over.

use super::*;

/// With elections so slow that every wait of these tests ends before one, and heartbeats that come far apart.
fn slow(config: &mut Config) {
    config.raft.heartbeat_interval = Duration::from_secs(1);
    config.raft.election_timeout_min = PATIENCE * 2;
    config.raft.election_timeout_max = PATIENCE * 3;
}

/// Three nodes led by the first, of which the third has just been started again.
fn three_with_a_new_start() -> Vec<Running> {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, slow);
    let ends = |running: &Running| -> Vec<u64> {
        running.node.statuses().iter().map(|status| status.end).collect()
    };
    let third = nodes.pop().expect("three");
    third.until("all that the leader holds", || (ends(&third) == ends(&nodes[0])).then_some(()));
    third.kill();
    let disk = disks[2].crash(&CrashPolicy::KeepAll);
    nodes.push(Running::try_start(&transport, &disk, 3, slow).expect("it opens"));
    nodes
}

#[test]
fn a_node_may_be_handed_leadership_before_it_has_heard_a_heartbeat() {
    let nodes = three_with_a_new_start();
    let system = nodes[0].node.inner.system().expect("it is open");
    nodes[0].run(system.transfer_leadership(3, PATIENCE)).expect("all run");
    nodes[2].until("to lead", || (nodes[2].node.status().role == Role::Leader).then_some(()));
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_node_may_be_handed_leadership_before_it_has_opened_the_log() {
    let nodes = three_with_a_new_start();
    let log = nodes[0].node.log(&name("orders")).expect("it leads it");
    nodes[0].run(log.admin().transfer_leadership(3)).expect("all run");
    nodes[2].until("to lead", || {
        (nodes[2].node.log(&name("orders"))?.status().role == Role::Leader).then_some(())
    });
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn leadership_stays_where_it_is_while_the_successor_is_down() {
    let mut nodes = three_with_a_new_start();
    nodes.pop().expect("three").kill();
    let log = nodes[0].node.log(&name("orders")).expect("it leads it");
    let given_up = nodes[0].run(log.group().transfer_leadership(3, Duration::from_millis(100)));
    let error = given_up.expect_err("nobody is there");
    assert!(matches!(error, AdminError::Timeout { .. }), "{error}");
    nodes[0].run(log.append("after")).expect("it leads, and takes appends");
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn appends_are_taken_while_a_successor_that_is_down_is_waited_for() {
    let mut nodes = three_with_a_new_start();
    nodes.pop().expect("three").kill();
    let log = nodes[0].node.log(&name("orders")).expect("it leads it");
    let group = log.group();
    nodes[0].run(async {
        let handing_over = group.transfer_leadership(3, PATIENCE * 2);
        let appending = log.append("meanwhile");
        tokio::select! {
            biased;
            handed = handing_over => panic!("nobody is there: {handed:?}"),
            appended = appending => appended.expect("it leads, and takes appends"),
        };
    });
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn who_hands_over_is_told_at_once_that_another_node_leads() {
    let mut nodes = three_with_a_new_start();
    nodes.pop().expect("three").kill();
    let log = nodes[0].node.log(&name("orders")).expect("it leads it");
    let group = log.group();
    let (to_nobody, to_second) = nodes[0].run(async {
        let to_nobody = group.transfer_leadership(3, PATIENCE * 2);
        tokio::join!(to_nobody, group.transfer_leadership(2, PATIENCE))
    });
    to_second.expect("it runs");
    let error = to_nobody.expect_err("nobody is there");
    assert!(matches!(error, AdminError::NotLeader { .. }), "{error}");
    nodes.into_iter().for_each(Running::kill);
}

//! Members at other addresses, members that nobody reaches, copies of members, and members without their data.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::problem::{Problem, ProblemKind};
use crate::seam::{Acceptor, BoxFuture, Duplex};

/// Starts node 2 on what `disk` holds, listening elsewhere.
fn moved(transport: &(impl Transport + Clone), disk: &SimDisk, advertise: Option<&str>) -> Running {
    moved_node_on(transport, disk, 2, advertise)
}

pub(super) fn moved_node_on(
    transport: &(impl Transport + Clone),
    disk: &SimDisk,
    id: NodeId,
    advertise: Option<&str>,
) -> Running {
    let advertise = advertise.map(str::to_owned);
    let change = move |config: &mut Config| {
        steady(config);
        config.listen = format!("node{id}:9");
        config.client_advertise = Some(format!("node{id}:99"));
        config.advertise = advertise;
    };
    Running::try_start(transport, disk, id, change).expect("it opens")
}

/// With elections so slow that none happens because the machine is busy.
pub(super) fn steady(config: &mut Config) {
    config.raft.heartbeat_interval = Duration::from_millis(50);
    config.raft.election_timeout_min = Duration::from_millis(400);
    config.raft.election_timeout_max = Duration::from_millis(800);
}

/// Where `running` takes node 2 to be, by each log that it holds.
fn addresses(running: &Running) -> Vec<String> {
    let statuses = running.node.statuses().into_iter();
    let of = |status: Status| status.members.into_iter().find(|other| other.member.id == 2);
    statuses.filter_map(|status| of(status).map(|status| status.member.peer_addr)).collect()
}

pub(super) fn problem(running: &Running, kind: ProblemKind) -> Problem {
    running.until("the problem", || {
        running.node.problems().into_iter().find(|problem| problem.kind == kind)
    })
}

fn leads(running: &Running) -> bool {
    running.node.statuses().iter().any(|status| status.role == Role::Leader)
}

#[test]
fn a_member_at_another_address_is_found_there_and_all_logs_write_it_down() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, steady);
    nodes.remove(1).kill();
    let unreachable = problem(&nodes[0], ProblemKind::PeerUnreachable);
    assert_eq!(unreachable.peer, Some(2), "{unreachable}");
    assert!(unreachable.for_ms > 0 && unreachable.reason.contains("node2:1"), "{unreachable}");
    let second = moved(&transport, &disks[1].crash(&CrashPolicy::KeepAll), None);
    for running in nodes.iter().chain([&second]) {
        running.until("the new address in both logs", || {
            (addresses(running) == ["node2:9", "node2:9"]).then_some(())
        });
    }
    let client = second.node.status().members.into_iter().find(|other| other.member.id == 2);
    assert_eq!(client.expect("a member").member.client_addr, "node2:99");
    nodes[0].until("no problem", || nodes[0].node.problems().is_empty().then_some(()));

    // It may lead, and is asked for changes by the others.
    nodes[0].run(nodes[0].node.admin().transfer_leadership(2)).expect("all run");
    nodes[1].run(nodes[1].node.create_log(&name("another"))).expect("all run");
    assert!(leads(&second));
    second.kill();
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn voters_that_move_at_once_find_each_other_through_a_member_that_does_not_vote() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, steady);
    let orders = nodes[0].node.log(&name("orders")).expect("it is open").id();
    for log in [LogId::SYSTEM, orders] {
        let demote = AdminRequest::Demote(1);
        nodes[0].run(nodes[0].node.inner.on_leader(log, &demote)).expect("all run");
    }
    nodes.drain(1..).for_each(Running::kill);
    let again = |id: NodeId| {
        let disk = disks[id as usize - 1].crash(&CrashPolicy::KeepAll);
        moved_node_on(&transport, &disk, id, None)
    };
    let (second, third) = (again(2), again(3));
    for running in [&nodes[0], &second, &third] {
        running.until("the new address in both logs", || {
            (addresses(running) == ["node2:9", "node2:9"]).then_some(())
        });
    }
    nodes.into_iter().chain([second, third]).for_each(Running::kill);
}

#[test]
fn adding_a_member_again_changes_its_address_in_all_logs() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, steady);
    nodes.remove(1).kill();
    // It tells an address that the others do not reach.
    let second = moved(&transport, &disks[1].crash(&CrashPolicy::KeepAll), Some("nowhere:1"));
    let told = Member::new(2, "node2:9").with_client_addr("node2:99");
    nodes[0].run(nodes[0].node.admin().add_learner(told)).expect("a majority runs");
    for running in nodes.iter().chain([&second]) {
        running.until("the new address in both logs", || {
            (addresses(running) == ["node2:9", "node2:9"]).then_some(())
        });
    }
    let voter = nodes[0].node.status().members.into_iter().find(|other| other.member.id == 2);
    assert!(voter.expect("a member").voter, "it votes as before");
    second.kill();
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_node_that_the_others_cannot_reach_wins_no_election() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, steady);
    let third = nodes.pop().expect("three");
    nodes.pop().expect("two").kill();
    let second = moved(&transport, &disks[1].crash(&CrashPolicy::KeepAll), Some("nowhere:1"));
    problem(&third, ProblemKind::PeerUnreachable);
    nodes.pop().expect("one").kill();
    let wait = third.node.config().raft.election_timeout_max * 5;
    second.runtime.block_on(async {
        // paced: that nothing happens can only be seen over time.
        tokio::time::sleep(wait).await;
    });
    assert!(!leads(&second), "it leads what it cannot be asked for: {:#?}", second.node.statuses());
    // What is missing is said, and not only that time has passed.
    let error = third.run(third.node.create_log(&name("more"))).expect_err("no majority");
    let said = error.to_string();
    assert!(said.contains("node 1") && said.contains("node 2"), "{said}");
    let first = Running::start(&transport, &disks[0].crash(&CrashPolicy::KeepAll), 1);
    third.until("a leader", || leads(&first).then_some(()).or(leads(&third).then_some(())));
    [first, second, third].into_iter().for_each(Running::kill);
}

/// Dials of `node2:1` fail once they are told to. Connections stay.
#[derive(Debug, Clone, Default)]
struct OneWay {
    inner: MemoryTransport,
    refused: Arc<AtomicBool>,
}

impl Transport for OneWay {
    fn dial(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Duplex>>> {
        if addr == "node2:1" && self.refused.load(Ordering::Relaxed) {
            return Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) });
        }
        self.inner.dial(addr)
    }

    fn bind(&self, addr: &str) -> BoxFuture<io::Result<Box<dyn Acceptor>>> {
        self.inner.bind(addr)
    }
}

#[test]
fn a_leader_that_the_others_can_no_longer_reach_hands_over_and_says_why() {
    let transport = OneWay::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, steady);
    nodes[0].run(nodes[0].node.admin().transfer_leadership(2)).expect("all run");
    let third = nodes.pop().expect("three");
    let second = nodes.pop().expect("two");
    let first = nodes.pop().expect("one");
    transport.refused.store(true, Ordering::Relaxed);
    // Their connections to node 2 end; its own to them come back.
    let again = |running: Running, id: NodeId| {
        running.kill();
        Running::start(&transport, &disks[id as usize - 1].crash(&CrashPolicy::KeepAll), id)
    };
    let first = again(first, 1);
    let third = again(third, 3);
    let unreached = problem(&second, ProblemKind::NotReachedBack);
    assert!(unreached.reason.contains("node2:1"), "{unreached}");
    second.until("to lead no more", || (!leads(&second)).then_some(()));
    first.until("another leader", || (leads(&first) || leads(&third)).then_some(()));
    [first, second, third].into_iter().for_each(Running::kill);
}

#[test]
fn a_copy_of_a_member_that_runs_stops_and_the_member_goes_on() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, steady);
    let second = nodes[1].replica().id;
    for running in [&nodes[0], &nodes[2]] {
        running
            .until("node 2 to have dialed", || running.node.inner.peers.contacts.session(second));
    }
    let copied = disks[1].after_crash(&CrashPolicy::KeepAll);
    let copy = moved(&transport, &copied, None);
    let reason = copy.run(copy.node.retired());
    assert!(reason.contains("another process"), "{reason}");
    copy.until("its logs to stop", || {
        let statuses = copy.node.statuses();
        statuses.iter().all(|status| status.role == Role::Stopped).then_some(())
    });
    assert!(problem(&copy, ProblemKind::Duplicate).reason.contains("node2:1"));
    let peers = nodes.iter().filter(|running| running.node.member().id != 2);
    let noticed = peers.filter_map(|running| {
        running
            .node
            .problems()
            .into_iter()
            .find(|problem| problem.kind == ProblemKind::PeerDuplicate)
    });
    assert!(noticed.count() > 0, "nobody is warned");
    let second = nodes.remove(1);
    assert_eq!(addresses(&second), ["node2:1", "node2:1"], "it was taken for a member that moved");
    nodes[0].run(nodes[0].node.admin().transfer_leadership(2)).expect("all run");
    assert!(leads(&second));
    assert!(second.node.problems().iter().all(|problem| !problem.kind.is_own()));
    copy.kill();
    second.kill();
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_member_without_its_data_is_told_and_told_of_and_is_not_said_to_vote() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, steady);
    nodes.pop().expect("three").kill();
    let wiped = Running::start(&transport, &SimDisk::with_seed(9), 3);
    let lost = problem(&wiped, ProblemKind::DataLost);
    assert!(lost.reason.contains("remove it from the cluster, then add it again"), "{lost}");
    let first = &nodes[0];
    let seen = problem(first, ProblemKind::PeerLostData);
    assert_eq!(seen.peer, Some(3));
    let error = first.run(first.node.admin().promote(3)).expect_err("it does not count");
    assert!(matches!(error, AdminError::Invalid { .. }), "{error:?}");
    assert!(error.to_string().contains("its data is gone"), "{error}");
    // What to do is what it says.
    first.run(first.node.admin().remove(3)).expect("a majority runs");
    first.run(first.node.admin().add_learner(wiped.node.member())).expect("all run");
    first.run(first.node.admin().promote(3)).expect("all run");
    for running in [first, &wiped] {
        running.until("no problem", || running.node.problems().is_empty().then_some(()));
    }
    wiped.kill();
    nodes.into_iter().for_each(Running::kill);
}

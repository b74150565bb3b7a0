//! Changes of members beside other changes.

use std::collections::BTreeSet;

use super::*;
use crate::member::Replica;
use crate::node::catalog::CatalogCommand;
use crate::problem::ProblemKind;
use crate::raft::Lane;
use crate::wire::LinkError;

#[test]
fn a_log_whose_creation_was_overtaken_by_a_removal_has_no_vote_of_the_removed_node() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let nodes = three(&MemoryTransport::default(), &disks, |_| {});
    let first = &nodes[0];
    let admin = first.node.admin();
    // The members as the leader took them before the removal.
    let members: Vec<Replica> = nodes.iter().map(Running::replica).collect();
    first.run(admin.remove(3)).expect("a majority runs");
    let leader = nodes[..2].iter().find(|running| running.node.status().role == Role::Leader);
    let leader = leader.expect("one of the two leads");
    let system = leader.node.inner.system().expect("it is open");
    let create = CatalogCommand::Create { name: name("late"), members };
    leader.run(leader.node.inner.change_catalog(&system, create)).expect("a majority runs");
    let late = leader.until("the log", || leader.node.log(&name("late")));
    leader.until("its leader", || late.status().leader);
    let voters: BTreeSet<NodeId> =
        late.status().members.iter().map(|status| status.member.id).collect();
    assert_eq!(voters, BTreeSet::from([1, 2]));
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_node_that_lost_its_data_is_another_member_until_it_is_removed_and_added_anew() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, |_| {});
    let old = nodes[2].replica();
    nodes.pop().expect("three").kill();
    let wiped = Running::start(&transport, &SimDisk::with_seed(9), 3);
    let first = &nodes[0];
    let admin = first.node.admin();
    // What is meant for the one that it was does not reach it.
    let link = first.node.inner.peers.link(old.id, &old.member.peer_addr, Lane::Control);
    let error = first.run(async {
        loop {
            match link.connect().await {
                Err(LinkError::Refused { reason, .. }) => return reason,
                // The connection to the one that it was may not have ended yet; one to the new one would stay.
                // paced: the next look at a link that announces itself nowhere.
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    });
    assert!(error.contains("its data is gone"), "{error}");
    let error = first.run(admin.add_learner(wiped.node.member())).expect_err("it is a member");
    assert!(matches!(error, AdminError::Invalid { .. }), "{error}");
    assert!(!wiped.node.is_bootstrapped(), "it has heard of nothing");
    first.run(admin.remove(3)).expect("a majority runs");
    first.run(admin.add_learner(wiped.node.member())).expect("all run");
    first.run(admin.promote(3)).expect("all run");
    let log = wiped.until("the log", || wiped.node.log(&name("orders")));
    wiped.until("to vote", || {
        let members = log.status().members;
        members.iter().any(|status| status.member.id == 3 && status.voter).then_some(())
    });
    wiped.kill();
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_node_that_does_not_run_is_not_added_and_nothing_is_changed() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let nodes = three(&MemoryTransport::default(), &disks, |_| {});
    let inner = &nodes[0].node.inner;
    let soon = Instant::now() + Duration::from_millis(100);
    let error = nodes[0].run(inner.identify(Member::new(4, "node4:1"), soon));
    let error = error.expect_err("nobody is there");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_member_that_was_removed_is_forgotten_on_every_node() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, moved::steady);
    let third = nodes.pop().expect("three");
    let id = third.replica().id;
    third.kill();
    for running in &nodes {
        running.until("the member to be missed", || running.node.inner.peers.contacts.failing(id));
    }
    nodes[0].run(nodes[0].node.admin().remove(3)).expect("a majority runs");
    for running in &nodes {
        let peers = &running.node.inner.peers;
        running.until("it to be forgotten", || peers.contacts.failing(id).is_none().then_some(()));
        assert!(peers.contacts.session(id).is_none());
    }
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_leader_that_was_removed_changes_no_members_and_goes_on_until_the_next_one_leads() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let nodes = three(&transport, &disks, moved::steady);
    let first = &nodes[0];
    first.run(first.node.admin().transfer_leadership(1)).expect("all run");
    let orders = first.node.inner.group_named("orders").expect("it is open");
    let other = nodes[1].replica();
    let moved = Member::new(2, "elsewhere:1");
    first.run(async {
        orders.remove(1, PATIENCE).await.expect("it leads");
        let changed = orders.demote(3, PATIENCE).await;
        assert!(matches!(changed, Err(AdminError::NotLeader { .. })), "{changed:?}");
        let changed = orders.add_learner(&Replica { member: moved, ..other }, PATIENCE).await;
        assert!(matches!(changed, Err(AdminError::NotLeader { .. })), "{changed:?}");
    });
    assert_eq!(orders.stop_reason(), None);
    let next = nodes[1].node.log(&name("orders")).expect("it is open");
    nodes[1].until("another leader", || next.status().leader.filter(|leader| leader.id != 1));
    nodes.into_iter().for_each(Running::kill);
}

fn is_told_of_its_removal(running: &Running) -> bool {
    let problems = running.node.problems();
    problems.iter().any(|problem| problem.kind == ProblemKind::Removed && problem.kind.is_own())
}

#[test]
fn a_node_that_was_removed_hears_of_it_also_after_a_restart_and_not_once_it_is_added_again() {
    let transport = MemoryTransport::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&transport, &disks, |_| {});
    assert!(!nodes.iter().any(is_told_of_its_removal));
    let admin = nodes[0].node.admin();
    nodes[0].run(admin.remove(3)).expect("a majority runs");
    let told = |running: &Running| is_told_of_its_removal(running).then_some(());
    nodes[2].until("to be told", || told(&nodes[2]));
    nodes.pop().expect("three").kill();
    let disk = disks[2].crash(&CrashPolicy::KeepAll);
    nodes.push(Running::start(&transport, &disk, 3));
    nodes[2].until("to be told again", || told(&nodes[2]));
    assert!(!nodes[..2].iter().any(is_told_of_its_removal));
    nodes[0].run(admin.add_learner(nodes[2].node.member())).expect("all run");
    nodes[2].until("to be well", || (!is_told_of_its_removal(&nodes[2])).then_some(()));
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_node_that_is_no_member_cannot_be_removed() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let nodes = three(&MemoryTransport::default(), &disks, |_| {});
    let admin = nodes[0].node.admin();
    let error = nodes[0].run(admin.remove(9)).expect_err("there is none");
    assert!(matches!(error, AdminError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("node 9 is no member"), "{error}");
    nodes[0].run(admin.remove(3)).expect("a majority runs");
    assert!(matches!(nodes[0].run(admin.remove(3)), Err(AdminError::Invalid { .. })));
    nodes.into_iter().for_each(Running::kill);
}

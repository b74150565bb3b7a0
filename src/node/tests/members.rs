//! Changes of members beside other changes.

use std::collections::BTreeSet;

use super::*;
use crate::node::catalog::CatalogCommand;

#[test]
fn a_log_whose_creation_was_overtaken_by_a_removal_has_no_vote_of_the_removed_node() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let nodes = three(&MemoryTransport::default(), &disks, |_| {});
    let first = &nodes[0];
    let admin = first.node.admin();
    // The members as the leader took them before the removal.
    let members: Vec<Member> = nodes.iter().map(|running| running.node.member()).collect();
    first.run(admin.remove(3)).expect("a majority runs");
    let leader = nodes[..2].iter().find(|running| running.node.status().role == Role::Leader);
    let leader = leader.expect("one of the two leads");
    let system = leader.node.inner.system().expect("it is open");
    let create = CatalogCommand::Create { name: name("late"), members };
    leader.run(leader.node.inner.change_catalog(&system, create)).expect("a majority runs");
    let late = leader.until("the log", || leader.node.log("late"));
    leader.until("its leader", || late.status().leader);
    let voters: BTreeSet<NodeId> =
        late.status().members.iter().map(|status| status.member.id).collect();
    assert_eq!(voters, BTreeSet::from([1, 2]));
    nodes.into_iter().for_each(Running::kill);
}

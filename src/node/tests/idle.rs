//! Replicas of idle logs have no ticks, and miss no election for it.

use super::*;

fn group(running: &Running) -> Option<Arc<Group>> {
    running.node.inner.group_named("orders")
}

/// Waits until the node's replica has no ticks.
fn rests(running: &Running) {
    running.until("ticks to end", || group(running).filter(|group| !group.ticks()));
}

#[test]
fn replicas_of_an_idle_log_rest_until_their_leader_is_gone_and_then_elect_another() {
    let transport = MemoryTransport::default();
    let disks: Vec<SimDisk> = (1..=3).map(|_| SimDisk::new()).collect();
    let mut nodes: Vec<Running> =
        (1..).zip(&disks).map(|(id, disk)| Running::start(&transport, disk, id)).collect();
    nodes[0].bootstrap(nodes.iter().map(|running| running.node.member()).collect());
    nodes[0].run(nodes[0].node.create_log(&name("orders"))).expect("all run");
    while nodes.len() > 1 {
        nodes.iter().for_each(rests);
        let leads = |running: &Running| group(running).is_some_and(|group| group.is_leader());
        let leader = nodes[0].until("a leader", || nodes.iter().position(leads));
        nodes.remove(leader).kill();
        if let [one, other] = &nodes[..] {
            one.until("the next leader", || (leads(one) || leads(other)).then_some(()));
        }
    }
    let last = &nodes[0];
    last.until("ticks to begin", || group(last).filter(|group| group.ticks()));
    nodes.remove(0).kill();
}

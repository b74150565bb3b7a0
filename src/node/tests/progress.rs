//! How far an append has come, told while it is on its way.

use super::*;
use crate::error::AppendError;
use crate::progress::Progress;
use crate::record::AppendOptions;

#[test]
fn the_leader_tells_where_it_put_an_append_and_that_its_disk_holds_it_before_anybody_else_does() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let mut nodes = three(&MemoryTransport::default(), &disks, |_| {});
    let leads = |running: &Running| {
        let log = running.node.log(&name("orders"));
        log.is_some_and(|log| log.status().role == Role::Leader)
    };
    let at = nodes[0].until("a leader", || nodes.iter().position(leads));
    let leader = nodes.swap_remove(at);
    let log = leader.node.log(&name("orders")).expect("it leads it");
    let acknowledged = Progress::new();
    assert_eq!((acknowledged.appended(), acknowledged.is_flushed()), (None, false));
    let options = AppendOptions::default();
    let applied = leader.run(log.propose_tracked("one", options, &acknowledged));
    let applied = applied.expect("all run").appended;
    assert_eq!(acknowledged.appended(), Some((applied.index, applied.term)));
    leader.until("its own disk", || acknowledged.is_flushed().then_some(()));
    assert!(log.hears_majority());
    assert!(!nodes[0].node.log(&name("orders")).expect("it follows").hears_majority());
    nodes.into_iter().for_each(Running::kill);
    let alone = Progress::new();
    let options = options.with_timeout(Duration::from_millis(50));
    match leader.run(log.propose_tracked("two", options, &alone)) {
        Err(AppendError::Timeout { .. }) => {
            assert!(alone.appended().is_some_and(|(index, _)| index > applied.index));
            leader.until("its own disk", || alone.is_flushed().then_some(()));
        }
        // The leader knew already.
        Err(AppendError::NoQuorum) => assert_eq!(alone.appended(), None),
        other => panic!("{other:?}"),
    }
    leader.until("to know that it is alone", || (!log.hears_majority()).then_some(()));
    let refused = Progress::new();
    let answer = leader.run(log.propose_tracked("three", options, &refused));
    assert!(matches!(answer, Err(AppendError::NoQuorum)), "{answer:?}");
    assert_eq!(refused.appended(), None);
    leader.kill();
}

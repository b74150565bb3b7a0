//! A leader that cannot read what it stored, in one way or another: it hands over, as with a record that is damaged.

use std::path::PathBuf;

use super::*;
use crate::problem::ProblemKind;
use crate::seam::disk::sim::{OpKind, Ops, Rule, When};

fn small(config: &mut Config) {
    config.limits.tail_cache_max = ByteCount::new(128 << 10);
    config.raft.heartbeat_interval = Duration::from_millis(50);
    config.raft.election_timeout_min = Duration::from_millis(300);
    config.raft.election_timeout_max = Duration::from_millis(600);
}

fn files(disk: &SimDisk, of: LogId, ending: &str) -> Vec<PathBuf> {
    let log = format!("logs/{:016x}/", of.0);
    let mut paths: Vec<_> = disk.contents().into_keys().collect();
    paths.retain(|path| {
        let path = path.to_string_lossy();
        path.contains(&log) && path.ends_with(ending)
    });
    paths
}

/// Has the leader read after `damage` was done to a segment that nobody has read yet. It gives up the lead, and the log goes on. True if
/// the damage was noted for the next run.
fn hands_over(damage: impl FnOnce(&SimDisk, PathBuf)) -> bool {
    let disks = [SimDisk::new(), SimDisk::with_seed(2), SimDisk::with_seed(3)];
    let nodes = three(&MemoryTransport::default(), &disks, small);
    let first = &nodes[0];
    let log = first.node.log(&name("orders")).expect("it leads it");
    let sealed = || files(&disks[0], log.id(), ".seg").len() > 5;
    while !sealed() {
        first.run(log.append(vec![7; 20 << 10])).expect("a quorum is there");
        // A copy that lags behind would have the leader read its segments.
        for node in &nodes {
            let copy = node.node.log(&name("orders")).expect("it has it");
            node.until("all of it", || (copy.status().end == log.status().end).then_some(()));
        }
    }
    let group = first.node.inner.group(log.id()).expect("it is open");
    let mut segments = group.log.segments().into_iter().zip(files(&disks[0], log.id(), ".seg"));
    let unread = segments.find(|(_, path)| !disks[0].is_mapped(path));
    let (segment, path) = unread.expect("followers got it from memory");
    damage(&disks[0], path);
    let begin = segment.base_index;
    let read = first.run(log.read(begin, 1 << 20));
    assert!(segment.sealed && read.is_err(), "its copy is damaged");
    let others = first.until("another leader", || {
        let leader = log.status().leader?;
        (leader.id != 1).then_some(leader.id)
    });
    let problem = first.until("the problem", || {
        first.node.problems().into_iter().find(|problem| problem.kind == ProblemKind::LogDamaged)
    });
    assert!(problem.reason.contains(".seg"), "{problem}");
    let leader = &nodes[others as usize - 1];
    let theirs = leader.node.log(&name("orders")).expect("it has it");
    leader.run(theirs.append("after")).expect("two copies are sound");
    let read = leader.run(theirs.read(begin, 1 << 20)).expect("theirs is sound");
    assert!(!read.is_empty());
    drop(group);
    // What is noted is noted beside.
    let saved = first.run(first.node.inner.system().expect("open").beside(|| ()));
    saved.expect("the node runs");
    let noted = !files(&disks[0], log.id(), "DAMAGE").is_empty();
    nodes.into_iter().for_each(Running::kill);
    noted
}

#[test]
fn a_leader_that_misses_a_segment_file_hands_over_and_notes_it() {
    assert!(hands_over(|disk, path| disk.shared().unlink(&path).expect("it is there")));
}

#[test]
fn a_leader_with_a_segment_file_that_was_cut_hands_over_and_notes_it() {
    for len in [0, 4096, 5000, 30_000] {
        assert!(hands_over(|disk, path| disk.tamper(&path, |bytes| bytes.truncate(len))), "{len}");
    }
}

#[test]
fn a_leader_whose_disk_cannot_read_a_segment_hands_over_until_it_starts_again() {
    for kind in [OpKind::Open, OpKind::Map] {
        let noted = hands_over(|disk, path| {
            let (ops, path) = (Ops::Kind(kind), path.to_string_lossy().into_owned());
            disk.inject(Rule { ops, path, when: When::From(0), fault: Fault::Eio });
        });
        assert!(!noted, "{kind:?}: another run may be able to");
    }
}

//! A queue's places against a model, across chunks.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorumlog::StateDir;
use quorumlog::simulation::SimDisk;

use super::super::index::index_files::IndexFiles;
use super::super::queue::{CHUNK_ENTRIES, Entry, Located, Queue, physical};
use super::DIR;

fn files() -> IndexFiles {
    let disk = SimDisk::new();
    IndexFiles::new(StateDir::new(disk.shared(), disk.clock(), DIR))
}

fn get(queue: &Queue, index: &IndexFiles, offset: u64) -> Option<Entry> {
    match queue.locate(offset)? {
        Located::Memory(chunk) => chunk.from(offset).next(),
        Located::File(sealed) => sealed.read(index).expect("it is sound").from(offset).next(),
    }
}

fn find(queue: &Queue, index: &IndexFiles, at: u64) -> Option<Entry> {
    match queue.locate_physical(at) {
        Located::Memory(chunk) => chunk.find(at),
        Located::File(sealed) => sealed.read(index).expect("it is sound").find(at),
    }
}

/// As the state does it.
fn prune(queue: &mut Queue, index: &IndexFiles, begin: u64) {
    let straddling = queue.straddling(begin).into_iter();
    let gone: BTreeMap<_, _> = straddling
        .map(|sealed| (sealed.base, sealed.read(index).expect("it is sound").gone(begin)))
        .collect();
    queue.prune(begin, &gone);
}

#[test]
fn what_the_log_has_dropped_is_forgotten_and_numbers_go_on() {
    let (mut queue, index) = (Queue::default(), files());
    for n in 0..2000_u64 {
        queue.push(physical(10 + n, 0), 0, 0, &index);
    }
    prune(&mut queue, &index, 10 + 700);
    assert_eq!((queue.min(), queue.max()), (700, 2000));
    assert_eq!(get(&queue, &index, 699), None);
    assert_eq!(get(&queue, &index, 700).map(|entry| entry.index()), Some(710));
    assert_eq!(find(&queue, &index, physical(400, 0)), None);
    prune(&mut queue, &index, u64::MAX >> 12);
    assert_eq!((queue.min(), queue.max()), (2000, 2000));
    assert_eq!(queue.push(physical(5000, 0), 0, 0, &index), 2000);
    assert_eq!(get(&queue, &index, 2000).map(|entry| entry.index()), Some(5000));
}

#[test]
fn a_time_is_looked_for_among_the_messages_of_one_chunk() {
    let (mut queue, index) = (Queue::default(), files());
    assert_eq!(queue.around(5), (0, 0));
    let chunk = CHUNK_ENTRIES as u64;
    for n in 0..3 * chunk {
        queue.push(physical(n, 0), 0, n as i64, &index);
    }
    for n in [1, 5, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1, 3 * chunk - 1] {
        let (low, high) = queue.around(n as i64);
        assert!(low <= n && n <= high && high - low <= chunk, "{n} is not in {low}..={high}");
    }
    assert_eq!(queue.around(0).0, 0);
    assert_eq!(queue.around(i64::MAX).1, 3 * chunk);
}

proptest! {
    #[test]
    fn a_queue_gives_what_was_put_in(
        steps in proptest::collection::vec((prop_oneof![1_u64..5000, Just(1_u64 << 33)], any::<i32>()), 1..1400),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut queue, index) = (Queue::default(), files());
        let mut at = 0;
        let mut model = Vec::new();
        for (step, tags) in steps {
            at += step;
            prop_assert_eq!(queue.push(at, tags, 0, &index), model.len() as u64);
            model.push((at, tags));
        }
        let begin = model[cut.index(model.len())].0 >> 12;
        prune(&mut queue, &index, begin);
        let min = model.iter().take_while(|(at, _)| at >> 12 < begin).count();
        prop_assert_eq!(queue.min(), min as u64);
        prop_assert_eq!(get(&queue, &index, model.len() as u64), None);
        for (offset, (at, tags)) in model.iter().enumerate() {
            let entry = get(&queue, &index, offset as u64);
            prop_assert_eq!(entry.is_some(), offset >= min);
            let Some(entry) = entry else { continue };
            prop_assert_eq!((entry.physical, entry.tags), (*at, *tags));
            prop_assert_eq!(find(&queue, &index, *at), Some(entry));
        }
    }
}

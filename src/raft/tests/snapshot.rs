//! Checkpoints that come from a leader, piece by piece.

use std::io::Read as _;

use super::super::messages::SnapshotHead;
use super::super::snapshot::{Received, Receiving};
use super::*;

const STATE: &[u8] = b"the state as of seven";

struct Place {
    disk: SimDisk,
    log: Log,
    receiving: Receiving,
    _writers: WriterPool,
}

impl Place {
    fn new() -> Self {
        let disk = SimDisk::new();
        let writers = WriterPool::start(1).expect("a thread");
        let log = Log::open(disk.shared(), Path::new("/log"), options(), &writers).expect("new");
        Self { disk, log, receiving: Receiving::default(), _writers: writers }
    }

    fn take(&self, state: &[u8], offset: usize, piece: &[u8]) -> Result<Received, String> {
        let mut head = SnapshotHead::new(id(1, 7), None);
        head.has_state = true;
        head.state_len = state.len() as u64;
        head.state_crc = crc32fast::hash(state);
        head.offset = offset as u64;
        self.receiving.take(&self.log, head, piece)
    }

    /// How much is there after this piece of `STATE`.
    fn after(&self, from: usize, to: usize) -> u64 {
        match self.take(STATE, from, &STATE[from..to]) {
            Ok(Received::SoFar(so_far)) => so_far,
            other => panic!("{from}..{to}: {other:?}"),
        }
    }

    fn temporary_files(&self) -> usize {
        let names = self.disk.contents().into_keys();
        names.filter(|path| path.extension().is_some_and(|end| end == "tmp")).count()
    }
}

#[test]
fn pieces_become_the_checkpoint_and_who_begins_again_is_told_how_far_it_came() {
    let place = Place::new();
    assert_eq!(place.after(0, 0), 0, "it asks");
    assert_eq!(place.after(0, 5), 5);
    assert_eq!(place.after(5, 9), 9);
    assert_eq!(place.after(0, 0), 9, "the connection broke, and it asks again");
    let Ok(Received::All(file)) = place.take(STATE, 9, &STATE[9..]) else { panic!("the last") };
    assert_eq!(place.log.checkpoints(), [], "not yet installed");
    place.log.keep_checkpoint(&file).expect("a healthy disk");
    assert_eq!(place.log.checkpoints(), [id(1, 7)]);
    assert_eq!(place.log.load_state(id(1, 7)).expect("sound"), STATE);
    let mut read = Vec::new();
    file.reader().read_to_end(&mut read).expect("sound, under its new name");
    assert_eq!((read.as_slice(), place.temporary_files()), (STATE, 0));
}

#[test]
fn a_checkpoint_that_arrives_damaged_or_out_of_order_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let mut damaged = STATE.to_vec();
    damaged[3] ^= 1;
    assert_eq!(place.after(0, 2), 2);
    let refused = place.take(STATE, 2, &damaged[2..]).expect_err("its CRC is another");
    assert!(refused.contains("damaged"), "{refused}");
    assert_eq!(place.after(0, 2), 2);
    place.take(STATE, 3, &STATE[3..]).expect_err("a byte is missing");
    place.take(STATE, 2, &STATE[2..]).expect_err("what came before it was dropped");
    assert_eq!(place.after(0, 2), 2);
    place.take(STATE, 2, &[0; 64]).expect_err("more than it said");
    assert_eq!(place.temporary_files(), 0);
}

#[test]
fn another_checkpoint_replaces_the_one_that_was_under_way() {
    let place = Place::new();
    assert_eq!(place.after(0, 5), 5);
    let other = b"of another leader";
    let taken = place.take(other, 0, b"").expect("it asks");
    assert!(matches!(taken, Received::SoFar(0)), "{taken:?}");
    let Ok(Received::All(file)) = place.take(other, 0, other) else { panic!("all of it") };
    drop(file);
    assert_eq!(place.temporary_files(), 0, "it was not installed");
}

#[test]
fn a_checkpoint_that_there_is_no_space_for_is_refused_at_once_and_taken_later() {
    let place = Place::new();
    place.disk.set_space(Some(STATE.len() as u64 - 1));
    let refused = place.take(STATE, 0, b"").expect_err("no space");
    assert!(refused.contains("no space"), "{refused}");
    // There was space when it began.
    place.disk.set_space(Some(STATE.len() as u64));
    assert_eq!(place.after(0, 0), 0);
    place.disk.set_space(Some(3));
    place.take(STATE, 0, &STATE[..9]).expect_err("no space");
    assert_eq!(place.temporary_files(), 0);
    place.disk.set_space(None);
    assert!(matches!(place.take(STATE, 0, STATE), Ok(Received::All(_))));
}

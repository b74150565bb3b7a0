//! Checkpoints that come from a leader, piece by piece.

use std::io::Read as _;

use super::super::messages::SnapshotHead;
use super::super::snapshot::{Received, Receiving};
use super::*;
use crate::seam::disk::sim::{Fault, OpKind, Ops, Rule, When};

const STATE: &[u8] = b"the state as of seven";
const RESERVE: u64 = 1 << 20;

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
        let options = LogOptions { disk_reserve: RESERVE, ..options() };
        let log = Log::open(disk.shared(), Path::new("/log"), options, &writers).expect("new");
        Self { disk, log, receiving: Receiving::default(), _writers: writers }
    }

    fn take(&self, state: &[u8], offset: usize, piece: &[u8]) -> Result<Received, String> {
        self.take_from(5, id(1, 7), state, offset, piece)
    }

    /// From the leader of a term, while this node votes for that of term 5.
    fn take_from(
        &self,
        term: u64,
        last: EntryId,
        state: &[u8],
        offset: usize,
        piece: &[u8],
    ) -> Result<Received, String> {
        let leads = |term| RaftVote::new_committed(term, replica(1));
        let mut head = SnapshotHead::new(last, None);
        head.set_vote(&leads(term));
        head.has_state = true;
        head.state_len = state.len() as u64;
        head.state_crc = crc32fast::hash(state);
        head.offset = offset as u64;
        self.receiving.take(&self.log, &leads(5), &head, piece)
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
fn a_checkpoint_that_arrives_damaged_is_dropped_and_one_out_of_order_only_refused() {
    let place = Place::new();
    let mut damaged = STATE.to_vec();
    damaged[3] ^= 1;
    assert_eq!(place.after(0, 2), 2);
    let refused = place.take(STATE, 2, &damaged[2..]).expect_err("its CRC is another");
    assert!(refused.contains("damaged"), "{refused}");
    assert_eq!(place.after(0, 2), 2);
    place.take(STATE, 3, &STATE[3..]).expect_err("a byte is missing");
    place.take(STATE, 2, &[0; 64]).expect_err("more than it said");
    assert_eq!(place.after(0, 0), 2, "what came before stays");
    assert_eq!(place.after(2, 9), 9);
    assert_eq!(place.after(2, 9), 9, "it came twice");
    assert_eq!(place.after(5, 12), 12, "some of it came twice");
    let Ok(Received::All(file)) = place.take(STATE, 9, &STATE[9..]) else { panic!("the last") };
    drop(file);
    assert_eq!(place.temporary_files(), 0, "it was not installed");
}

#[test]
fn neither_a_deposed_sender_nor_a_late_one_takes_away_what_is_there() {
    let place = Place::new();
    assert_eq!(place.after(0, 9), 9);
    let other = b"of another leader";
    for (offset, piece) in [(0, &b""[..]), (0, &other[..]), (4, &other[4..])] {
        let taken = place.take_from(4, id(1, 9), other, offset, piece).expect("it is told");
        assert!(matches!(taken, Received::Deposed), "{taken:?}");
        let late = place.take_from(5, id(1, 6), other, offset, piece).expect_err("it is older");
        assert!(late.contains("later") || late.contains("missing"), "{late}");
    }
    place.take_from(5, id(1, 8), other, 4, &other[4..]).expect_err("what came before is not here");
    assert_eq!(place.after(0, 0), 9);
    let taken = place.take_from(6, id(1, 6), other, 0, b"").expect("a later leader knows better");
    assert!(matches!(taken, Received::SoFar(0)), "{taken:?}");
    place.take(STATE, 0, b"").expect_err("a later checkpoint is under way");
}

#[test]
fn what_was_received_stays_while_the_disk_is_full_and_the_node_says_what_it_waits_for() {
    let place = Place::new();
    assert_eq!(place.after(0, 9), 9);
    assert!(place.receiving.waiting().is_none());
    place.disk.set_space(Some(RESERVE / 2 + 3));
    for _ in 0..2 {
        let full = place.take(STATE, 9, &STATE[9..15]).expect_err("no space");
        assert!(full.contains("no space"), "{full}");
        place.take(STATE, 9, b"").expect_err("who asks is told at once");
    }
    let (reason, _) = place.receiving.waiting().expect("it waits");
    assert!(reason.contains("21 bytes") && reason.contains("9 are there"), "{reason}");
    assert_eq!(place.temporary_files(), 1);
    place.disk.set_space(None);
    assert_eq!(place.after(0, 0), 9);
    assert!(place.receiving.waiting().is_none());
    let Ok(Received::All(file)) = place.take(STATE, 9, &STATE[9..]) else { panic!("the last") };
    place.log.keep_checkpoint(&file).expect("a healthy disk");
    assert_eq!(place.log.load_state(id(1, 7)).expect("sound"), STATE);
}

#[test]
fn a_checkpoint_whose_flush_failed_is_sent_again_from_its_beginning() {
    for fault in [Fault::Eio, Fault::NoSpace] {
        let place = Place::new();
        assert_eq!(place.after(0, 9), 9);
        let (ops, path) = (Ops::Kind(OpKind::Flush), ".tmp".to_owned());
        place.disk.inject(Rule { ops, path, when: When::Nth(0), fault });
        place.take(STATE, 9, &STATE[9..]).expect_err("its flush fails");
        assert_eq!(place.temporary_files(), 0, "the system may have dropped what was written");
        place.take(STATE, 9, &STATE[9..]).expect_err("the first piece is missing");
        assert_eq!(place.after(0, 9), 9);
        let Ok(Received::All(file)) = place.take(STATE, 9, &STATE[9..]) else { panic!("the last") };
        place.log.keep_checkpoint(&file).expect("a healthy disk");
        assert_eq!(place.log.load_state(id(1, 7)).expect("sound"), STATE);
    }
}

#[test]
fn checkpoints_leave_the_reserve_alone_and_small_ones_half_of_it() {
    let place = Place::new();
    let large = vec![7; 100 << 10];
    let received = |space| {
        place.disk.set_space(Some(space));
        place.take_from(9, id(1, 8), &large, 0, b"").map(|_| ())
    };
    received(RESERVE + (100 << 10) - 1).expect_err("a byte is missing");
    received(RESERVE + (100 << 10)).expect("there is space");
    let all = place.take_from(9, id(1, 8), &large, 0, &large).expect("there is space");
    assert!(matches!(all, Received::All(_)), "its head needs no extra space");
    drop(all);
    let own = |space, state: &[u8]| {
        place.disk.set_space(Some(space));
        place.log.save_state(id(1, 9), state)
    };
    let huge = vec![7; 9 << 20];
    for (state, missing) in [(&large, 1), (&huge, 1), (&huge, 9 << 20)] {
        let space = RESERVE + state.len() as u64 - missing;
        let full = own(space, state).expect_err("it is taken of the state machine here");
        assert!(full.to_string().contains("no space"), "{full}");
        assert_eq!(place.temporary_files(), 0);
    }
    own(RESERVE + (10 << 20), &huge).expect("there is space");
    own(RESERVE / 2, STATE).expect_err("a small one");
    own(RESERVE / 2 + (1 << 10), STATE).expect("a small one");
}

#[test]
fn another_checkpoint_replaces_the_one_that_was_under_way() {
    let place = Place::new();
    assert_eq!(place.after(0, 5), 5);
    let other = b"of another leader";
    let later = |piece| place.take_from(6, id(1, 7), other, 0, piece);
    let taken = later(b"").expect("it asks");
    assert!(matches!(taken, Received::SoFar(0)), "{taken:?}");
    let Ok(Received::All(file)) = later(other) else { panic!("all of it") };
    drop(file);
    assert_eq!(place.temporary_files(), 0, "it was not installed");
}

#[test]
fn a_checkpoint_that_there_is_no_space_for_is_refused_at_once_and_taken_later() {
    let place = Place::new();
    place.disk.set_space(Some(RESERVE / 2 + STATE.len() as u64 - 1));
    let refused = place.take(STATE, 0, b"").expect_err("no space");
    assert!(refused.contains("no space"), "{refused}");
    // There was space when it began.
    place.disk.set_space(Some(RESERVE / 2 + STATE.len() as u64));
    assert_eq!(place.after(0, 0), 0);
    place.disk.set_space(Some(RESERVE / 2));
    place.take(STATE, 0, &STATE[..9]).expect_err("no space");
    assert_eq!(place.temporary_files(), 0);
    place.disk.set_space(None);
    assert!(matches!(place.take(STATE, 0, STATE), Ok(Received::All(_))));
}

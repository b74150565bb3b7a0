//! The index files: restarts, damage, other nodes' checkpoints, retention; each against what was stored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quorumlog::simulation::CrashPolicy;

use super::super::index::keys::{RUN_KEYS, Sought};
use super::super::index::lookup::Lost;
use super::super::index::rebuild::Rebuild;
use super::super::queue::{CHUNK_ENTRIES, Entry, physical};
use super::*;

const QUEUES: u64 = 3;

/// Small random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What the index should say.
#[derive(Default, Clone)]
struct Model {
    /// Of each queue, its messages' physical offsets.
    queues: BTreeMap<u32, Vec<u64>>,
    /// Messages with each key.
    keys: BTreeMap<String, Vec<u64>>,
    begin: u64,
}

impl Log {
    /// Sends `count` messages in batches, each with a key of its own and one that some share.
    fn fill(&mut self, count: u64, model: &mut Model, dice: &mut Dice) {
        let mut left = count;
        while left > 0 {
            let batch: Vec<_> = (0..left.min(1 + dice.below(40)))
                .map(|_| {
                    let (queue, number) = (dice.below(QUEUES) as i32, dice.below(u64::MAX));
                    let shared = dice.below(50);
                    let properties =
                        format!("UNIQ_KEY\u{1}{number:x}\u{2}KEYS\u{1}k{shared} all\u{2}");
                    (Message { properties, ..message("T", queue) }, number, shared)
                })
                .collect();
            let index = self.index;
            let sent: Vec<_> = batch.iter().map(|(message, ..)| message.clone()).collect();
            assert!(matches!(self.apply(record(&sent, false)), Answer::Stored(_)));
            for (part, (message, number, shared)) in batch.iter().enumerate() {
                let at = physical(index, part);
                model.queues.entry(message.queue as u32).or_default().push(at);
                for key in [format!("{number:x}"), format!("k{shared}"), "all".to_owned()] {
                    model.keys.entry(key).or_default().push(at);
                }
            }
            left -= batch.len() as u64;
        }
    }

    /// As the broker makes lost parts again.
    fn rebuild(&self, Lost(from): Lost, begin: u64) {
        let mut pass: Rebuild = self.shared.begin_rebuild(from).expect("it is lost");
        let range = pass.records();
        let held = self.records.iter().filter(|record| record.index >= begin);
        held.filter(|record| range.contains(&record.index)).for_each(|record| pass.take(record));
        assert!(self.shared.finish_rebuild(pass, begin), "it can be made again");
        self.shared.prune(begin);
    }

    fn ask<T>(&self, begin: u64, ask: impl Fn(&Shared) -> Result<T, Lost>) -> T {
        for _ in 0..4 {
            match ask(&self.shared) {
                Ok(answer) => return answer,
                Err(lost) => self.rebuild(lost, begin),
            }
        }
        panic!("the index stays lost")
    }

    fn entries(&self, queue: u32, begin: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let from = entries.last().map(|last| last.offset + 1);
            let slice = self.ask(begin, |shared| {
                let min = shared.state().queue("T", queue).map_or(0, |queue| queue.min());
                shared.slice("T", queue, from.unwrap_or(min), 300)
            });
            if slice.entries.is_empty() {
                return entries;
            }
            entries.extend(slice.entries);
        }
    }

    fn with_key(&self, key: &str, begin: u64) -> Vec<u64> {
        let sought = Sought::new("T", key, 0, i64::MAX);
        let (mut all, runs) = self.shared.newest_with_key(&sought);
        for run in runs {
            all.extend(self.ask(begin, |shared| shared.with_key(&sought, run)));
        }
        all.retain(|at| at >> 12 >= begin);
        assert!(all.is_sorted_by(|a, b| a >= b), "newest first");
        // At their seam two runs may know the same message.
        all.dedup();
        all.reverse();
        all
    }

    /// The index says what the model does.
    #[track_caller]
    fn agrees(&self, model: &Model, some_keys: usize) {
        for (queue, all) in &model.queues {
            let held: Vec<_> =
                (0..).zip(all.iter().copied()).filter(|(_, at)| at >> 12 >= model.begin).collect();
            let entries = self.entries(*queue, model.begin);
            let found: Vec<(u64, u64)> = entries
                .iter()
                .map(|entry| (entry.offset, entry.physical))
                .filter(|(_, at)| at >> 12 >= model.begin)
                .collect();
            let differs = found.iter().zip(&held).find(|(found, held)| found != held);
            assert_eq!((differs, found.len()), (None, held.len()), "queue {queue}");
            for (offset, at) in held.iter().step_by(97) {
                let found = self.ask(model.begin, |shared| shared.find("T", *queue, *at));
                assert_eq!(found.map(|entry| entry.offset), Some(*offset));
                let other = self.ask(model.begin, |shared| shared.find("T", queue + 1, *at));
                assert_eq!(other, None);
            }
        }
        let step = (model.keys.len() / some_keys).max(1);
        for (key, all) in model.keys.iter().step_by(step).chain(model.keys.get_key_value("all")) {
            let held: Vec<_> = all.iter().copied().filter(|at| at >> 12 >= model.begin).collect();
            let found = self.with_key(key, model.begin);
            let differs = found.iter().zip(&held).position(|(found, held)| found != held);
            assert_eq!((differs, found.len()), (None, held.len()), "key {key}");
        }
    }

    fn index_files(&self) -> Vec<PathBuf> {
        let contents = self.disk.contents();
        let all = contents.into_iter().filter(|(_, file)| file.is_some()).map(|(path, _)| path);
        all.filter(|path| path.starts_with(DIR)).collect()
    }

    /// The process ends and another one starts, with this checkpoint and the records behind it.
    fn restarted(self, checkpoint: Option<(&[u8], u64)>, disk: SimDisk) -> Self {
        let mut next = Self::on(disk);
        let mut from = 1;
        if let Some((bytes, index)) = checkpoint {
            next.machine.restore(&mut &bytes[..]).expect("our own bytes");
            from = index;
        }
        for record in &self.records {
            if record.index >= from {
                next.machine.apply(record).expect("this build knows it");
            }
        }
        (next.index, next.records) = (self.index, self.records);
        next
    }
}

fn filled(count: u64, seed: u64) -> (Log, Model, Dice) {
    let (mut model, mut dice) = (Model::default(), Dice(seed));
    let mut log = Log::on(SimDisk::with_seed(seed));
    log.topic("T", QUEUES as u32);
    log.fill(count, &mut model, &mut dice);
    (log, model, dice)
}

#[test]
fn places_and_keys_are_found_in_memory_and_in_the_files() {
    let (log, model, _) = filled(6_000, 1);
    let (files, bytes) = log.shared.index.size();
    assert!(files == 2 && bytes > 300 << 10, "{files} files of {bytes} bytes");
    log.agrees(&model, 40);
    let sought = Sought::new("T", "all", 6_000, i64::MAX);
    let (newest, runs) = log.shared.newest_with_key(&sought);
    assert!(newest.is_empty() && runs.is_empty(), "all were stored before that time");
}

#[test]
fn the_memory_of_many_messages_is_bounded() {
    let (log, ..) = filled(6_000, 2);
    let size = log.checkpoint().len();
    assert!(size < 16 * RUN_KEYS + 8 * CHUNK_ENTRIES * QUEUES as usize + 4_000, "{size} bytes");
}

#[test]
fn a_restart_goes_on_from_its_checkpoint() {
    let (mut log, mut model, mut dice) = filled(4_000, 3);
    let (bytes, index) = (log.checkpoint(), log.index);
    log.fill(4_000, &mut model, &mut dice);
    // A process that is killed leaves what it wrote, flushed or not.
    let disk = log.disk.clone();
    let mut log = log.restarted(Some((&bytes, index)), disk);
    assert!(log.shared.index.size().0 == 2, "no file of an earlier process is written to");
    log.agrees(&model, 20);
    log.fill(1_000, &mut model, &mut dice);
    log.agrees(&model, 20);
}

#[test]
fn a_power_cut_loses_nothing_that_a_checkpoint_names() {
    for policy in [CrashPolicy::LoseAll, CrashPolicy::Random(4), CrashPolicy::KeepAll] {
        let (mut log, mut model, mut dice) = filled(4_000, 4);
        let (bytes, index) = (log.checkpoint(), log.index);
        log.fill(3_000, &mut model, &mut dice);
        let disk = log.disk.crash(&policy);
        let log = log.restarted(Some((&bytes, index)), disk);
        assert!(log.shared.begin_rebuild(0).is_none(), "what it names was durable");
        log.agrees(&model, 20);
    }
}

#[test]
fn what_is_applied_while_a_checkpoint_is_flushed_does_it_no_harm() {
    for policy in [CrashPolicy::LoseAll, CrashPolicy::Random(5), CrashPolicy::KeepAll] {
        let (mut log, mut model, mut dice) = filled(4_000, 14);
        let (index, (bytes, flush)) = (log.index, log.begin_checkpoint());
        // Enough for the file that is written to become full, and another one to be begun.
        let files = log.index_files().len();
        while log.index_files().len() == files {
            log.fill(500, &mut model, &mut dice);
        }
        flush().expect("the disk takes it");
        log.fill(1_000, &mut model, &mut dice);
        let disk = log.disk.crash(&policy);
        let log = log.restarted(Some((&bytes, index)), disk);
        assert!(log.shared.begin_rebuild(0).is_none(), "what it names was durable");
        log.agrees(&model, 20);
    }
}

#[test]
fn without_a_checkpoint_the_files_of_an_earlier_process_are_removed() {
    let (log, model, _) = filled(4_000, 5);
    let before = log.index_files();
    let disk = log.disk.clone();
    let log = log.restarted(None, disk);
    assert!(log.index_files().iter().all(|path| !before.contains(path)), "{before:?}");
    log.agrees(&model, 20);
}

#[test]
fn a_file_that_is_gone_cut_or_damaged_is_made_again_from_the_log() {
    for damage in ["gone", "cut", "head", "zeroed", "flipped"] {
        let (log, model, mut dice) = filled(6_000, 6);
        let (bytes, index) = (log.checkpoint(), log.index);
        let path = log.index_files().remove(0);
        let disk = log.disk.clone();
        match damage {
            "gone" => disk.shared().unlink(&path).expect("it is there"),
            "cut" => disk.tamper(&path, |bytes| bytes.truncate(bytes.len() / 2)),
            "head" => disk.tamper(&path, |bytes| bytes[17] ^= 1),
            "zeroed" => disk.tamper(&path, |bytes| bytes[50_000..150_000].fill(0)),
            _ => disk.tamper(&path, |bytes| {
                for _ in 0..300 {
                    let bit = dice.below(bytes.len() as u64 * 8) as usize;
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }),
        }
        let log = log.restarted(Some((&bytes, index)), disk);
        log.agrees(&model, 40);
        // Once it is made again it is durable again.
        let (bytes, index) = (log.checkpoint(), log.index);
        let disk = log.disk.crash(&CrashPolicy::LoseAll);
        let log = log.restarted(Some((&bytes, index)), disk);
        log.agrees(&model, 40);
    }
}

#[test]
fn what_is_made_again_for_a_state_that_was_replaced_is_dropped() {
    let (mut log, model, _) = filled(6_000, 15);
    let (bytes, before) = (log.checkpoint(), log.shared.number());
    let path = log.index_files().remove(0);
    log.disk.tamper(&path, |bytes| bytes.fill(0x11));
    assert!(log.shared.slice("T", 0, 0, 1).is_err(), "it is damaged");
    let mut pass = log.shared.begin_rebuild(0).expect("it is lost");
    let range = pass.records();
    log.records.iter().filter(|record| range.contains(&record.index)).for_each(|r| pass.take(r));
    log.machine.restore(&mut &bytes[..]).expect("our own bytes");
    assert_ne!(log.shared.number(), before);
    assert!(!log.shared.finish_rebuild(pass, 0), "it was taken for what is lost now");
    log.agrees(&model, 20);
}

#[test]
fn a_log_that_is_trimmed_while_places_are_made_again_gives_no_wrong_numbers() {
    let (log, mut model, _) = filled(6_000, 13);
    let path = log.index_files().remove(0);
    log.disk.tamper(&path, |bytes| bytes.fill(0x11));
    for queue in 0..QUEUES as u32 {
        assert!(log.shared.slice("T", queue, 0, 1).is_err(), "it is damaged");
    }
    let mut pass = log.shared.begin_rebuild(0).expect("it is lost");
    let (range, trimmed) = (pass.records(), |part: u64| 1 + log.index * part / 100);
    // Read as far as here when the log is trimmed to there.
    let (read, begin) = (trimmed(2), trimmed(4));
    assert!(range.contains(&read) && range.contains(&begin), "{range:?} {read} {begin}");
    for record in log.records.iter().filter(|record| range.contains(&record.index)) {
        if record.index < read || record.index >= begin {
            pass.take(record);
        }
    }
    assert!(log.shared.finish_rebuild(pass, begin));
    log.shared.prune(begin);
    model.begin = begin;
    log.agrees(&model, 20);
    let held = log.shared.state().queue("T", 0).map(|queue| queue.min());
    let below = model.queues[&0].iter().filter(|at| *at >> 12 < begin).count() as u64;
    assert_eq!(held, Some(below));
}

#[test]
fn what_is_lost_is_found_in_the_background_too() {
    let (log, model, _) = filled(6_000, 7);
    let (bytes, index) = (log.checkpoint(), log.index);
    let disk = log.disk.clone();
    disk.shared().unlink(&log.index_files()[0]).expect("it is there");
    let log = log.restarted(Some((&bytes, index)), disk);
    assert!(log.shared.take_lost() && !log.shared.take_lost(), "somebody is told once");
    let mut passes = 0;
    while let Some(pass) = log.shared.begin_rebuild(0) {
        log.rebuild(Lost(pass.records().start << 12), 0);
        passes += 1;
    }
    assert!(passes < 10, "several blocks in a pass: {passes}");
    log.agrees(&model, 20);
}

#[test]
fn messages_that_were_not_stored_are_not_found_when_places_are_made_again() {
    let mut log = Log::new();
    log.topic("T", 1);
    let keyed = |n: u64| {
        let properties = format!("UNIQ_KEY\u{1}{n}\u{2}");
        [Message { properties, ..message("T", 0) }]
    };
    let mut stored = Vec::new();
    for n in 0..600 {
        stored.push(physical(log.index, 0));
        log.apply(record(&keyed(n), true));
        log.apply(record(&keyed(n / 2), true));
        log.apply(messages(&[message("T", 0), message("gone", 0)]));
        stored.push(physical(log.index, 0));
        let at = log.index;
        stored.push(physical(at, 1));
        log.apply(deliveries(1, 3 * n, &[message("T", 0), message("T", 0)]));
        log.apply(deliveries(1, 3 * n + 1, &[message("T", 0), message("T", 0)]));
        log.apply(deliveries(1, 3 * n + 2, &[message("T", 0), message("gone", 0)]));
        stored.push(physical(log.index, 0));
        log.apply(delivery(1, 3 * n + 2, &message("T", 0)));
        log.apply(delivery(1, 3 * n + 2, &message("T", 0)));
    }
    let disk = log.disk.clone();
    disk.tamper(&log.index_files()[0], |bytes| bytes.fill(0xff));
    let found: Vec<_> = log.entries(0, 0).iter().map(|entry| entry.physical).collect();
    assert_eq!(found, stored);
}

#[test]
fn another_nodes_checkpoint_names_no_file_of_this_one() {
    let (mut theirs, model, mut dice) = filled(4_000, 8);
    let bytes = theirs.checkpoint();
    let (mut ours, ..) = filled(4_000, 9);
    ours.machine.restore(&mut &bytes[..]).expect("a broker's state");
    assert_eq!(ours.shared.index.size(), (0, 0), "a file of the same name is another one");
    assert_eq!(ours.index_files(), Vec::<PathBuf>::new());
    // As after an install: the log begins behind the checkpoint.
    let begin = theirs.index;
    ours.shared.prune(begin);
    assert!(ours.shared.begin_rebuild(0).is_none());
    let mut all = Model { begin, ..model };
    for (queue, places) in &all.queues {
        let state = ours.shared.state();
        let held = state.queue("T", *queue).map(|queue| (queue.min(), queue.max()));
        assert_eq!(held, Some((places.len() as u64, places.len() as u64)));
    }
    theirs.fill(3_000, &mut all, &mut dice);
    for record in theirs.records.iter().filter(|record| record.index >= begin) {
        ours.machine.apply(record).expect("this build knows it");
    }
    ours.records = theirs.records.clone();
    ours.agrees(&all, 20);
    theirs.shared.prune(begin);
    theirs.agrees(&all, 20);
}

#[test]
fn retention_removes_the_files_that_are_all_below_the_logs_beginning() {
    let (mut log, mut model, mut dice) = filled(6_000, 10);
    let (bytes, index) = (log.checkpoint(), log.index);
    let disk = log.disk.clone();
    let before = log.index_files();
    log = log.restarted(Some((&bytes, index)), disk);
    log.fill(6_000, &mut model, &mut dice);
    for begin in [index / 2, index - 1, index + 200] {
        model.begin = begin;
        log.shared.prune(begin);
        log.agrees(&model, 20);
    }
    assert!(log.index_files().iter().all(|path| !before.contains(path)), "{before:?}");
    assert_eq!(log.index_files().len(), log.shared.index.size().0);
    assert!(!log.index_files().is_empty());
    let exact = log.shared.state().queue("T", 0).map(|queue| queue.min());
    let below = model.queues[&0].iter().filter(|at| *at >> 12 < model.begin).count() as u64;
    assert_eq!(exact, Some(below));
}

#[test]
fn a_disk_that_fails_stops_nothing_and_loses_nothing() {
    let (mut log, mut model, mut dice) = filled(3_000, 11);
    log.disk.set_space(Some(0));
    log.fill(3_000, &mut model, &mut dice);
    log.agrees(&model, 10);
    log.disk.set_space(None);
    log.fill(3_000, &mut model, &mut dice);
    let (bytes, index) = (log.checkpoint(), log.index);
    let disk = log.disk.crash(&CrashPolicy::LoseAll);
    let log = log.restarted(Some((&bytes, index)), disk);
    log.agrees(&model, 10);
}

#[test]
fn random_restarts_damages_and_cuts_never_give_a_wrong_answer() {
    for seed in 100..112 {
        eprintln!("seed {seed}");
        let (mut log, mut model, mut dice) = filled(1_000, seed);
        let mut checkpoint = None;
        for _ in 0..12 {
            match dice.below(6) {
                0 => {
                    let (index, (bytes, flush)) = (log.index, log.begin_checkpoint());
                    log.fill(dice.below(500), &mut model, &mut dice);
                    flush().expect("the disk takes it");
                    checkpoint = Some((bytes, index));
                }
                1 => {
                    let disk = log.disk.clone();
                    let from = checkpoint.as_ref().map(|(bytes, index)| (&bytes[..], *index));
                    log = log.restarted(from, disk);
                    log.shared.prune(model.begin);
                }
                2 => {
                    let disk = log.disk.crash(&CrashPolicy::LoseAll);
                    let from = checkpoint.as_ref().map(|(bytes, index)| (&bytes[..], *index));
                    log = log.restarted(from, disk);
                    log.shared.prune(model.begin);
                }
                3 => {
                    for path in log.index_files() {
                        log.disk.tamper(&path, |bytes| {
                            let bit = dice.below(bytes.len().max(1) as u64 * 8) as usize;
                            if let Some(byte) = bytes.get_mut(bit / 8) {
                                *byte ^= 1 << (bit % 8);
                            }
                        });
                    }
                }
                4 => {
                    model.begin += dice.below(log.index - model.begin + 1) / 4;
                    log.shared.prune(model.begin);
                }
                _ => log.fill(dice.below(3_000), &mut model, &mut dice),
            }
            log.agrees(&model, 5);
        }
    }
}

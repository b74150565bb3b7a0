//! The random crashes against those that can be enumerated.

use std::collections::BTreeSet;

use super::*;

/// A disk after some random calls, flushes among them.
pub(super) fn scribbled(seed: u64, calls: usize) -> SimDisk {
    let disk = SimDisk::new();
    let mut random = Random(seed);
    let files = ["/f", "/g", "/d/f"].map(Path::new);
    durable(&disk, "/f", &[b'f'; 700]);
    durable(&disk, "/g", &[b'g'; 700]);
    // Each may fail, and then does nothing.
    for _ in 0..calls {
        let path = files[random.below(files.len())];
        let file = || disk.open(path, Access::Write);
        let at = random.below(1500) as u64;
        let _ = match random.below(12) {
            0 => disk.open(path, Access::Create).map(drop),
            1 => disk.mkdir(Path::new("/d")),
            2 => disk.unlink(path),
            3 => disk.rename(path, files[random.below(files.len())]),
            4 => disk.sync_dir(path.parent().expect("a file")),
            5 => disk.remove_dir(Path::new("/d")),
            6 => file().and_then(|file| file.cut(at)),
            7 => file().and_then(|file| file.allocate(at, at + 300)),
            8 => file().and_then(|file| file.sync_data()),
            _ => {
                let mut bytes = vec![0; 1 + random.below(600)];
                random.fill(&mut bytes);
                file().and_then(|file| file.write_all_at(&bytes, at))
            }
        };
    }
    disk
}

type Plain = BTreeMap<String, Option<Vec<u8>>>;

fn brief(files: &Plain) -> Vec<(&String, Option<(usize, u32)>)> {
    let brief = |file: &Vec<u8>| (file.len(), crc32fast::hash(file));
    files.iter().map(|(path, file)| (path, file.as_ref().map(brief))).collect()
}

fn exactly(disk: &SimDisk, changes: usize, choice: u64) -> Plain {
    let kept = |bit| if choice >> bit & 1 == 1 { Kept::Whole } else { Kept::Lost };
    seen(&disk.after_crash(&CrashPolicy::Exactly((0..changes).map(kept).collect())))
}

/// True if they differ in nothing but bytes that a torn change may have touched, in whatever file.
fn alike(torn: &Plain, exact: &Plain, pending: &[PendingChange]) -> bool {
    let unsure = |at: usize| {
        pending.iter().any(|change| match change.part {
            ChangePart::Bytes { at: from, len } => (from..from + len).contains(&(at as u64)),
            _ => false,
        })
    };
    torn.keys().eq(exact.keys())
        && torn.values().zip(exact.values()).all(|files| match files {
            (Some(torn), Some(exact)) => {
                let longest = torn.len().max(exact.len());
                (0..longest).all(|at| torn.get(at) == exact.get(at) || unsure(at))
            }
            (torn, exact) => torn == exact,
        })
}

#[test]
fn random_crashes_give_nothing_that_the_exact_ones_do_not() {
    let (mut whole, mut torn) = (0, 0);
    for seed in 0..150 {
        let disk = scribbled(seed, 8);
        let pending = disk.pending();
        let changes = pending.len();
        if changes > 8 {
            continue;
        }
        let exact: BTreeSet<Plain> =
            (0..1 << changes).map(|choice| exactly(&disk, changes, choice)).collect();
        for crash in 0..20 {
            let next = disk.after_crash(&CrashPolicy::Random(crash));
            let left = seen(&next);
            if next.counts().faults(FaultKind::TornSector) == 0 {
                assert!(exact.contains(&left), "disk {seed}, crash {crash}: {:?}", brief(&left));
                whole += 1;
            } else {
                let found = exact.iter().any(|exact| alike(&left, exact, &pending));
                assert!(found, "disk {seed}, crash {crash}: {:?}", brief(&left));
                torn += 1;
            }
        }
        for operations in 0..=changes as u64 {
            let left = seen(&disk.after_crash(&CrashPolicy::Prefix(operations)));
            assert!(exact.contains(&left), "disk {seed}, prefix {operations}: {:?}", brief(&left));
        }
    }
    assert!(whole > 1000 && torn > 50, "{whole} whole, {torn} torn");
}

#[test]
fn every_choice_of_what_is_kept_comes_up_at_random() {
    let disk = SimDisk::new();
    let (one, two) = (durable(&disk, "/1", &[b'_'; 1024]), durable(&disk, "/2", b"_"));
    write(&one, 500, &[b'a'; 20]);
    write(&two, 0, b"b");
    create(&disk, "/3");
    create(&disk, "/4");
    let changes = disk.pending().len();
    assert_eq!(changes, 5);
    let exact: BTreeSet<Plain> = (0..32).map(|choice| exactly(&disk, changes, choice)).collect();
    assert_eq!(exact.len(), 32);
    let crashed = (0..4000).map(|seed| seen(&disk.after_crash(&CrashPolicy::Random(seed))));
    let random: BTreeSet<Plain> = crashed.collect();
    let missing = exact.difference(&random).count();
    assert_eq!(missing, 0, "of 32 that are possible");
}

#[test]
fn a_crash_with_a_seed_is_the_same_each_time() {
    for seed in 0..50 {
        let disk = scribbled(seed, 60);
        let crashed = |crash| disk.crash(&CrashPolicy::Random(crash));
        assert_eq!(crashed(seed).contents(), crashed(seed).contents());
        let again = scribbled(seed, 60).crash(&CrashPolicy::Random(seed));
        assert_eq!(again.contents(), crashed(seed).contents());
        assert_eq!(again.counts(), crashed(seed).counts());
        assert_eq!(again.random().expect("drawn"), crashed(seed).random().expect("drawn"));
    }
}

//! Damaged files: found, with the file and the place, or harmless. Never a panic, never a wrong
//! record, and nothing is changed on disk by an open that fails.

use super::driven::{DIR, Driven};
use super::*;
use crate::format::segment_header::HEADER_BLOCK;
use crate::log::files::data_dir::DataDir;
use crate::seam::SystemClock;
use crate::seam::disk::sim::{Contents, CrashPolicy, Damage, SimDisk};

fn small() -> LogOptions {
    LogOptions { segment_size: 4608, tail_cache_max: 0, ..options() }
}

/// A log with two full segments, one that was cut short, and an active one; a vote; a checkpoint.
/// Closed properly.
fn sample() -> (SimDisk, Vec<Entry>) {
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &small()).expect("open");
    let mut done = |entries| driven.append(entries).expect("called").expect("appended");
    done(vec![membership(1, 0), record(1, 1, 50)]);
    done(records(1, 2..5, 60));
    done(records(1, 5..9, 40));
    let log = driven.log.clone();
    let cut = driven.run(async move { log.truncate_after(Some(id(1, 6))).await });
    cut.expect("done").expect("cut");
    for group in [records(2, 7..9, 10), records(2, 9..11, 40)] {
        driven.append(group).expect("called").expect("appended");
    }
    driven.log.set_committed(id(2, 10)).expect("readable");
    driven.log.save_state(id(1, 4), b"the state as of 4").expect("saved");
    let log = driven.log.clone();
    let vote = Vote { term: 2, voted_for: replica(2), committed: true };
    driven.run(async move { log.save_vote(vote).await }).expect("done").expect("saved");
    let entries = read_all(&driven.log);
    assert_eq!(driven.log.segments().len(), 4, "{:?}", driven.log.segments());
    driven.close().expect("done").expect("closed");
    (disk, entries)
}

fn files(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    let contents = disk.contents();
    let wanted = |path: &&PathBuf| path.to_string_lossy().ends_with(suffix);
    contents.keys().filter(wanted).cloned().collect()
}

/// What opening and reading everything gives.
fn recover(disk: &SimDisk) -> Result<(Vec<Entry>, Option<Vote>), StorageError> {
    let before = disk.contents();
    let driven = Driven::open(disk, &small()).inspect_err(|error| {
        assert_eq!(changed(&before, &disk.contents()), [""; 0], "changed by {error}");
    })?;
    for checkpoint in driven.log.checkpoints() {
        assert_eq!(driven.log.load_state(checkpoint)?, "the state as of 4");
    }
    Ok((driven.log.read(0, u64::MAX, usize::MAX, true)?, driven.log.vote()))
}

fn changed(before: &Contents, after: &Contents) -> Vec<String> {
    let paths = before.keys().chain(after.keys());
    let differs = |path: &&PathBuf| before.get(*path) != after.get(*path);
    paths.filter(differs).map(|path| path.display().to_string()).collect()
}

/// The bits to flip in a file: some where something is written, a few of the zeros elsewhere. `jepsen storage`
/// flips all of them.
fn bits(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut written: Vec<bool> = bytes.iter().map(|&byte| byte != 0).collect();
    for (at, written) in written.iter_mut().enumerate() {
        *written = bytes[at.saturating_sub(16)..bytes.len().min(at + 16)].iter().any(|&b| b != 0);
    }
    let count = bytes.len() * 8;
    (0..count).filter(move |bit| bit % if written[bit / 8] { 7 } else { 67 } == 0)
}

/// Flips bits of every file that ends so. Gives how many were found and how many were harmless.
fn flip_all(suffix: &str) -> (usize, usize) {
    let (disk, entries) = sample();
    let disk = disk.crash(&CrashPolicy::KeepAll);
    let vote = recover(&disk.crash(&CrashPolicy::KeepAll)).expect("undamaged").1;
    assert!(vote.is_some());
    let (mut found, mut harmless) = (0, 0);
    let paths = files(&disk, suffix);
    assert!(!paths.is_empty(), "{suffix}");
    for path in paths {
        let bytes = disk.contents()[&path].as_ref().expect("a file").to_vec();
        for bit in bits(&bytes) {
            let damaged = disk.crash(&CrashPolicy::KeepAll);
            damaged.tamper(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            match recover(&damaged) {
                Ok(recovered) => {
                    assert_eq!(recovered, (entries.clone(), vote), "bit {bit} of {path:?}");
                    harmless += 1;
                }
                Err(StorageError::Corrupt { path: named, offset, .. }) => {
                    assert_eq!(named, path, "bit {bit}");
                    let near = offset <= bit as u64 / 8;
                    assert!(near, "bit {bit} of {path:?}: said to be at {offset}");
                    found += 1;
                }
                Err(other) => panic!("bit {bit} of {path:?}: {other}"),
            }
        }
    }
    (found, harmless)
}

#[test]
fn a_flipped_bit_in_a_segment_is_found_or_harmless() {
    let (found, harmless) = flip_all(".seg");
    assert!(found > 1500, "{found} found, {harmless} harmless");
}

#[test]
fn a_flipped_bit_in_the_manifest_is_found() {
    let (found, harmless) = flip_all("MANIFEST");
    assert!(found > 150 && harmless == 0, "{found} found, {harmless} harmless");
}

#[test]
fn a_flipped_bit_in_one_copy_of_the_vote_is_harmless() {
    let (found, harmless) = flip_all("VOTE");
    assert!(harmless > 300 && found == 0, "{found} found, {harmless} harmless");
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_found_or_it_is_passed_over() {
    let (found, harmless) = flip_all(".ckpt");
    assert!(found > 8 * b"the state as of 4".len() / 8, "in the state: {found}");
    assert!(harmless > 8 * 48 / 8, "in the head: {harmless}");
}

#[test]
fn a_flipped_bit_in_the_superblock_is_found() {
    let disk = SimDisk::new();
    let dir = DataDir::open(disk.shared(), &disk, Path::new("/"), 3).expect("open");
    dir.set_cluster(77).expect("set");
    drop(dir);
    let path = PathBuf::from("/NODE");
    let bytes = disk.contents()[&path].as_ref().expect("a file").to_vec();
    for bit in 0..bytes.len() * 8 {
        let damaged = disk.crash(&CrashPolicy::KeepAll);
        damaged.tamper(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let before = damaged.contents();
        let error =
            DataDir::open(damaged.shared(), &damaged, Path::new("/"), 3).expect_err("damaged");
        assert!(matches!(&error, StorageError::Corrupt { path: p, .. } if *p == path), "{error}");
        assert_eq!(changed(&before, &damaged.contents()), [""; 0]);
    }
}

#[test]
fn a_segment_cut_at_any_byte_gives_the_groups_before_the_cut_and_goes_on() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_size: 8 << 10, ..options() };
    let mut driven = Driven::open(&disk, &options).expect("open");
    let mut ends = vec![(HEADER_BLOCK, 0)];
    let mut end = HEADER_BLOCK;
    for (group, count) in [1u64, 3, 2, 5].into_iter().enumerate() {
        let first = ends.last().expect("some").1;
        let entries = records(group as u64, first..first + count, 20 + 40 * group);
        end += 56 + entries.iter().map(Entry::encoded_len).sum::<usize>();
        driven.append(entries).expect("called").expect("appended");
        ends.push((end, first + count));
    }
    let all = read_all(&driven.log);
    drop(driven);
    let disk = disk.crash(&CrashPolicy::KeepAll);
    let path = Path::new(DIR).join("0000000000000001.seg");
    for cut in HEADER_BLOCK..end + 200 {
        // A file that ends there, and one whose rest was never written.
        for zeros in [false, true] {
            let torn = disk.crash(&CrashPolicy::KeepAll);
            torn.tamper(&path, |bytes| {
                let len = bytes.len();
                bytes.truncate(cut);
                if zeros {
                    bytes.resize(len, 0);
                }
            });
            let whole = ends.iter().rfind(|(end, _)| *end <= cut).expect("the header").1;
            let mut driven = Driven::open(&torn, &options)
                .unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            assert_eq!(read_all(&driven.log), all[..whole as usize], "cut at {cut}");
            let more = records(9, whole..whole + 2, 100);
            driven.append(more.clone()).expect("called").expect("appended");
            let driven = Driven::open(&torn.crash(&CrashPolicy::LoseAll), &options)
                .unwrap_or_else(|error| panic!("cut at {cut}, again: {error}"));
            let kept = read_all(&driven.log);
            assert_eq!(kept[..whole as usize], all[..whole as usize], "cut at {cut}");
            assert_eq!(kept[whole as usize..], more, "cut at {cut}: stale bytes came back");
        }
    }
}

#[test]
fn a_cut_into_the_header_or_a_sealed_segment_is_an_error() {
    let (disk, _) = sample();
    for path in files(&disk, ".seg") {
        for len in [0, 1, 47, 4095] {
            let damaged = disk.crash(&CrashPolicy::KeepAll);
            damaged.tamper(&path, |bytes| bytes.truncate(len));
            let error = recover(&damaged).expect_err("cut");
            assert!(
                matches!(&error, StorageError::Corrupt { path: p, .. } if *p == path),
                "{error}"
            );
        }
    }
    let damaged = disk.crash(&CrashPolicy::KeepAll);
    let sealed = &files(&disk, ".seg")[0];
    damaged.tamper(sealed, |bytes| bytes.truncate(4200));
    let error = recover(&damaged).expect_err("cut");
    assert!(matches!(error, StorageError::Corrupt { offset: 4200, .. }), "{error}");
}

#[test]
fn damage_below_a_flush_is_corruption_and_above_it_is_a_torn_tail() {
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &options()).expect("open");
    driven.append(records(1, 0..1, 100)).expect("called").expect("appended");
    driven.append(records(1, 1..2, 100)).expect("called").expect("appended");
    let path = Path::new(DIR).join("0000000000000001.seg");
    let (first, second) = (HEADER_BLOCK + 60, HEADER_BLOCK + 56 + 148 + 60);
    let damage = |at: usize, disk: &SimDisk| {
        let damaged = disk.after_crash(&CrashPolicy::KeepAll);
        damaged.tamper(&path, |bytes| bytes[at] ^= 1);
        Driven::open(&damaged, &options()).map(|driven| read_all(&driven.log).len())
    };
    let error = damage(first, &disk).expect_err("the second group is a witness");
    assert!(matches!(error, StorageError::Corrupt { offset: 4096, .. }), "{error}");
    assert_eq!(damage(second, &disk).expect("torn"), 1, "nothing says that it was flushed");
    driven.pass(Duration::from_millis(20));
    let error = damage(second, &disk).expect_err("the marker is a witness");
    assert!(matches!(error, StorageError::Corrupt { offset: 4300, .. }), "{error}");
}

#[test]
fn missing_files_are_named() {
    let (disk, _) = sample();
    let mut paths = files(&disk, ".seg");
    paths.extend(["MANIFEST", "VOTE"].map(|name| Path::new(DIR).join(name)));
    for path in paths {
        let damaged = disk.crash(&CrashPolicy::KeepAll);
        damaged.shared().unlink(&path).expect("unlink");
        let error = recover(&damaged).expect_err("missing");
        assert!(matches!(&error, StorageError::Missing { path: p, .. } if *p == path), "{error}");
    }
}

#[test]
fn a_wiped_vote_and_a_swapped_segment_are_refused() {
    let (disk, _) = sample();
    let vote = Path::new(DIR).join("VOTE");
    let damaged = disk.crash(&CrashPolicy::KeepAll);
    damaged.tamper(&vote, |bytes| bytes.fill(0));
    let error = recover(&damaged).expect_err("wiped");
    assert!(matches!(&error, StorageError::Corrupt { path, .. } if *path == vote), "{error}");

    let segments = files(&disk, ".seg");
    let other = disk.contents()[&segments[0]].as_ref().expect("a file").to_vec();
    let damaged = disk.crash(&CrashPolicy::KeepAll);
    damaged.tamper(&segments[1], |bytes| *bytes = other);
    let error = recover(&damaged).expect_err("swapped");
    assert!(matches!(&error, StorageError::Corrupt { offset: 0, .. }), "{error}");
}

#[test]
fn orphans_and_leftovers_are_removed_and_other_files_are_not() {
    let (disk, entries) = sample();
    let path = |name: &str| Path::new(DIR).join(name);
    let names = ["00000000000000ff.seg", "MANIFEST.tmp", "notes.txt"];
    for name in names {
        disk.shared().open(&path(name), crate::seam::Access::Create).expect("create");
    }
    assert_eq!(recover(&disk).expect("recovered").0, entries);
    let left = disk.contents();
    let here: Vec<bool> = names.iter().map(|name| left.contains_key(&path(name))).collect();
    assert_eq!(here, [false, false, true]);
}

#[test]
fn a_data_directory_belongs_to_one_node_and_one_process_and_knows_its_logs() {
    let temp = tempfile::tempdir().expect("tempdir");
    let path = temp.path().join("deep/data");
    let dir = DataDir::open(RealDisk::shared(), &SystemClock, &path, 3).expect("made");
    let incarnation = dir.incarnation();
    let error = DataDir::open(RealDisk::shared(), &SystemClock, &path, 3).expect_err("in use");
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    dir.set_cluster(9).expect("set");
    let error = dir.set_cluster(10).expect_err("another cluster");
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    let log_dir = dir.log_dir(LogId(7));
    std::fs::create_dir(&log_dir).expect("mkdir");
    std::fs::create_dir(path.join("logs/0000000000000008.gone")).expect("mkdir");
    dir.add_log(LogId(7)).expect("set");
    drop(dir);
    let error =
        DataDir::open(RealDisk::shared(), &SystemClock, &path, 4).expect_err("another node");
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    let dir = DataDir::open(RealDisk::shared(), &SystemClock, &path, 3).expect("again");
    assert_eq!((dir.incarnation(), dir.cluster()), (incarnation, 9));
    assert_eq!(dir.logs(), [LogId(7)]);
    assert!(!path.join("logs/0000000000000008.gone").exists());
    drop(dir);
    std::fs::remove_dir(&log_dir).expect("rmdir");
    let error =
        DataDir::open(RealDisk::shared(), &SystemClock, &path, 3).expect_err("half deleted");
    assert!(matches!(error, StorageError::Missing { path, .. } if path == log_dir));
    std::fs::remove_file(path.join("NODE")).expect("unlink");
    std::fs::create_dir(&log_dir).expect("mkdir");
    let error = DataDir::open(RealDisk::shared(), &SystemClock, &path, 3)
        .expect_err("no superblock, but logs");
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
}

#[test]
fn a_log_that_lost_all_its_files_is_not_taken_for_a_new_one() {
    let (disk, _) = sample();
    let dir = Path::new(DIR);
    for path in disk.contents().keys().filter(|path| path.parent() == Some(dir)) {
        disk.shared().unlink(path).expect("unlink");
    }
    let error = recover(&disk).expect_err("emptied");
    let manifest = dir.join("MANIFEST");
    assert!(matches!(&error, StorageError::Missing { path, .. } if *path == manifest), "{error}");
}

#[test]
fn a_sector_of_a_dropped_segment_is_found_whatever_is_read() {
    // The same shapes twice, of two terms, each in a segment of its own that begins at the same index.
    let disk = SimDisk::new();
    let mut driven = Driven::open(&disk, &small()).expect("open");
    driven.append(records(1, 0..8, 60)).expect("called").expect("appended");
    let path = |segment: u64| Path::new(DIR).join(format!("{segment:016x}.seg"));
    let fill = |driven: &mut Driven, term| {
        for first in [8, 11] {
            let entries = records(term, first..first + 3, 60);
            driven.append(entries).expect("called").expect("appended");
        }
    };
    fill(&mut driven, 1);
    let segments = files(&disk, ".seg");
    assert_eq!(segments, [path(1), path(2), path(3)]);
    let dropped = disk.contents()[&path(2)].clone().expect("a file");
    let log = driven.log.clone();
    let cut = driven.run(async move { log.truncate_after(Some(id(1, 7))).await });
    cut.expect("done").expect("cut");
    fill(&mut driven, 2);
    driven.log.set_committed(id(2, 13)).expect("readable");
    driven.close().expect("done").expect("closed");
    let segments = files(&disk, ".seg");
    assert_eq!(segments, [path(1), path(4), path(5)]);
    disk.damage(&path(4), &Damage::Restore { from: dropped, sectors: 8..9 });
    let driven = Driven::open(&disk, &small()).expect("a sealed segment is not read at the start");
    for index in 8..11 {
        let error = driven.log.read(index, index + 1, usize::MAX, true).expect_err("term 1");
        assert!(
            matches!(&error, StorageError::Corrupt { path: p, .. } if *p == path(4)),
            "{error}"
        );
    }
}

//! Looking at a data directory without a node.

use std::collections::BTreeSet;

use super::driven::{DIR, Driven};
use super::*;
use crate::log::files::data_dir::DataDir;
use crate::log::offline::{
    Finding, Severity, Verification, inspect, inspect_on, verify, verify_on,
};
use crate::seam::SystemClock;
use crate::seam::disk::sim::{CrashPolicy, Fault, SimDisk};

fn small() -> LogOptions {
    LogOptions { segment_size: 8 << 10, ..options() }
}

/// A data directory with one log of a few segments; a crash comes at operation `at`, if any.
fn sample(at: Option<u64>) -> SimDisk {
    let disk = SimDisk::new();
    let dir = DataDir::open(disk.shared(), &disk, Path::new("/"), 3).expect("open");
    if let Some(at) = at {
        disk.fail_nth_change(at, Fault::Halt);
    }
    if let Ok(mut driven) = Driven::open(&disk, &small()) {
        let _ = dir.add_log(LogId(7));
        let _ = driven.append(vec![membership(1, 0)]);
        for first in (1..41).step_by(4) {
            let _ = driven.append(records(1, first..first + 4, 500));
        }
        driven.log.set_committed(id(1, 30)).expect("readable");
        let _ = driven.log.save_state(id(1, 10), b"ten");
        let log = driven.log.clone();
        let _ = driven.run(async move { log.purge(id(1, 10)).await });
        let log = driven.log.clone();
        let vote = Vote { term: 1, voted_for: replica(3), committed: true };
        let _ = driven.run(async move { log.save_vote(vote).await });
        let _ = driven.close();
    }
    disk
}

fn check(disk: &SimDisk) -> Verification {
    let before = disk.contents();
    let mut last = (0, 0);
    let verified = verify_on(&disk.clone(), Path::new("/"), &mut |done, total| {
        assert!(last.0 <= done && done <= total, "{last:?}, then {done} of {total}");
        last = (done, total);
    });
    assert_eq!(last.0, last.1, "all of it");
    assert!(disk.contents() == before, "verifying changed something");
    verified.expect("listed")
}

#[test]
fn a_sound_directory_is_summed_up_and_verified() {
    let disk = sample(None);
    let before = disk.contents();
    let found = inspect_on(&disk, Path::new("/")).expect("inspect");
    assert!(disk.contents() == before, "inspecting changed something");
    assert_eq!((found.node.node_id, found.node.cluster), (3, 0));
    let [log] = &found.logs[..] else { panic!("{found:?}") };
    assert_eq!((log.id, log.committed), (LogId(7), 31));
    assert_eq!(log.boundary.map(|boundary| boundary.index), Some(10));
    assert_eq!(log.checkpoints.len(), 1);
    assert_eq!(log.vote.map(|vote| vote.voted_for), Some(3));
    let (active, sealed) = log.segments.split_last().expect("segments");
    assert!(!active.sealed && sealed.len() > 1 && sealed.iter().all(|segment| segment.sealed));
    let held = 41 - log.segments[0].base_index;
    assert_eq!(log.segments.iter().map(|segment| segment.entries).sum::<u64>(), held);

    let verified = check(&disk);
    assert!(verified.is_sound() && verified.findings.is_empty(), "{verified:?}");
    let counts = &verified.logs[0];
    assert_eq!((counts.entries, counts.records, counts.checkpoints), (held, held, 1));
    assert_eq!(counts.payload_bytes, held * 500);
}

#[test]
fn no_crash_looks_like_damage() {
    let mut harmless = 0;
    for at in 0.. {
        let disk = sample(Some(at));
        let crashed = [CrashPolicy::KeepAll, CrashPolicy::LoseAll, CrashPolicy::Random(at)]
            .map(|keep| disk.crash(&keep));
        for disk in crashed {
            let verified = check(&disk);
            assert!(verified.is_sound(), "crashed at {at}: {:?}", verified.findings);
            harmless += verified.findings.len();
        }
        if disk.changes() < at {
            break;
        }
    }
    assert!(harmless > 10, "torn tails and orphans are mentioned: {harmless}");
}

#[test]
fn every_damaged_file_is_named() {
    let disk = sample(None);
    let paths: Vec<PathBuf> =
        disk.contents().into_iter().filter(|(_, f)| f.is_some()).map(|(p, _)| p).collect();
    let mut seen = BTreeSet::new();
    for path in paths.into_iter().filter(|path| !path.ends_with("LOCK")) {
        let flipped = disk.crash(&CrashPolicy::KeepAll);
        flipped.tamper(&path, |bytes| {
            let at = if bytes.len() > 4300 { 4250 } else { bytes.len() - 1 };
            bytes[at] ^= 4;
        });
        let missing = disk.crash(&CrashPolicy::KeepAll);
        missing.shared().unlink(&path).expect("unlink");
        for damaged in [flipped, missing] {
            let verified = check(&damaged);
            let harmless = path.ends_with("VOTE") && damaged.contents().contains_key(&path);
            assert_eq!(verified.is_sound(), harmless, "{path:?}: {verified:?}");
            if !harmless {
                let named = |f: &&Finding| f.severity == Severity::Damage && f.path == path;
                assert!(verified.findings.iter().any(|f| named(&f)), "{path:?}: {verified:?}");
            }
        }
        seen.insert(path.extension().map(|extension| extension.to_owned()));
    }
    assert_eq!(seen.len(), 3, "{seen:?}: control files, segments, checkpoints");
    let gone = disk.crash(&CrashPolicy::KeepAll);
    for entry in gone.shared().list(Path::new(DIR)).expect("list") {
        gone.shared().unlink(&Path::new(DIR).join(entry.name)).expect("unlink");
    }
    gone.shared().remove_dir(Path::new(DIR)).expect("rmdir");
    assert!(!check(&gone).is_sound(), "a log is gone");
}

#[test]
fn a_directory_in_use_is_said_to_be() {
    let temp = tempfile::tempdir().expect("tempdir");
    let dir = DataDir::open(RealDisk::shared(), &SystemClock, temp.path(), 3).expect("open");
    assert!(inspect(temp.path()).expect("inspect").in_use);
    let before = snapshot(temp.path());
    assert!(verify(temp.path(), &mut |_, _| ()).expect("verify").in_use);
    drop(dir);
    assert!(!inspect(temp.path()).expect("inspect").in_use);
    assert_eq!(snapshot(temp.path()), before);
    assert!(inspect(temp.path().join("nowhere")).is_err());
}

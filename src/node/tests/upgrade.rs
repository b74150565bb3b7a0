//! A data directory of an older build: written by the build before `NODE`, `VOTE` and `MANIFEST` had version 2, whose node ran
//! alone, asynchronously, and was killed.

use std::path::PathBuf;

use super::*;
use crate::format::committed::Committed;
use crate::format::manifest::Manifest;
use crate::format::superblock::Superblock;
use crate::format::vote::VoteSlot;
use crate::seam::{Access, Disk as _};

/// The directory on a disk.
fn golden() -> SimDisk {
    let disk = SimDisk::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data_dir_version_1");
    copy(&disk, &from, Path::new("/data"));
    disk.flush_all();
    disk
}

fn copy(disk: &SimDisk, from: &Path, to: &Path) {
    disk.mkdir(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("the golden files") {
        let path = entry.expect("an entry").path();
        let to: PathBuf = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(disk, &path, &to);
        } else {
            let file = disk.open(&to, Access::Create).expect("a new file");
            file.write_all_at(&std::fs::read(&path).expect("a golden file"), 0).expect("space");
        }
    }
}

fn bytes(disk: &SimDisk, path: &str) -> Vec<u8> {
    disk.durable_file(Path::new(path)).expect("it is durable").to_vec()
}

#[test]
fn a_directory_of_version_1_opens_with_what_was_acknowledged_and_has_the_newest_version_from_then_on()
 {
    for flush in [Flush::Sync, Flush::Async] {
        let disk = golden();
        let change = |config: &mut Config| config.storage.flush = flush;
        let running = Running::try_start(&MemoryTransport::default(), &disk, 1, change);
        let running = running.expect("the node opens");
        let log = running.until("the log", || running.node.log(&name("orders")));
        running.until("a leader", || log.status().leader);
        running.until("its records", || (log.watermarks().committed > 6).then_some(()));
        let records = running.run(log.read(0, 1 << 20)).expect("a sound log");
        let payloads: Vec<_> = records.iter().map(|record| record.payload.clone()).collect();
        let expected: Vec<_> = (1..=5).map(|number| format!("record {number}")).collect();
        assert_eq!(payloads, expected, "{flush}");
        running.run(log.append("more")).expect("one node");
        running.until("it to be trusted", || {
            let superblock = Superblock::decode(&bytes(&disk, "/data/NODE")).expect("whole");
            assert!(superblock.run.is_some());
            superblock.suspects.is_empty().then_some(())
        });
        for log in ["0000000000000000", "0000000000000002"] {
            let manifest = bytes(&disk, &format!("/data/logs/{log}/MANIFEST"));
            let manifest = Manifest::decode(&manifest).expect("whole");
            let vote = bytes(&disk, &format!("/data/logs/{log}/VOTE"));
            let vote = VoteSlot::decode(&vote).expect("whole");
            for committed in [manifest.committed, vote.committed] {
                assert!(!matches!(committed, Committed::Index(_)), "{flush}: {committed:?}");
            }
        }
        running.kill();
    }
}

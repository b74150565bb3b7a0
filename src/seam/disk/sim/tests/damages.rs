//! Damage: on the disk and in the page cache, and nowhere else.

use super::*;

/// Four sectors, each full of its number; sector 2 was written twice.
fn sectors() -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    let bytes: Vec<u8> = (0..2048).map(|at| (at / 512) as u8 + 1).collect();
    let file = durable(&disk, "/f", &bytes);
    write(&file, 1024, &[9; 512]);
    file.sync_data().expect("flush");
    (disk, file)
}

/// The first byte of each sector, now and after a power cut.
fn firsts(disk: &SimDisk) -> Vec<u8> {
    let now = read(disk, "/f").expect("there");
    let later = after(disk, CrashPolicy::LoseAll, "/f").expect("there");
    assert_eq!(now, later, "page cache and disk differ");
    assert!(now.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
    now.chunks(512).map(|sector| sector[0]).collect()
}

#[track_caller]
fn bites(disk: &SimDisk, damage: Damage) {
    let before = disk.counts().faults(damage.kind());
    assert!(disk.damage(Path::new("/f"), &damage), "{damage:?}");
    assert_eq!(disk.counts().faults(damage.kind()), before + 1);
}

#[track_caller]
fn is_harmless(disk: &SimDisk, damage: Damage) {
    let before = (disk.contents(), disk.counts());
    assert!(!disk.damage(Path::new("/f"), &damage), "{damage:?}");
    assert_eq!((disk.contents(), disk.counts()), before);
}

#[test]
fn sectors_are_zeroed_aged_swapped_and_restored() {
    let (disk, file) = sectors();
    assert_eq!(firsts(&disk), [1, 2, 9, 4]);
    bites(&disk, Damage::StaleSector(2));
    assert_eq!(firsts(&disk), [1, 2, 3, 4]);
    bites(&disk, Damage::SwapSectors(0, 3));
    assert_eq!(firsts(&disk), [4, 2, 3, 1]);
    bites(&disk, Damage::ZeroSector(1));
    assert_eq!(firsts(&disk), [4, 0, 3, 1]);
    is_harmless(&disk, Damage::ZeroSector(1));
    is_harmless(&disk, Damage::SwapSectors(1, 1));
    for beyond in [Damage::ZeroSector(4), Damage::StaleSector(4), Damage::SwapSectors(0, 4)] {
        is_harmless(&disk, beyond);
    }
    let image = disk.durable_file(Path::new("/f")).expect("durable");
    write(&file, 0, &[7; 2048]);
    file.sync_data().expect("flush");
    bites(&disk, Damage::Restore { from: image.clone(), sectors: 1..3 });
    assert_eq!(firsts(&disk), [7, 0, 3, 7]);
    is_harmless(&disk, Damage::Restore { from: image, sectors: 1..3 });
    bites(&disk, Damage::StaleSector(0));
    assert_eq!(firsts(&disk)[0], 4, "what it held before the last flush");
}

#[test]
fn bits_flip_and_sectors_become_garbage() {
    let (disk, _file) = sectors();
    bites(&disk, Damage::FlipBit(8 * 700 + 3));
    let bytes = read(&disk, "/f").expect("there");
    assert_eq!((bytes[699], bytes[700], bytes[701]), (2, 2 ^ 8, 2));
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(bytes));
    bites(&disk, Damage::FlipBit(8 * 700 + 3));
    assert_eq!(firsts(&disk), [1, 2, 9, 4]);
    is_harmless(&disk, Damage::FlipBit(8 * 2048));
    bites(&disk, Damage::GarbageSector { sector: 3, seed: 1 });
    let bytes = read(&disk, "/f").expect("there");
    assert_eq!(bytes[..1536], sectors().1.map(1536).expect("mapped")[..]);
    assert!(bytes[1536..].iter().any(|byte| *byte != 4));
}

#[test]
fn a_tail_that_was_never_written_twice_ages_to_zeros() {
    let disk = SimDisk::new();
    let file = create(&disk, "/f");
    file.allocate(0, 4096).expect("allocate");
    disk.sync_dir(Path::new("/")).expect("sync");
    for (at, bytes) in [(0, b"one"), (3, b"two")] {
        write(&file, at, bytes);
        write(&file, at, bytes);
        file.sync_data().expect("flush");
    }
    bites(&disk, Damage::StaleSector(0));
    let bytes = read(&disk, "/f").expect("there");
    assert_eq!(&bytes[..6], b"one\0\0\0", "the last flush was lost, and not the last write");
    is_harmless(&disk, Damage::StaleSector(0));
    is_harmless(&disk, Damage::StaleSector(1));
}

#[test]
fn files_are_truncated_swapped_and_deleted() {
    let (disk, file) = sectors();
    bites(&disk, Damage::Truncate(600));
    assert_eq!(read(&disk, "/f").expect("there").len(), 600);
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f").expect("there").len(), 600);
    is_harmless(&disk, Damage::Truncate(600));
    durable(&disk, "/g", b"other");
    is_harmless(&disk, Damage::SwapFiles("/missing".into()));
    bites(&disk, Damage::SwapFiles("/g".into()));
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(b"other".to_vec()));
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/g").expect("there").len(), 600);
    assert_eq!(file.size().expect("size"), 600, "a handle is of the file and not of the name");
    bites(&disk, Damage::Delete);
    assert_eq!(names(&disk), ["/g"]);
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), ["/g"]);
    is_harmless(&disk, Damage::Delete);
    assert!(!disk.damage(Path::new("/"), &Damage::Delete), "a directory");
}

#[test]
fn what_was_written_and_not_flushed_heals_damage_when_it_is_written_back() {
    let (disk, file) = sectors();
    write(&file, 512, &[5; 512]);
    bites(&disk, Damage::ZeroSector(1));
    assert_eq!(read(&disk, "/f").expect("there")[512], 0);
    file.sync_data().expect("flush");
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f").expect("there")[512], 5);
}

#[test]
fn tampering_changes_all_there_is_of_a_file() {
    let (disk, file) = sectors();
    write(&file, 0, b"pending");
    disk.tamper(Path::new("/f"), |bytes| *bytes = b"mine".to_vec());
    assert_eq!(read(&disk, "/f"), Some(b"mine".to_vec()));
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(b"mine".to_vec()));
    file.sync_data().expect("flush");
    assert_eq!(read(&disk, "/f"), Some(b"mine".to_vec()));
}

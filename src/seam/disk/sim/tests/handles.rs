//! Handles, locks, clocks, counts and traces.

use std::sync::Mutex;

use super::*;

#[test]
fn after_a_crash_old_handles_fail_and_locks_are_released() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"x");
    let lock = disk.lock(Path::new("/LOCK"), LockMode::Exclusive).expect("lock").expect("free");
    assert!(disk.lock(Path::new("/LOCK"), LockMode::Shared).expect("lock").is_none());
    let next = disk.crash(&CrashPolicy::KeepAll);
    assert!(disk.is_dead() && !next.is_dead());
    file.read_at(&mut [0], 0).expect_err("it is of the dead machine");
    file.write_all_at(b"late", 0).expect_err("it is of the dead machine");
    file.sync_data().expect_err("it is of the dead machine");
    disk.open(Path::new("/f"), Access::Read).expect_err("it is the dead machine");
    let held = next.lock(Path::new("/LOCK"), LockMode::Exclusive).expect("lock").expect("free");
    drop(lock);
    assert!(next.lock(Path::new("/LOCK"), LockMode::Exclusive).expect("lock").is_none());
    drop(held);
    assert!(next.lock(Path::new("/LOCK"), LockMode::Exclusive).expect("lock").is_some());
    assert_eq!(read(&next, "/f"), Some(b"x".to_vec()), "nothing came through");
}

#[test]
fn a_crash_that_is_only_looked_at_changes_nothing() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"x");
    write(&file, 0, b"y");
    let (contents, counts) = (disk.contents(), disk.counts());
    let next = disk.after_crash(&CrashPolicy::LoseAll);
    write(&next.open(Path::new("/f"), Access::Write).expect("open"), 0, b"z");
    assert_eq!((disk.contents(), disk.counts()), (contents, counts));
    file.sync_data().expect("it goes on");
}

#[test]
fn a_file_without_a_name_lives_as_long_as_its_handles() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"kept");
    disk.unlink(Path::new("/f")).expect("unlink");
    disk.sync_dir(Path::new("/")).expect("sync");
    for round in 0..500 {
        let path = format!("/{round}");
        create(&disk, &path);
        disk.unlink(Path::new(&path)).expect("unlink");
        disk.sync_dir(Path::new("/")).expect("sync");
    }
    assert_eq!(&file.map(4).expect("mapped")[..], b"kept");
    assert!(disk.machine().tree.files().count() < 200, "files that nobody can reach are forgotten");
}

#[test]
fn each_disk_has_its_clock_and_its_random_numbers() {
    let (one, two) = (SimDisk::with_seed(1), SimDisk::with_seed(2));
    assert_eq!(one.now_ms(), 0);
    let base = Arc::new(std::sync::atomic::AtomicU64::new(1_000_000));
    let clock = Arc::clone(&base);
    one.set_clock(move || clock.load(std::sync::atomic::Ordering::Relaxed));
    one.step_clock(-3000);
    assert_eq!((one.now_ms(), two.now_ms()), (997_000, 0));
    base.store(1_000_500, std::sync::atomic::Ordering::Relaxed);
    let one = one.crash(&CrashPolicy::LoseAll);
    assert_eq!(one.now_ms(), 997_500, "a crash does not set it right");
    let draw = |disk: &SimDisk| disk.random().expect("drawn");
    let (first, other) = (draw(&one), draw(&two));
    assert_ne!(first, other);
    assert_eq!(draw(&SimDisk::with_seed(1)), first);
    assert_ne!(draw(&one.crash(&CrashPolicy::LoseAll)), first, "none comes twice");
}

#[test]
fn a_tracer_hears_of_each_operation_with_its_bytes_and_its_end() {
    let disk = SimDisk::new();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    disk.set_tracer(Some(Arc::new(move |op: &Operation<'_>| {
        let end = op.result.as_ref().map_or_else(|e| e.kind().to_string(), |()| "ok".to_owned());
        let line = format!(
            "{} {:?} {} {}+{} {:08x} {end}",
            op.number,
            op.kind,
            op.path.display(),
            op.offset,
            op.len,
            op.crc
        );
        heard.lock().expect("no panic").push(line);
    })));
    let file = create(&disk, "/f");
    write(&file, 7, b"bytes");
    file.sync_data().expect("flush");
    let _ = disk.unlink(Path::new("/g"));
    let disk = disk.crash(&CrashPolicy::KeepAll);
    let _ = disk.list(Path::new("/"));
    let crc = crc32fast::hash(b"bytes");
    let expected = [
        "0 Create /f 0+0 00000000 ok".to_owned(),
        format!("1 Write /f 7+5 {crc:08x} ok"),
        "2 Flush /f 0+5 00000000 ok".to_owned(),
        "3 Unlink /g 0+0 00000000 entity not found".to_owned(),
        "4 List / 0+0 00000000 ok".to_owned(),
    ];
    assert_eq!(*lines.lock().expect("no panic"), expected);
    assert_eq!(disk.changes(), 4);
    assert_eq!(disk.counts().operations(OpKind::Write), 1);
}

#[test]
fn every_kind_is_listed_where_it_is_counted() {
    assert!(OpKind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
    assert!(FaultKind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
}

#[test]
#[should_panic(expected = "I7: a mapped file is written")]
fn a_mapped_file_must_not_be_written() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"x");
    file.map(1).expect("mapped");
    assert!(disk.is_mapped(Path::new("/f")));
    write(&file, 0, b"y");
}

#[test]
#[should_panic(expected = "I7: a mapped file is cut")]
fn a_mapped_file_must_not_be_cut() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"x");
    file.map(1).expect("mapped");
    let _ = file.cut(0);
}

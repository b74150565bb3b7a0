//! Every fault bites, and does what it says.

use std::io::ErrorKind;
use std::sync::mpsc;

use rustix::io::Errno;

use super::*;

const EIO: Option<i32> = Some(Errno::IO.raw_os_error());
const ENOSPC: Option<i32> = Some(Errno::NOSPC.raw_os_error());

fn path() -> &'static Path {
    Path::new("/f")
}

/// An operation of each kind that works on a disk with the file `/f` and the empty directory `/d`.
fn operate(disk: &SimDisk, file: &dyn DiskFile, kind: OpKind) -> io::Result<()> {
    let (f, d) = (path(), Path::new("/d"));
    match kind {
        OpKind::Open => disk.open(f, Access::Read).map(drop),
        OpKind::Create => disk.open(Path::new("/new"), Access::Create).map(drop),
        OpKind::Rename => disk.rename(f, Path::new("/g")),
        OpKind::SyncDir => disk.sync_dir(d),
        OpKind::List => disk.list(d).map(drop),
        OpKind::Unlink => disk.unlink(f),
        OpKind::MakeDir => disk.mkdir(Path::new("/e")),
        OpKind::RemoveDir => disk.remove_dir(d),
        OpKind::Lock => disk.lock(f, LockMode::Shared).map(drop),
        OpKind::FreeSpace => disk.free_space(d).map(drop),
        OpKind::Random => disk.random().map(drop),
        OpKind::Size => file.size().map(drop),
        OpKind::Allocate => file.allocate(0, 9000),
        OpKind::Cut => file.cut(1),
        OpKind::Write => file.write_all_at(b"new", 0),
        OpKind::Read => file.read_exact_at(&mut [0; 3], 0),
        OpKind::Map => file.map(1).map(drop),
        OpKind::Flush => file.sync_data(),
    }
}

fn fresh() -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"old");
    disk.mkdir(Path::new("/d")).expect("mkdir");
    disk.flush_all();
    (disk, file)
}

#[test]
fn any_kind_of_operation_fails_once_when_it_is_told_to_and_does_nothing() {
    for kind in OpKind::ALL {
        for (fault, code) in [(Fault::Eio, EIO), (Fault::NoSpace, ENOSPC)] {
            let (disk, file) = fresh();
            let before = disk.contents();
            disk.inject(rule(kind, When::Nth(0), fault));
            assert_eq!(raw(operate(&disk, &*file, kind)), code, "{kind:?}");
            assert_eq!(disk.contents(), before, "{kind:?} did something");
            assert_eq!(disk.counts().faults(fault.kind()), 1);
            operate(&disk, &*file, kind).unwrap_or_else(|e| panic!("{kind:?} fails again: {e}"));
        }
        let (disk, file) = fresh();
        let counted = disk.counts().operations(kind);
        operate(&disk, &*file, kind).expect("no fault was set");
        assert_eq!(disk.counts().operations(kind), counted + 1, "{kind:?}");
    }
}

#[test]
fn the_machine_halts_at_any_operation_and_then_everything_fails() {
    for kind in OpKind::ALL {
        let (disk, file) = fresh();
        let before = disk.contents();
        disk.inject(rule(kind, When::Nth(0), Fault::Halt));
        operate(&disk, &*file, kind).expect_err("it halts");
        assert!(disk.is_dead());
        for kind in OpKind::ALL {
            operate(&disk, &*file, kind).expect_err("it is dead");
        }
        let next = disk.crash(&CrashPolicy::KeepAll);
        assert_eq!(next.contents(), before, "{kind:?} was done");
        assert!(!next.is_dead());
        assert_eq!(next.counts().faults(FaultKind::Halt), 1);
        operate(&next, &*next.open(path(), Access::Write).expect("open"), kind).expect("it lives");
    }
}

#[test]
fn rules_choose_by_kind_path_number_and_chance() {
    let (disk, file) = fresh();
    let other = durable(&disk, "/log/VOTE".trim_start_matches("/log"), b"v");
    let only = Rule { path: "VOTE".to_owned(), ..rule(OpKind::Write, When::Nth(1), Fault::Eio) };
    disk.inject(only);
    for _ in 0..3 {
        write(&file, 0, b"x");
    }
    write(&other, 0, b"x");
    assert_eq!(raw(other.write_all_at(b"x", 0)), EIO);
    write(&other, 0, b"x");

    disk.inject(rule(OpKind::Flush, When::From(2), Fault::Eio));
    let flushes: Vec<bool> = (0..5).map(|_| file.sync_data().is_ok()).collect();
    assert_eq!(flushes, [true, true, false, false, false]);
    disk.clear_rules();
    file.sync_data().expect("no rule is left");

    disk.fail_nth_change(2, Fault::NoSpace);
    write(&file, 0, b"x");
    file.size().expect("not a change");
    file.sync_data().expect("the second");
    assert_eq!(raw(disk.mkdir(Path::new("/m"))), ENOSPC);

    disk.fail_nth_change(1, Fault::Eio);
    disk.fail_nth_change(1, Fault::NoSpace);
    disk.fail_nth_change(2, Fault::NoSpace);
    let codes: Vec<_> = (0..4).map(|_| file.cut(1).err().and_then(|e| e.raw_os_error())).collect();
    assert_eq!(codes, [None, EIO, ENOSPC, None], "the first rule has it, and all count it");

    let failures = |seed| {
        let when = When::Chance { per_million: 100_000, seed };
        disk.clear_rules();
        disk.inject(Rule { ops: Ops::Any, path: String::new(), when, fault: Fault::Eio });
        (0..1000).map(|_| file.size().is_err()).collect::<Vec<bool>>()
    };
    let first = failures(1);
    let count = first.iter().filter(|failed| **failed).count();
    assert!((60..140).contains(&count), "{count}");
    assert_eq!(first, failures(1));
    assert_ne!(first, failures(2));
}

#[test]
fn a_failed_flush_drops_what_it_was_to_write_and_the_next_one_knows_nothing_of_it() {
    for (fault, code) in [(Fault::Eio, EIO), (Fault::NoSpace, ENOSPC)] {
        let (disk, file) = fresh();
        write(&file, 0, b"new bytes");
        disk.inject(rule(OpKind::Flush, When::Nth(0), fault));
        assert_eq!(raw(file.sync_data()), code);
        let old = b"old\0\0\0\0\0\0".to_vec();
        assert_eq!(read(&disk, "/f"), Some(old.clone()), "the pages were read again");
        file.sync_data().expect("the pages are clean");
        assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(old));
        write(&file, 0, b"again");
        file.sync_data().expect("flush");
        assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(b"again\0\0\0\0".to_vec()));
    }
}

#[test]
fn a_torn_flush_writes_some_sectors_and_drops_the_others() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let disk = SimDisk::new();
        let file = durable(&disk, "/f", &[b'o'; 1024]);
        write(&file, 0, &[b'n'; 1024]);
        disk.inject(rule(OpKind::Flush, When::Nth(0), Fault::TornFlush { seed }));
        assert_eq!(raw(file.sync_data()), EIO);
        file.sync_data().expect("the pages are clean");
        let left = after(&disk, CrashPolicy::LoseAll, "/f").expect("there");
        assert_eq!(read(&disk, "/f"), Some(left.clone()));
        assert!(left.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        seen.insert((left[0], left[512]));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_failed_flush_of_names_leaves_them_seen_and_not_durable() {
    let (disk, _) = fresh();
    create(&disk, "/g");
    disk.inject(rule(OpKind::SyncDir, When::Nth(0), Fault::Eio));
    assert_eq!(raw(disk.sync_dir(Path::new("/"))), EIO);
    assert_eq!(names(&disk), ["/d", "/f", "/g"]);
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), ["/d", "/f"]);
}

#[test]
fn short_reads_and_writes_do_the_first_half() {
    let (disk, file) = fresh();
    disk.inject(rule(OpKind::Write, When::Nth(0), Fault::Short));
    let buffers = [b"abc".as_slice(), b"de"].map(io::IoSlice::new);
    assert_eq!(file.write_vectored_at(&buffers, 1).expect("some"), 3);
    assert_eq!(read(&disk, "/f"), Some(b"oabc".to_vec()));
    disk.inject(rule(OpKind::Read, When::Nth(0), Fault::Short));
    let mut buffer = [0; 4];
    assert_eq!(file.read_at(&mut buffer, 0).expect("some"), 2);
    assert_eq!(&buffer, b"oa\0\0");
    disk.inject(rule(OpKind::Write, When::From(0), Fault::Short));
    write(&file, 0, b"all of it in the end");
    assert_eq!(read(&disk, "/f"), Some(b"all of it in the end".to_vec()));
    assert!(disk.counts().faults(FaultKind::Short) > 4);
}

#[test]
fn lost_and_misdirected_writes_are_seen_until_the_power_fails() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", &[b'o'; 2048]);
    disk.inject(rule(OpKind::Write, When::Nth(0), Fault::LostWrite));
    write(&file, 10, b"lost");
    file.sync_data().expect("flush");
    assert_eq!(&read(&disk, "/f").expect("there")[10..14], b"lost");
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(vec![b'o'; 2048]));

    let fault = Fault::MisdirectedWrite { sectors: 2 };
    disk.inject(rule(OpKind::Write, When::Nth(0), fault));
    write(&file, 520, b"astray");
    file.sync_data().expect("flush");
    assert_eq!(&read(&disk, "/f").expect("there")[520..526], b"astray");
    let left = after(&disk, CrashPolicy::LoseAll, "/f").expect("there");
    let at = 520 + 2 * 512;
    assert_eq!((&left[520..526], &left[at..at + 6]), (b"oooooo".as_slice(), b"astray".as_slice()));
    assert_eq!(disk.counts().faults(FaultKind::LostWrite), 1);
    assert_eq!(disk.counts().faults(FaultKind::MisdirectedWrite), 1);
}

#[test]
fn space_is_used_up_by_what_makes_files_longer_and_comes_back() {
    let (disk, file) = fresh();
    disk.set_space(Some(1000));
    file.allocate(0, 503).expect("500 bytes more");
    assert_eq!(disk.free_space(path()).expect("known"), 500);
    assert_eq!(raw(file.allocate(503, 1004)), ENOSPC);
    assert_eq!(file.size().expect("size"), 503, "nothing was done");
    write(&file, 0, &[b'x'; 503]);
    assert_eq!(disk.free_space(path()).expect("known"), 500, "it was allocated");
    let other = create(&disk, "/g");
    assert_eq!(other.write_vectored_at(&[io::IoSlice::new(&[1; 600])], 0).expect("some"), 500);
    assert_eq!(raw(other.write_all_at(&[1; 100], 500)), ENOSPC);
    file.sync_data().expect("it needs no space");
    file.cut(3).expect("cut");
    assert_eq!(disk.free_space(path()).expect("known"), 500);
    disk.unlink(Path::new("/g")).expect("unlink");
    assert_eq!(disk.free_space(path()).expect("known"), 1000);
    disk.rename(path(), Path::new("/h")).expect("rename");
    write(&create(&disk, "/f"), 0, &[0; 100]);
    disk.rename(Path::new("/h"), path()).expect("rename");
    assert_eq!(disk.free_space(path()).expect("known"), 1000, "the file that was replaced");
    assert_eq!(disk.counts().faults(FaultKind::NoSpace), 3);
    disk.set_space(None);
    file.allocate(0, 1 << 30).expect("there is no limit");
}

#[test]
fn a_lying_disk_loses_what_it_said_was_flushed() {
    let (disk, file) = fresh();
    disk.set_lying(true);
    write(&file, 0, b"new");
    file.sync_data().expect("it lies");
    create(&disk, "/g");
    disk.sync_dir(Path::new("/")).expect("it lies");
    assert_eq!(disk.counts().faults(FaultKind::LyingFlush), 2);
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(b"old".to_vec()));
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/g"), None);
    disk.set_lying(false);
    file.sync_data().expect("flush");
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(b"new".to_vec()));
}

#[test]
fn a_held_flush_ends_when_it_is_let_go_and_fails_when_the_machine_dies() {
    for dies in [false, true] {
        let (disk, file) = fresh();
        write(&file, 0, b"new");
        disk.hold_flushes(true);
        let (sender, receiver) = mpsc::channel();
        let flushed = Arc::clone(&file);
        let thread = std::thread::spawn(move || drop(sender.send(flushed.sync_data())));
        while disk.counts().faults(FaultKind::HeldFlush) == 0 {
            std::thread::yield_now();
        }
        assert!(receiver.try_recv().is_err(), "it waits");
        assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(b"old".to_vec()));
        let disk = if dies {
            disk.crash(&CrashPolicy::KeepAll)
        } else {
            disk.hold_flushes(false);
            disk
        };
        assert_eq!(receiver.recv().expect("it ends").is_err(), dies);
        thread.join().expect("no panic");
        let expected = if dies { b"old" } else { b"new" };
        assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(expected.to_vec()));
    }
}

#[test]
fn operations_take_the_time_that_they_are_told_to() {
    let millis = Duration::from_millis;
    let disk = SimDisk::new();
    assert_eq!(disk.latency(OpKind::Flush, 1 << 20), Duration::ZERO);
    let latency = Latency {
        flush: millis(2),
        jitter: millis(1),
        per_kib: Duration::from_micros(10),
        slow_per_million: 100_000,
        slow: millis(500),
    };
    disk.set_latency(latency);
    assert_eq!(disk.latency(OpKind::Read, 2048), Duration::from_micros(20));
    let times: Vec<Duration> = (0..1000).map(|_| disk.latency(OpKind::Flush, 0)).collect();
    let slow = times.iter().filter(|time| **time == millis(500)).count();
    assert!((60..140).contains(&slow), "{slow}");
    assert_eq!(disk.counts().faults(FaultKind::SlowFlush), slow as u64);
    let usual: Vec<_> = times.iter().filter(|time| **time != millis(500)).collect();
    assert!(usual.iter().all(|time| (millis(2)..millis(3)).contains(time)));
    assert!(usual.iter().max() > usual.iter().min());
    assert_eq!(kind(disk.open(path(), Access::Read)), ErrorKind::NotFound, "it goes on");
}

//! What survives which crash.

use super::*;

const OLD: u8 = b'o';
const NEW: u8 = b'n';

/// Two sectors and a half that are durable, and one write over the middle of them that is not.
fn overwritten() -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", &[OLD; 1280]);
    write(&file, 100, &[NEW; 1000]);
    (disk, file)
}

fn mix(new: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
    let byte = |at| if (100..1100).contains(&at) && new(at) { NEW } else { OLD };
    Some((0..1280).map(byte).collect())
}

#[test]
fn a_dead_process_leaves_the_page_cache_and_nothing_more_is_durable() {
    let (disk, _file) = overwritten();
    create(&disk, "/g");
    let next = disk.crash(&CrashPolicy::KeepAll);
    assert_eq!(read(&next, "/f"), mix(|_| true));
    assert_eq!(names(&next), ["/f", "/g"]);
    let next = next.crash(&CrashPolicy::LoseAll);
    assert_eq!(read(&next, "/f"), mix(|_| false));
    assert_eq!(names(&next), ["/f"]);
    assert_eq!(next.counts().faults(FaultKind::ProcessCrash), 1);
    assert_eq!(next.counts().faults(FaultKind::PowerCut), 1);
}

#[test]
fn a_power_cut_loses_what_was_not_flushed_and_nothing_else() {
    let (disk, file) = overwritten();
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), mix(|_| false));
    file.sync_data().expect("flush");
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), mix(|_| true));
    write(&file, 1280, &[NEW; 10]);
    file.allocate(0, 5000).expect("allocate");
    assert_eq!(
        after(&disk, CrashPolicy::LoseAll, "/f"),
        mix(|_| true),
        "nor does the length count"
    );
    file.sync_data().expect("flush");
    file.cut(3).expect("cut");
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f").expect("there").len(), 5000);
    file.sync_data().expect("flush");
    assert_eq!(after(&disk, CrashPolicy::LoseAll, "/f"), Some(vec![OLD; 3]));
}

#[test]
fn a_flush_is_about_its_file_alone_and_not_about_names() {
    let disk = SimDisk::new();
    let (one, two) = (create(&disk, "/one"), create(&disk, "/two"));
    write(&one, 0, b"1");
    write(&two, 0, b"2");
    one.sync_data().expect("flush");
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), [""; 0], "no name was flushed");
    disk.sync_dir(Path::new("/")).expect("sync");
    let next = disk.after_crash(&CrashPolicy::LoseAll);
    assert_eq!(read(&next, "/one"), Some(b"1".to_vec()));
    assert_eq!(read(&next, "/two"), Some(Vec::new()), "its bytes were not flushed");
}

#[test]
fn a_directory_is_flushed_by_itself_and_reached_only_through_those_above_it() {
    let disk = SimDisk::new();
    let path = Path::new;
    disk.mkdir(path("/a")).expect("mkdir");
    disk.mkdir(path("/a/b")).expect("mkdir");
    durable(&disk, "/a/b/f", b"x");
    disk.sync_dir(path("/a")).expect("sync");
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), [""; 0], "/a is not durable");
    disk.sync_dir(path("/")).expect("sync");
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), ["/a", "/a/b", "/a/b/f"]);
    // A whole directory moves with what is durable of it.
    disk.rename(path("/a/b"), path("/c")).expect("rename");
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), ["/a", "/a/b", "/a/b/f"]);
    disk.sync_dir(path("/a")).expect("sync");
    let next = disk.after_crash(&CrashPolicy::LoseAll);
    assert_eq!(names(&next), ["/a", "/c", "/c/f"], "a move is in both directories or in none");
    disk.unlink(path("/c/f")).expect("unlink");
    disk.remove_dir(path("/c")).expect("rmdir");
    assert_eq!(names(&disk), ["/a"]);
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), ["/a", "/c", "/c/f"]);
    disk.sync_dir(path("/")).expect("sync");
    assert_eq!(names(&disk.after_crash(&CrashPolicy::LoseAll)), ["/a"]);
}

#[test]
fn a_rename_leaves_the_old_file_or_the_new_one_and_never_two_names_of_one() {
    let disk = SimDisk::new();
    durable(&disk, "/f", b"old");
    let tmp = create(&disk, "/f.tmp");
    write(&tmp, 0, b"new");
    tmp.sync_data().expect("flush");
    disk.rename(Path::new("/f.tmp"), Path::new("/f")).expect("rename");
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let next = disk.after_crash(&CrashPolicy::Random(seed));
        outcomes.insert((names(&next), read(&next, "/f")));
    }
    let outcome = |names: &[&str], bytes: &[u8]| {
        (names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), Some(bytes.to_vec()))
    };
    let expected =
        [outcome(&["/f"], b"new"), outcome(&["/f"], b"old"), outcome(&["/f", "/f.tmp"], b"old")];
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn names_of_one_directory_are_lost_independently_but_not_out_of_order() {
    let disk = SimDisk::new();
    for path in ["/a", "/b", "/c"] {
        create(&disk, path);
    }
    disk.unlink(Path::new("/c")).expect("unlink");
    let keep = |kept: [bool; 4]| {
        let kept = kept.map(|kept| if kept { Kept::Whole } else { Kept::Lost });
        names(&disk.after_crash(&CrashPolicy::Exactly(kept.to_vec())))
    };
    assert_eq!(keep([false, true, false, false]), ["/b"]);
    assert_eq!(keep([true, false, true, false]), ["/a", "/c"]);
    assert_eq!(keep([false, false, true, true]), [""; 0]);
    assert_eq!(keep([false, false, false, true]), [""; 0], "it cannot go before it has come");
    // A directory that is gone was empty before.
    let disk = SimDisk::new();
    disk.mkdir(Path::new("/d")).expect("mkdir");
    durable(&disk, "/d/f", b"x");
    disk.sync_dir(Path::new("/")).expect("sync");
    disk.rename(Path::new("/d/f"), Path::new("/f")).expect("rename");
    disk.remove_dir(Path::new("/d")).expect("rmdir");
    let only_last = CrashPolicy::Exactly(vec![Kept::Lost, Kept::Whole]);
    assert_eq!(names(&disk.after_crash(&only_last)), ["/d", "/d/f"]);
}

#[test]
fn a_prefix_of_the_operations_is_kept_over_all_files_and_names() {
    let disk = SimDisk::new();
    let (one, two) = (durable(&disk, "/1", b"____"), durable(&disk, "/2", b"____"));
    write(&one, 0, b"a");
    write(&two, 0, b"b");
    create(&disk, "/3");
    write(&one, 1, b"c");
    let states: Vec<_> = (0..=5)
        .map(|operations| {
            let next = disk.after_crash(&CrashPolicy::Prefix(operations));
            let text = |path| String::from_utf8(read(&next, path).expect("there")).expect("text");
            (text("/1"), text("/2"), names(&next).len())
        })
        .collect();
    let state = |one: &str, two: &str, names| (one.to_owned(), two.to_owned(), names);
    let expected = [
        state("____", "____", 2),
        state("a___", "____", 2),
        state("a___", "b___", 2),
        state("a___", "b___", 3),
        state("ac__", "b___", 3),
        state("ac__", "b___", 3),
    ];
    assert_eq!(states, expected);
}

#[test]
fn the_last_write_is_cut_at_any_byte_with_anything_behind_the_cut() {
    let (disk, file) = overwritten();
    for bytes in 0..=1000 {
        let cut = 100 + bytes as usize;
        let rest = TornRest::Old;
        let left = after(&disk, CrashPolicy::CutLast { bytes, rest }, "/f");
        assert_eq!(left, mix(|at| at < cut), "cut at {bytes}");
    }
    let torn = |rest| after(&disk, CrashPolicy::CutLast { bytes: 20, rest }, "/f").expect("there");
    // The rest of the first sector, and nothing else.
    let expect = |fill: u8| {
        let mut bytes = mix(|at| at < 120).expect("some");
        bytes[120..512].fill(fill);
        bytes
    };
    assert_eq!(torn(TornRest::Zeros), expect(0));
    assert_eq!(torn(TornRest::Ones), expect(0xff));
    assert_eq!(torn(TornRest::Stale), expect(0), "it was never anything else before");
    let garbage = torn(TornRest::Random(7));
    assert_eq!((&garbage[..120], &garbage[512..]), (&expect(0)[..120], &expect(0)[512..]));
    assert!(garbage[120..512].iter().collect::<std::collections::BTreeSet<_>>().len() > 100);
    file.sync_data().expect("flush");
    write(&file, 0, &[b'x'; 512]);
    let stale = CrashPolicy::CutLast { bytes: 50, rest: TornRest::Stale };
    let left = after(&disk, stale, "/f").expect("there");
    assert_eq!((left[49], left[50], left[511], left[512]), (b'x', OLD, OLD, NEW));
}

#[test]
fn a_cut_write_makes_its_file_as_long_as_what_is_left_of_it() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"abc");
    write(&file, 3, b"defgh");
    create(&disk, "/later");
    let cut = |bytes| CrashPolicy::CutLast { bytes, rest: TornRest::Old };
    assert_eq!(after(&disk, cut(0), "/f"), Some(b"abc".to_vec()));
    assert_eq!(after(&disk, cut(2), "/f"), Some(b"abcde".to_vec()));
    assert_eq!(after(&disk, cut(9), "/f"), Some(b"abcdefgh".to_vec()));
    assert_eq!(after(&disk, cut(9), "/later"), None, "it came later");
}

#[test]
fn exactly_what_was_chosen_is_left() {
    let (disk, _file) = overwritten();
    create(&disk, "/g");
    let pending = disk.pending();
    let parts: Vec<ChangePart> = pending.iter().map(|change| change.part).collect();
    let bytes = |at, len| ChangePart::Bytes { at, len };
    assert_eq!(parts, [bytes(100, 412), bytes(512, 512), bytes(1024, 76), ChangePart::Names]);
    assert!(pending[..3].iter().all(|c| c.path.as_deref() == Some(Path::new("/f"))));
    assert_eq!(pending[3].path.as_deref(), Some(Path::new("/g")));
    assert!(pending[2].operation < pending[3].operation);
    for choice in 0..16u32 {
        let kept = |bit: u32| if choice >> bit & 1 == 1 { Kept::Whole } else { Kept::Lost };
        let next = disk.after_crash(&CrashPolicy::Exactly((0..4).map(kept).collect()));
        let expected = mix(|at| choice >> (at / 512) & 1 == 1);
        assert_eq!(read(&next, "/f"), expected, "{choice:04b}");
        assert_eq!(names(&next).len(), 1 + (choice >> 3) as usize);
    }
    let middle = Kept::Torn { bytes: 12, rest: TornRest::Ones };
    let next = disk.after_crash(&CrashPolicy::Exactly(vec![Kept::Lost, middle]));
    let mut expected = mix(|at| (512..524).contains(&at)).expect("some");
    expected[524..1024].fill(0xff);
    assert_eq!(read(&next, "/f"), Some(expected));
    assert_eq!(next.counts().faults(FaultKind::TornSector), 1);
    // The whole sector, and so what was durable in it.
    let garbled = CrashPolicy::Exactly(vec![Kept::Garbled { seed: 3 }]);
    let left = after(&disk, garbled, "/f").expect("there");
    assert_ne!(left[..100], [OLD; 100]);
    assert_eq!(left[512..], [OLD; 768]);
}

#[test]
fn lengths_are_lost_apart_from_the_bytes() {
    let disk = SimDisk::new();
    let file = durable(&disk, "/f", b"");
    file.allocate(0, 600).expect("allocate");
    write(&file, 598, b"end");
    file.cut(600).expect("cut");
    let parts: Vec<ChangePart> = disk.pending().iter().map(|change| change.part).collect();
    let expected = [
        ChangePart::Extend(600),
        ChangePart::Extend(601),
        ChangePart::Bytes { at: 598, len: 3 },
        ChangePart::Cut(600),
    ];
    assert_eq!(parts, expected);
    let len = |kept: [Kept; 4]| {
        let left = after(&disk, CrashPolicy::Exactly(kept.to_vec()), "/f").expect("there");
        (left.len(), left.last().copied())
    };
    use Kept::{Lost, Whole};
    assert_eq!(len([Whole, Lost, Lost, Lost]), (600, Some(0)));
    assert_eq!(len([Lost, Whole, Lost, Lost]), (601, Some(0)));
    assert_eq!(len([Lost, Lost, Whole, Lost]), (601, Some(b'd')));
    assert_eq!(len([Lost, Lost, Whole, Whole]), (600, Some(b'n')));
    assert_eq!(len([Lost, Lost, Lost, Whole]), (600, Some(0)));
}

#[test]
fn what_is_durable_now_is_what_the_worst_power_cut_leaves() {
    for seed in 0..50 {
        let disk = enumeration::scribbled(seed, 40);
        let lost = disk.after_crash(&CrashPolicy::LoseAll);
        assert_eq!(disk.durable_contents(), lost.contents(), "seed {seed}");
        for (path, bytes) in disk.durable_contents() {
            assert_eq!(disk.durable_file(&path), bytes, "seed {seed}");
        }
        assert_eq!(disk.after_crash(&CrashPolicy::KeepAll).contents(), disk.contents());
        disk.flush_all();
        assert_eq!(disk.pending(), []);
        assert_eq!(disk.durable_contents(), disk.contents(), "seed {seed}");
    }
}

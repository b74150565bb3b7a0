//! That the harness finds what is planted, and that some of its points hold.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use quorumlog::simulation::{CrashPolicy, Damage, Fault, OpKind, Ops, Rule, SimDisk, When};

use super::crashes::Crashes;
use super::cuts::Cuts;
use super::damage::{Look, outcome};
use super::files::Files;
use super::flips::Flips;
use super::host::{Host, Stop};
use super::io_errors::IoErrors;
use super::judge::examine;
use super::model::Model;
use super::sample::{LOG, Sample};
use super::scenarios;
use super::script::Script;
use super::tally::{Address, Family, Outcome, Tally};

fn script(name: &str) -> Script {
    scenarios::all().into_iter().find(|script| script.name == name).expect("it is one of them")
}

fn sample() -> &'static Arc<Sample> {
    static SAMPLE: OnceLock<Arc<Sample>> = OnceLock::new();
    SAMPLE.get_or_init(|| Arc::new(Sample::new()))
}

/// Runs a scenario to its end, and gives what must hold then.
fn run(disk: &SimDisk, script: &Script) -> Model {
    let mut host = Host::new(disk, script);
    assert!(host.run().is_ok());
    std::mem::take(&mut host.model)
}

/// Tries one in so many of a family's parts.
fn try_some(family: &dyn Family, step: usize) -> Tally {
    let mut tally = Tally::new(&family.name(), None);
    for unit in (0..family.units()).step_by(step) {
        family.try_unit(unit, &mut tally);
    }
    tally
}

#[track_caller]
fn assert_sound(tally: &Tally, points: u64) {
    let why = tally.failures.first().map(|failure| format!("{} {}", failure.at, failure.why));
    assert!(tally.is_sound(), "{}: {}", tally.family, why.unwrap_or_default());
    assert!(tally.points >= points, "{}: {} points", tally.family, tally.points);
}

#[test]
fn some_crashes_and_failing_calls_of_every_scenario_lose_nothing() {
    for script in scenarios::all() {
        assert_sound(&try_some(&Crashes::new(script.clone(), 97), 41), 5);
        assert_sound(&try_some(&IoErrors::new(script), 167), 5);
    }
}

#[test]
fn some_damage_of_every_file_is_found_or_harmless() {
    let sample = sample();
    assert_sound(&try_some(&Cuts::new(sample, 41), 3), 100);
    assert_sound(&try_some(&Flips::new("all", sample, sample.files(), 997), 1), 900);
    assert_sound(&try_some(&Files::sectors(sample), 23), 500);
    assert_sound(&try_some(&Files::whole(sample), 2), 300);
    assert_sound(&try_some(&Files::earlier(sample), 1), 10);
}

#[test]
fn the_sample_has_one_of_everything() {
    let sample = sample();
    assert!(sample.active().bytes.len() >= 65_536, "places to cut at");
    assert!(sample.layout.end() >= 60_000 && sample.layout.groups.len() > 80);
    assert_eq!(sample.segments.len(), 4, "two full ones, a cut one, the active one");
    assert_eq!(sample.checkpoints.len(), 3);
    assert!(sample.logs[&LOG].boundary.is_some() && sample.logs[&LOG].vote.is_some());
    let active = sample.active();
    let alike = |at: usize| active.bytes[at] == active.stale[at];
    assert!((4096..60_000).filter(|at| alike(*at)).count() > 30_000, "an earlier use, same shapes");
    let untouched = outcome(sample, &sample.copy(), &[], Look::PLAIN);
    assert_eq!(untouched, Outcome::Repaired, "as it was");
}

#[test]
fn a_disk_that_lies_about_flushes_is_caught_losing_what_was_acknowledged() {
    for script in scenarios::all() {
        let disk = SimDisk::with_seed(1);
        disk.set_lying(true);
        let model = run(&disk, &script);
        let judged = examine(&disk.after_crash(&CrashPolicy::LoseAll), &script, &model);
        assert!(judged.is_err(), "{}", script.name);
    }
}

#[test]
fn a_write_that_never_reaches_the_disk_is_caught() {
    for (name, path) in [("append", ".seg"), ("vote", "VOTE")] {
        let script = script(name);
        let disk = SimDisk::with_seed(1);
        let (ops, when) = (Ops::Kind(OpKind::Write), When::From(3));
        disk.inject(Rule { ops, path: path.to_owned(), when, fault: Fault::LostWrite });
        let model = run(&disk, &script);
        let judged = examine(&disk.after_crash(&CrashPolicy::LoseAll), &script, &model);
        assert!(judged.is_err(), "{name}");
    }
}

#[test]
fn an_acknowledged_entry_that_is_gone_is_named() {
    let script = script("append");
    let disk = SimDisk::with_seed(1);
    let model = run(&disk, &script);
    let path = Path::new("/data/logs/0000000000000007/0000000000000001.seg");
    disk.flush_all();
    let end = super::layout::Layout::of(&super::host::bytes_of(&disk, path));
    // The last entry with its witness.
    let last = end.groups.iter().rfind(|group| group.entries > 0).expect("a group").at;
    disk.tamper(path, |bytes| bytes[last..].fill(0));
    let why = examine(&disk, &script, &model).expect_err("an entry is gone");
    assert!(why.contains("it must hold"), "{why}");
}

#[test]
fn a_checkpoint_that_is_gone_and_a_cluster_that_is_forgotten_are_named() {
    let script = script("join");
    let disk = SimDisk::with_seed(1);
    let mut model = run(&disk, &script);
    assert_eq!(examine(&disk, &script, &model), Ok(()));
    let noted = std::mem::replace(&mut model.dir.cluster, (9, 9));
    let why = examine(&disk, &script, &model).expect_err("it was never noted");
    assert!(why.contains("cluster"), "{why}");
    model.dir.cluster = noted;
    let log = model.logs.get_mut(&5).expect("it is there");
    let id = super::script::id(6, 904);
    log.checkpoints.insert(id, (b"a state".as_slice().into(), true));
    let why = examine(&disk, &script, &model).expect_err("it was never saved");
    assert!(why.contains("is gone"), "{why}");
}

#[test]
fn wrong_entries_and_silent_loss_are_told_from_damage_that_was_found() {
    let sample = sample();
    let active = &sample.active().path;
    let judge = |sample: &Sample, disk: &SimDisk, look| {
        outcome(sample, disk, std::slice::from_ref(active), look)
    };
    // What an engine without checks would give: the sample is as it was, and other things were expected.
    let mut other = Sample::new();
    other.entries[40].payload = b"another".as_slice().into();
    assert!(matches!(judge(&other, &sample.copy(), Look::PLAIN), Outcome::Wrong(_)));
    let mut other = Sample::new();
    other.checkpoints[1].1[0] ^= 1;
    assert!(matches!(judge(&other, &sample.copy(), Look::PLAIN), Outcome::Wrong(_)));

    let flipped = sample.copy();
    flipped.damage(active, &Damage::FlipBit(8 * 5000));
    assert_eq!(judge(sample, &flipped, Look::PLAIN), Outcome::Detected);
    let cut = sample.copy();
    cut.damage(active, &Damage::Truncate(50_000));
    assert!(matches!(judge(sample, &cut, Look::PLAIN), Outcome::Wrong(_)), "shorter");
    let cut = sample.copy();
    cut.damage(active, &Damage::Truncate(50_000));
    let look = Look { unwitnessed: true, ..Look::PLAIN };
    assert_eq!(judge(sample, &cut, look), Outcome::Unwitnessed);
}

#[test]
fn a_vote_of_one_slot_is_repaired() {
    let sample = sample();
    let path = PathBuf::from("/data/logs/0000000000000007/VOTE");
    let disk = sample.copy();
    disk.damage(&path, &Damage::FlipBit(77));
    assert_eq!(outcome(sample, &disk, &[path], Look::PLAIN), Outcome::Repaired);
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged() {
    let script = script("append");
    let disk = SimDisk::with_seed(1);
    disk.inject(Rule {
        ops: Ops::Kind(OpKind::Flush),
        path: ".seg".to_owned(),
        when: When::Nth(3),
        fault: Fault::Eio,
    });
    let mut host = Host::new(&disk, &script);
    assert!(matches!(host.run(), Err(Stop::Failed)));
    assert_eq!(host.check_poisoned(), Ok(()));
}

#[test]
fn a_point_is_tried_again_by_its_address() {
    let family = Crashes::new(script("vote"), 1);
    let mut all = Tally::new("crash-vote", None);
    family.try_unit(60, &mut all);
    for at in ["60:0", "60:1:2:0"] {
        let at: Address = at.parse().expect("an address");
        let mut one = Tally::new("crash-vote", Some(at.clone()));
        family.try_unit(family.unit_of(at.0[0]), &mut one);
        assert_eq!((one.points, one.harmless), (1, 1), "{at}");
    }
}

//! Each call of a scenario fails, once or from then on, and so does each call of a recovery.

use quorumlog::simulation::{CrashPolicy, Fault, OpKind, Ops, Rule, SimDisk, When};

use super::crashes::judged;
use super::host::{Host, Recovered, Stop};
use super::script::Script;
use super::tally::{Family, Outcome, Tally};

/// Ways to fail, by their numbers.
const WAYS: u64 = 6;
/// The disk is full for a while.
const FULL: u64 = 5;
/// Of the calls of a scenario, one in so many is a place from which a recovery is made to fail.
const RECOVERY_EVERY: u64 = 9;

/// The first way in which a call of the recovery fails; those below are for the scenario.
const RECOVERY: u64 = 100;

/// See the module.
pub(crate) struct IoErrors {
    script: Script,
    operations: u64,
}

impl IoErrors {
    pub(crate) fn new(script: Script) -> Self {
        let disk = SimDisk::with_seed(1);
        let mut host = Host::new(&disk, &script);
        let done = host.run();
        assert!(done.is_ok(), "{} fails without a fault: {done:?}", script.name);
        let operations = operations(&disk);
        Self { script, operations }
    }

    /// The scenario, with one call that fails; then a crash.
    fn fail_scenario(&self, nth: u64, way: u64) -> Outcome {
        let disk = SimDisk::with_seed(1);
        inject(&disk, nth, way);
        let mut host = Host::new(&disk, &self.script);
        if let Err(Stop::Wrong(why)) = host.run() {
            return Outcome::Wrong(why);
        }
        if way == FULL && host.is_poisoned() {
            return Outcome::Wrong("a full disk has poisoned a log".to_owned());
        }
        if let Err(why) = host.check_poisoned() {
            return Outcome::Wrong(why);
        }
        let model = std::mem::take(&mut host.model);
        drop(host);
        disk.clear_rules();
        for policy in [CrashPolicy::LoseAll, CrashPolicy::KeepAll, CrashPolicy::Random(nth)] {
            if let Outcome::Wrong(why) = judged(&disk.after_crash(&policy), &self.script, &model) {
                return Outcome::Wrong(format!("after {policy:?}: {why}"));
            }
        }
        Outcome::Harmless
    }

    /// A crash at the `nth` call, and a recovery with a call that fails; then another recovery.
    fn fail_recovery(&self, nth: u64, tally: &mut Tally) {
        let disk = SimDisk::with_seed(1);
        let (ops, when) = (Ops::Any, When::Nth(nth));
        disk.inject(Rule { ops, path: String::new(), when, fault: Fault::Halt });
        let mut host = Host::new(&disk, &self.script);
        if host.run().is_ok() {
            return;
        }
        let model = std::mem::take(&mut host.model);
        drop(host);
        let left = disk.after_crash(&CrashPolicy::Random(nth));
        for again in 0.. {
            let mut is_reached = false;
            for way in 0..WAYS {
                let at = [nth, RECOVERY + way, again];
                let disk = left.after_crash(&CrashPolicy::KeepAll);
                let before = operations(&disk);
                inject(&disk, again, way);
                let recovered = Recovered::open(&disk, &self.script, &model);
                is_reached |= operations(&disk) - before > again;
                drop(recovered);
                disk.clear_rules();
                tally.point(&at, || {
                    for policy in [CrashPolicy::KeepAll, CrashPolicy::Random(again)] {
                        let left = disk.after_crash(&policy);
                        if let Outcome::Wrong(why) = judged(&left, &self.script, &model) {
                            return Outcome::Wrong(format!("after {policy:?}: {why}"));
                        }
                    }
                    Outcome::Harmless
                });
            }
            if !is_reached {
                return;
            }
        }
    }
}

impl Family for IoErrors {
    fn name(&self) -> String {
        format!("io-error-{}", self.script.name)
    }

    fn units(&self) -> u64 {
        self.operations
    }

    fn unit_of(&self, first: u64) -> u64 {
        first
    }

    fn try_unit(&self, unit: u64, tally: &mut Tally) {
        for way in 0..WAYS {
            tally.point(&[unit, way], || self.fail_scenario(unit, way));
        }
        if unit.is_multiple_of(RECOVERY_EVERY) || !tally.is_whole() {
            self.fail_recovery(unit, tally);
        }
    }
}

/// Makes the `nth` operation fail in one of the ways.
fn inject(disk: &SimDisk, nth: u64, way: u64) {
    let rule = |ops, when, fault| disk.inject(Rule { ops, path: String::new(), when, fault });
    match way {
        0 => rule(Ops::Any, When::Nth(nth), Fault::Eio),
        1 => rule(Ops::Any, When::Nth(nth), Fault::NoSpace),
        2 => rule(Ops::Any, When::Nth(nth), Fault::Short),
        3 => rule(Ops::Any, When::Nth(nth), Fault::TornFlush { seed: nth }),
        // The disk is gone.
        4 => rule(Ops::Any, When::From(nth), Fault::Eio),
        _ => {
            for kind in [OpKind::Allocate, OpKind::Create, OpKind::MakeDir] {
                rule(Ops::Kind(kind), When::From(nth / 8), Fault::NoSpace);
            }
        }
    }
}

fn operations(disk: &SimDisk) -> u64 {
    let counts = disk.counts();
    OpKind::ALL.into_iter().map(|kind| counts.operations(kind)).sum()
}

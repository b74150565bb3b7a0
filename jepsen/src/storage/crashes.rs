//! A crash at every call of a scenario, whatever it leaves, and again at every call of the recovery.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use quorumlog::simulation::{
    ChangePart, CrashPolicy, Fault, Kept, PendingChange, SimDisk, TornRest,
};

use super::host::{Host, Recovered, Stop};
use super::judge::examine;
use super::model::Model;
use super::script::Script;
use super::tally::{Family, Outcome, Tally};

/// With so few changes pending, every subset of them is tried.
const SUBSETS_MAX: usize = 6;
/// Random choices of what is kept.
const SAMPLES: u64 = 8;

/// See the module.
pub(crate) struct Crashes {
    script: Script,
    changes: u64,
    /// Of the disks that a crash leaves, one in so many is crashed again.
    sampling: u64,
    /// Disks that were examined, with what they were to hold.
    seen: Mutex<BTreeSet<u64>>,
}

impl Crashes {
    /// # Panics
    /// If the script fails on a disk without faults.
    pub(crate) fn new(script: Script, sampling: u64) -> Self {
        let disk = SimDisk::with_seed(1);
        let mut host = Host::new(&disk, &script);
        let done = host.run();
        assert!(done.is_ok(), "{} fails without a fault: {done:?}", script.name);
        let changes = disk.changes();
        Self { script, changes, sampling, seen: Mutex::default() }
    }

    /// True the first time for a disk that is to hold the same.
    fn is_new(&self, disk: &SimDisk, moment: u64, tally: &Tally) -> bool {
        let mut hasher = DefaultHasher::new();
        moment.hash(&mut hasher);
        for contents in [disk.contents(), disk.durable_contents()] {
            for (path, image) in contents {
                path.hash(&mut hasher);
                image.map(|image| (image.len(), image.crc())).hash(&mut hasher);
            }
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(hasher.finish()) || !tally.is_whole()
    }

    /// Crashes the recovery of `image` at each of its calls.
    fn crash_again(&self, image: &SimDisk, model: &Model, at: [u64; 2], tally: &mut Tally) {
        for again in 0.. {
            if !tally.wants(&[at[0], at[1], again]) {
                if again > self.changes {
                    return;
                }
                continue;
            }
            let disk = image.after_crash(&CrashPolicy::KeepAll);
            disk.fail_nth_change(again, Fault::Halt);
            // It fails where the machine halts; what it had recovered until then is on the disk.
            let recovered = Recovered::open(&disk, &self.script, model);
            let halted = disk.is_dead();
            drop(recovered);
            for (number, policy) in (0..).zip(policies(&disk.pending(), 2)) {
                let at = [at[0], at[1], again, number];
                if !tally.wants(&at) {
                    continue;
                }
                let left = disk.after_crash(&policy);
                if self.is_new(&left, at[0], tally) {
                    tally.point(&at, || judged(&left, &self.script, model));
                }
            }
            if !halted {
                return;
            }
        }
    }
}

impl Family for Crashes {
    fn name(&self) -> String {
        format!("crash-{}", self.script.name)
    }

    fn units(&self) -> u64 {
        self.changes + 1
    }

    fn unit_of(&self, first: u64) -> u64 {
        first
    }

    fn try_unit(&self, unit: u64, tally: &mut Tally) {
        let disk = SimDisk::with_seed(1);
        disk.fail_nth_change(unit, Fault::Halt);
        let mut host = Host::new(&disk, &self.script);
        if let Err(Stop::Wrong(why)) = host.run() {
            return tally.point(&[unit], || Outcome::Wrong(why));
        }
        let model = std::mem::take(&mut host.model);
        drop(host);
        for (number, policy) in (0..).zip(policies(&disk.pending(), SAMPLES)) {
            if !tally.wants(&[unit, number]) {
                continue;
            }
            let left = disk.after_crash(&policy);
            if !self.is_new(&left, unit, tally) {
                continue;
            }
            tally.point(&[unit, number], || judged(&left, &self.script, &model));
            if (unit + number).is_multiple_of(self.sampling) || !tally.is_whole() {
                self.crash_again(&left, &model, [unit, number], tally);
            }
        }
    }
}

/// Recovers what a crash has left, and judges it.
pub(crate) fn judged(left: &SimDisk, script: &Script, model: &Model) -> Outcome {
    match examine(left, script, model) {
        Ok(()) => Outcome::Harmless,
        Err(why) => Outcome::Wrong(why),
    }
}

/// What a crash may leave of the pending changes: nothing, everything, each prefix; all subsets if
/// there are few, else some; all writes torn; and the last write cut in several places, with several things
/// behind the cut.
pub(crate) fn policies(pending: &[PendingChange], samples: u64) -> Vec<CrashPolicy> {
    let mut policies = vec![CrashPolicy::LoseAll, CrashPolicy::KeepAll];
    let mut operations: Vec<u64> = pending.iter().map(|change| change.operation).collect();
    operations.dedup();
    policies.extend((1..=operations.len() as u64).map(CrashPolicy::Prefix));
    if pending.len() <= SUBSETS_MAX {
        for subset in 1..1 << pending.len() {
            let kept = |at: usize| if subset >> at & 1 == 1 { Kept::Whole } else { Kept::Lost };
            policies.push(CrashPolicy::Exactly((0..pending.len()).map(kept).collect()));
        }
    } else {
        policies.extend((0..samples).map(|seed| CrashPolicy::Random(seed * 31 + 7)));
        let step = pending.len().div_ceil(samples.max(1) as usize);
        for lost in (0..pending.len()).step_by(step) {
            let kept = |at: usize| if at == lost { Kept::Lost } else { Kept::Whole };
            policies.push(CrashPolicy::Exactly((0..pending.len()).map(kept).collect()));
        }
    }
    // Every write torn, each in its own sector.
    for rest in [TornRest::Ones, TornRest::Stale] {
        let kept = |change: &PendingChange| match change.part {
            ChangePart::Bytes { len, .. } => Kept::Torn { bytes: len / 2, rest },
            _ => Kept::Whole,
        };
        policies.push(CrashPolicy::Exactly(pending.iter().map(kept).collect()));
    }
    let write = pending.iter().rfind(|change| matches!(change.part, ChangePart::Bytes { .. }));
    let Some(last) = write.map(|change| change.operation) else { return policies };
    let parts = pending.iter().filter(|change| change.operation == last);
    let len: u64 = parts
        .map(|change| if let ChangePart::Bytes { len, .. } = change.part { len } else { 0 })
        .sum();
    let rests =
        [TornRest::Old, TornRest::Zeros, TornRest::Ones, TornRest::Stale, TornRest::Random(len)];
    let cuts = [1, 55, 56, 104, len / 2, len.saturating_sub(1)];
    let cuts: BTreeSet<u64> = cuts.into_iter().filter(|bytes| (1..len).contains(bytes)).collect();
    for (at, bytes) in cuts.into_iter().enumerate() {
        // A few of them suffice where much is sampled anyway.
        let few = if samples < SAMPLES { 1 } else { rests.len() };
        let some = rests.iter().cycle().skip(at).take(few);
        policies.extend(some.map(|&rest| CrashPolicy::CutLast { bytes, rest }));
    }
    policies
}

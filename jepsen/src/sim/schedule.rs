//! The faults of a run, as data: what, when, to whom, for how long.

use std::fmt;
use std::ops::Range;

use super::fault::Fault;
use super::profile::{Profile, ProfileKind};
use super::random::Random;

/// Who is hit, found when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The leader of the first log.
    Leader,
    /// A node that does not lead it.
    Follower,
    /// Any.
    Any,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Its number in the whole schedule; stays when others are left out.
    pub(crate) id: usize,
    /// When, from the beginning of the faults.
    pub(crate) at_ms: u64,
    pub(crate) fault: Fault,
    pub(crate) target: Target,
    /// How long it lasts, for those that last.
    pub(crate) for_ms: u64,
    /// What else is to be drawn for it; its own, so that leaving others out changes nothing here.
    pub(crate) salt: u64,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, at_ms, fault, target, for_ms, .. } = self;
        let target = match target {
            Target::Leader => "the leader",
            Target::Follower => "a follower",
            Target::Any => "any node",
        };
        write!(f, "{id:>4}  {at_ms:>6} ms  {fault:<22} {target}, {for_ms} ms")
    }
}

/// How often each fault is drawn, where it is allowed.
const WEIGHTS: [(Fault, u64); 40] = [
    (Fault::Kill, 10),
    (Fault::PowerCut, 8),
    (Fault::PowerCutAll, 3),
    (Fault::CrashAtDiskOp, 6),
    (Fault::PowerCutAtDiskOp, 8),
    (Fault::Pause, 8),
    (Fault::Drift, 4),
    (Fault::ClockStep, 4),
    (Fault::PartitionHalves, 4),
    (Fault::PartitionSingle, 5),
    (Fault::MajorityRing, 3),
    (Fault::Bridge, 3),
    (Fault::OneWay, 5),
    (Fault::LeaderWithMinority, 4),
    (Fault::LinkSlow, 5),
    (Fault::LinkReset, 6),
    (Fault::LinkCorrupt, 3),
    (Fault::BusDrop, 5),
    (Fault::BusDuplicate, 5),
    (Fault::BusReorder, 5),
    (Fault::BusLate, 5),
    (Fault::DiskError, 6),
    (Fault::FailedFlush, 5),
    (Fault::DiskFull, 4),
    (Fault::ShortWrite, 4),
    (Fault::SlowFlush, 5),
    (Fault::StuckFlush, 4),
    (Fault::BitRot, 2),
    (Fault::ZeroedSector, 2),
    (Fault::StaleSector, 2),
    (Fault::SwappedSectors, 2),
    (Fault::Transfer, 8),
    (Fault::Join, 5),
    (Fault::Leave, 5),
    (Fault::Replace, 4),
    (Fault::WipedReturn, 3),
    (Fault::Trim, 8),
    (Fault::Checkpoint, 5),
    (Fault::CreateLog, 4),
    (Fault::DeleteLog, 3),
];

/// The same for a run about leaders that lose touch.
const OF_LEADERS: [(Fault, u64); 5] = [
    (Fault::LateAnswers, 12),
    (Fault::OneWay, 2),
    (Fault::PartitionSingle, 2),
    (Fault::Pause, 3),
    (Fault::Transfer, 1),
];

/// The same for a run about nodes that lose power.
const OF_LOST_PAGES: [(Fault, u64); 23] = [
    (Fault::PowerCut, 30),
    (Fault::PowerCutAll, 12),
    (Fault::FailedFlush, 5),
    (Fault::DiskError, 3),
    (Fault::Replace, 4),
    (Fault::Leave, 2),
    (Fault::PowerCutAtDiskOp, 15),
    (Fault::CheckpointCut, 3),
    (Fault::Kill, 12),
    (Fault::CrashAtDiskOp, 6),
    (Fault::Pause, 6),
    (Fault::PartitionSingle, 8),
    (Fault::OneWay, 5),
    (Fault::LeaderWithMinority, 5),
    (Fault::LinkSlow, 3),
    (Fault::LinkReset, 4),
    (Fault::BusDrop, 4),
    (Fault::BusLate, 4),
    (Fault::SlowFlush, 5),
    (Fault::StuckFlush, 5),
    (Fault::Transfer, 8),
    (Fault::Trim, 4),
    (Fault::Checkpoint, 3),
];

/// Faults that came to the seeds later, with how many intervals lie between two of them. Each has a stream of
/// its own and numbers behind all others, so that the rest of a schedule stays what it was.
const ADDED: [(Fault, Target, u64); 4] = [
    (Fault::ReadError, Target::Any, 5),
    (Fault::CheckpointCut, Target::Any, 12),
    (Fault::LateAnswers, Target::Leader, 8),
    (Fault::Move, Target::Any, 10),
];

/// The same for a run about nodes that lose power.
const ADDED_OF_LOST_PAGES: [(Fault, Target, u64); 1] = [(Fault::LoneSurvivor, Target::Leader, 2)];

/// Of the longest election timeout: so long do nodes that lost pages wait for those that did not, before one of them is
/// elected, and for that election.
const SURVIVOR_CUT_OFF: u64 = 8 + 3;

/// How long a disk is stuck before its node saves a state and loses its power.
pub(super) const CHECKPOINT_CUT_MS: Range<u64> = 20..80;
/// Of the faults while a survivor is cut off, so many of a hundred happen: each start of a node that lost pages has it wait
/// once more.
const BESIDE_SURVIVOR_PERCENT: u64 = 10;

/// The faults of a run, in the order of their times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) faults: Vec<Planned>,
}

impl Schedule {
    /// The schedule of a seed.
    pub(crate) fn new(profile: &Profile) -> Self {
        let mut random = Random::of(profile.seed, "schedule");
        let leaders = profile.kind == ProfileKind::Leaders;
        let (weights, added) = match profile.kind {
            ProfileKind::Leaders => (&OF_LEADERS[..], &[][..]),
            ProfileKind::Async => (&OF_LOST_PAGES[..], &ADDED_OF_LOST_PAGES[..]),
            ProfileKind::Dense | ProfileKind::Long | ProfileKind::Broker => {
                (&WEIGHTS[..], &ADDED[..])
            }
        };
        let weights: Vec<_> =
            weights.iter().copied().filter(|(fault, _)| profile.allows(*fault)).collect();
        let mut faults = Vec::new();
        let mut at_ms = random.within(profile.fault_interval_ms.clone());
        while at_ms < profile.chaos_ms && !weights.is_empty() {
            let fault = random.weighted(&weights);
            let target =
                random.weighted(&[(Target::Leader, 4), (Target::Follower, 3), (Target::Any, 3)]);
            let target = if leaders { Target::Leader } else { target };
            let for_ms = duration(fault, profile, &mut random);
            let id = faults.len();
            faults.push(Planned { id, at_ms, fault, target, for_ms, salt: random.next() });
            at_ms += random.within(profile.fault_interval_ms.clone());
        }
        for &(fault, target, intervals) in added.iter().filter(|added| profile.allows(added.0)) {
            let gap_ms = 2 * intervals * profile.fault_interval_ms.end;
            add(fault, target, gap_ms, profile, &mut faults);
        }
        leave_survivors_alone(&mut faults);
        faults.sort_by_key(|planned| planned.at_ms);
        Self { faults }
    }

    /// Only the faults with these numbers.
    pub(crate) fn keep(mut self, ids: &[usize]) -> Self {
        self.faults.retain(|planned| ids.contains(&planned.id));
        self
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.iter().try_for_each(|planned| writeln!(f, "{planned}"))
    }
}

/// Adds faults of one kind, less than `gap_ms` from one to the next.
fn add(fault: Fault, target: Target, gap_ms: u64, profile: &Profile, faults: &mut Vec<Planned>) {
    let mut random = Random::of(profile.seed, fault.name());
    let mut at_ms = random.within(0..gap_ms);
    while at_ms < profile.chaos_ms {
        let for_ms = duration(fault, profile, &mut random);
        let id = faults.len();
        faults.push(Planned { id, at_ms, fault, target, for_ms, salt: random.next() });
        let lasts_ms = if fault == Fault::LoneSurvivor { for_ms } else { 0 };
        at_ms += lasts_ms + random.within(0..gap_ms);
    }
}

/// Takes out most of what would happen while a survivor is cut off.
fn leave_survivors_alone(faults: &mut Vec<Planned>) {
    let survivors = faults.iter().filter(|planned| planned.fault == Fault::LoneSurvivor);
    let cut_off: Vec<_> = survivors.map(|of| of.at_ms..of.at_ms + of.for_ms).collect();
    faults.retain(|planned| {
        planned.fault == Fault::LoneSurvivor
            || !cut_off.iter().any(|times| times.contains(&planned.at_ms))
            || Random::new(planned.salt).percent(BESIDE_SURVIVOR_PERCENT)
    });
}

/// Some faults are over in a moment, some outlast an election.
fn duration(fault: Fault, profile: &Profile, random: &mut Random) -> u64 {
    let election = profile.election_ms.end;
    match fault {
        // Until the process is started again.
        Fault::Kill
        | Fault::Move
        | Fault::CrashAtDiskOp
        | Fault::PowerCut
        | Fault::PowerCutAtDiskOp => random.pick(&[1, 20, election / 2, election * 2]),
        Fault::PowerCutAll => random.pick(&[1, 50, election]),
        Fault::Pause | Fault::StuckFlush => random.pick(&[10, election / 2, election * 2]),
        Fault::CheckpointCut => random.within(CHECKPOINT_CUT_MS),
        Fault::LinkReset | Fault::LinkCorrupt => random.within(20..200),
        Fault::LoneSurvivor => election * SURVIVOR_CUT_OFF,
        // Others have elected the next leader after one timeout; requests wait for their answers for two.
        Fault::LateAnswers => random.within(election..election * 2),
        _ => random.pick(&[election / 2, election, election * 2, election * 3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_schedules_have_a_fault_every_100_to_300_ms_and_overlap() {
        for seed in 0..50 {
            let profile = Profile::new(ProfileKind::Dense, seed);
            let mut faults = Schedule::new(&profile).faults;
            assert!(faults.is_sorted_by_key(|planned| planned.at_ms), "seed {seed}");
            faults.retain(|planned| ADDED.iter().all(|(added, ..)| planned.fault != *added));
            assert!((16..=50).contains(&faults.len()), "seed {seed}: {}", faults.len());
            let gaps = faults.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms);
            assert!(gaps.into_iter().all(|gap| (100..300).contains(&gap)));
        }
    }

    #[test]
    fn a_schedule_about_leaders_aims_at_them_and_breaks_no_disk() {
        let faults: Vec<Planned> = (0..50)
            .flat_map(|seed| Schedule::new(&Profile::new(ProfileKind::Leaders, seed)).faults)
            .collect();
        assert!(faults.iter().all(|planned| planned.target == Target::Leader));
        assert!(faults.iter().all(|planned| OF_LEADERS.iter().any(|of| of.0 == planned.fault)));
        let late = faults.iter().filter(|planned| planned.fault == Fault::LateAnswers).count();
        assert!(2 * late > faults.len(), "{late} of {}", faults.len());
    }

    #[test]
    fn survivors_come_one_after_the_other_and_little_else_happens_meanwhile() {
        let mut beside = 0;
        for seed in 0..100 {
            let faults = Schedule::new(&Profile::new(ProfileKind::Async, seed)).faults;
            for survivor in faults.iter().filter(|planned| planned.fault == Fault::LoneSurvivor) {
                let times = survivor.at_ms..survivor.at_ms + survivor.for_ms;
                let others = faults.iter().filter(|other| times.contains(&other.at_ms));
                assert_eq!(others.clone().filter(|other| other.fault == survivor.fault).count(), 1);
                beside += usize::from(others.count() > 1);
            }
        }
        assert!(beside > 10, "{beside}");
    }

    #[test]
    fn leaving_faults_out_changes_nothing_about_the_others() {
        let profile = Profile::new(ProfileKind::Dense, 3);
        let all = Schedule::new(&profile);
        let kept = all.clone().keep(&[2, 7]).faults;
        let same = all.faults.into_iter().filter(|planned| [2, 7].contains(&planned.id));
        assert_eq!(kept, same.collect::<Vec<_>>());
        assert_eq!(kept.len(), 2);
    }
}

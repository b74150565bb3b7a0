//! Space on disks: which records a leader still takes, and which entries a follower does, as space runs out.
//!
//! A disk has ample space, or only its reserve, or not even that. A leader looks at its own disk and at those of a
//! majority: a record that no majority can hold would keep back all that follow. Followers say in their answers how much
//! they have. Below the reserve they take all entries only if the leader says that it needs their disk: while a majority
//! has ample space, a full disk takes a little, stays behind and keeps its reserve.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::Instant;

use super::group::Group;
use crate::format::entry::ENTRY_HEADER;
use crate::format::group::GROUP_HEADER;
use crate::member::{NodeId, ReplicaId};
use crate::mutant::Mutant;
use crate::record::Priority;

/// The part of the reserve that no record may use: votes, cuts and manifests need a little.
const FLOOR_PART: u64 = 16;
const FLOOR_MAX: u64 = 1 << 20;
/// What records may use of the reserve in a second, and at once: the reserve lasts for an hour at least. As much again is
/// for entries that a follower takes of logs that could do without.
const RATE_PART: u64 = 4096;
const RATE_MIN: u64 = 4 << 10;
const BURST_PART: u64 = 64;
const BURST_MIN: u64 = 64 << 10;
/// What a follower uses of it in a second, and at once, for one log that could do without: enough to learn who leads, and
/// to keep up where little is sent.
const FOLLOWED_RATE: u64 = 4 << 10;
const FOLLOWED_BURST: u64 = 64 << 10;

/// How much space a disk has; more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Space {
    /// The reserve is used up.
    Exhausted = 0,
    /// Less is free than the reserve.
    Reserve = 1,
    Ample = 2,
}

impl Space {
    /// From its number. What a later build may say beyond them is ample.
    pub(super) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Exhausted,
            1 => Self::Reserve,
            _ => Self::Ample,
        }
    }
}

/// A [`Space`] that changes.
#[derive(Debug)]
struct Level(AtomicU8);

impl Level {
    fn get(&self) -> Space {
        Space::from_number(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, space: Space) {
        self.0.store(space as u8, Ordering::Relaxed);
    }
}

impl Default for Level {
    fn default() -> Self {
        Self(AtomicU8::new(Space::Ample as u8))
    }
}

/// The space of this node's disk, which all its logs share.
#[derive(Debug)]
pub(crate) struct DiskSpace {
    reserve: u64,
    free: AtomicU64,
    level: Level,
    /// For records that are proposed here.
    budget: Budget,
    /// For entries of other leaders, of all logs together.
    followed: Budget,
}

/// How much of the reserve may be used in a second, and at once.
#[derive(Debug)]
struct Budget {
    rate: u64,
    burst: u64,
    /// Bytes that may be used now, and when that was counted.
    left: Mutex<(u64, Instant)>,
}

impl Budget {
    fn new(rate: u64, burst: u64) -> Self {
        Self { rate, burst, left: Mutex::new((burst, Instant::now())) }
    }

    /// Of this reserve.
    fn of_reserve(reserve: u64) -> Self {
        Self::new((reserve / RATE_PART).max(RATE_MIN), (reserve / BURST_PART).max(BURST_MIN))
    }

    /// Takes `bytes`, if there are so many, and `kept` are left.
    fn spend(&self, bytes: u64, kept: u64) -> bool {
        self.with_left(|left| {
            let fits = *left >= bytes.saturating_add(kept);
            *left -= if fits { bytes } else { 0 };
            fits
        })
    }

    /// How much of what may be used at once is kept from such records, for those that matter more.
    fn kept_from(&self, priority: Priority) -> u64 {
        match priority {
            _ if Mutant::EssentialStarved.is_active() => 0,
            Priority::Normal | Priority::Reserved => self.burst / 4,
            Priority::Renewal => self.burst / 16 * 3,
            Priority::Preferred => self.burst / 8,
            Priority::Essential => 0,
        }
    }

    fn has(&self, bytes: u64) -> bool {
        self.with_left(|left| *left >= bytes)
    }

    /// Looks at what may be used now.
    fn with_left(&self, look: impl FnOnce(&mut u64) -> bool) -> bool {
        let mut held = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = *held;
        let now = Instant::now();
        let millis = u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX);
        let gained = self.rate.saturating_mul(millis) / 1000;
        if gained > 0 {
            *held = (left.saturating_add(gained).min(self.burst), now);
        }
        look(&mut held.0)
    }
}

impl DiskSpace {
    /// A disk that keeps `reserve` bytes free of ordinary records.
    pub(crate) fn new(reserve: u64) -> Self {
        Self {
            reserve,
            free: AtomicU64::new(u64::MAX),
            level: Level::default(),
            budget: Budget::of_reserve(reserve),
            followed: Budget::of_reserve(reserve),
        }
    }

    pub(crate) fn level(&self) -> Space {
        self.level.get()
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "for a gauge"))]
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Notes how much is free, and whether a log waits for space all the same. The level rises only an eighth above each
    /// bound, so that it does not flap. True if the level has changed.
    pub(crate) fn note(&self, free: u64, stalled: bool) -> bool {
        let before = self.level();
        let below = |bound: u64, was: bool| free < bound + if was { bound / 8 } else { 0 };
        let floor = (self.reserve / FLOOR_PART).min(FLOOR_MAX);
        let level = if below(floor, before == Space::Exhausted) {
            Space::Exhausted
        } else if stalled || below(self.reserve, before < Space::Ample) {
            Space::Reserve
        } else {
            Space::Ample
        };
        self.free.store(free, Ordering::Relaxed);
        self.level.set(level);
        level != before
    }
}

/// The space that decides on one log's appends.
#[derive(Debug)]
pub(crate) struct GroupSpace {
    disk: Arc<DiskSpace>,
    /// Of the other disks that are needed for a majority; ample on a node that does not lead.
    others: Level,
    followed: Budget,
}

impl GroupSpace {
    pub(crate) fn new(disk: Arc<DiskSpace>) -> Self {
        let followed = Budget::new(FOLLOWED_RATE, FOLLOWED_BURST);
        Self { disk, others: Level::default(), followed }
    }

    pub(crate) fn level(&self) -> Space {
        self.disk.level().min(self.others.get())
    }

    /// Whether a record of `bytes` is taken now.
    pub(crate) fn admits(&self, priority: Priority, bytes: u64) -> bool {
        match (self.level(), priority) {
            (Space::Ample, _) => true,
            (Space::Exhausted, _) | (_, Priority::Normal) => false,
            (Space::Reserve, _) if Mutant::PriorityIgnored.is_active() => false,
            (Space::Reserve, _) => {
                let stored = bytes + (ENTRY_HEADER + GROUP_HEADER) as u64;
                let budget = &self.disk.budget;
                budget.spend(stored, budget.kept_from(priority))
                    || Mutant::ReserveUnbounded.is_active()
            }
        }
    }

    /// Whether a follower takes entries of so many bytes; `needed` if its leader's majority has no space but the reserve.
    pub(super) fn takes_entries(&self, needed: bool, bytes: u64) -> bool {
        match self.disk.level() {
            Space::Ample => true,
            Space::Reserve if Mutant::ReserveKept.is_active() => false,
            Space::Reserve => needed || self.spend_followed(bytes),
            Space::Exhausted => false,
        }
    }

    /// One log takes little, and so do all together.
    fn spend_followed(&self, bytes: u64) -> bool {
        let all = &self.disk.followed;
        self.followed.has(bytes)
            && (all.spend(bytes, 0) || Mutant::FollowedUnbounded.is_active())
            && self.followed.spend(bytes, 0)
    }
}

/// What a peer last said about its disk, and when it answered.
#[derive(Debug, Default)]
pub(crate) struct PeerSpace(Mutex<Option<(Space, Instant)>>);

impl PeerSpace {
    pub(super) fn note(&self, space: Space) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((space, Instant::now()));
    }

    /// True if it has said that its disk is short of space, and nothing else since.
    pub(super) fn is_short(&self) -> bool {
        let told = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.is_some_and(|(space, _)| space < Space::Ample)
    }

    /// None if it has not answered for so long.
    fn within(&self, patience: Duration) -> Option<Space> {
        let told = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.filter(|(_, at)| at.elapsed() < patience).map(|(space, _)| space)
    }
}

/// The space that a majority has at least, by the space of each voter; none if no majority answers. `spaces` is not empty.
fn of_majority(mut spaces: Vec<Option<Space>>) -> Option<Space> {
    spaces.sort_unstable();
    spaces[(spaces.len() - 1) / 2]
}

impl Group {
    /// Looks at the space that a majority has. Call it now and then.
    pub(crate) fn note_space(&self) {
        let others = match self.leading_vote() {
            _ if self.log.stalled_for_space() => Space::Exhausted,
            Some(_) if Mutant::OtherDisksIgnored.is_active() => Space::Ample,
            Some(_) => self.majority_space(),
            None => Space::Ample,
        };
        self.space.others.set(others);
    }

    /// If no majority answers, appends are refused for that reason.
    fn majority_space(&self) -> Space {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let configs = server.membership_config.membership().get_joint_config();
        let of_config = configs
            .iter()
            .filter(|config| !config.is_empty())
            .map(|config| of_majority(config.iter().map(|voter| self.space_of(*voter)).collect()));
        of_config.min().flatten().unwrap_or(Space::Ample)
    }

    /// What a replica has; none if it has not answered lately.
    pub(super) fn space_of(&self, replica: ReplicaId) -> Option<Space> {
        if replica == self.replica {
            return Some(self.space.disk.level());
        }
        self.peers.space(replica).within(self.timing.election_timeout_max)
    }

    /// True if a node has said lately that its disk has ample space.
    pub(crate) fn has_ample_space(&self, node: NodeId) -> bool {
        let replica = self.voters().into_iter().find(|voter| voter.node == node);
        replica.and_then(|replica| self.space_of(replica)) == Some(Space::Ample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_majority_has_what_its_least_member_has_and_the_silent_count_as_none() {
        let (none, out, low, ample) =
            (None, Some(Space::Exhausted), Some(Space::Reserve), Some(Space::Ample));
        for (spaces, expected) in [
            (vec![low], low),
            (vec![ample, low], low),
            (vec![ample, low, ample], ample),
            (vec![ample, low, low], low),
            (vec![ample, low, none], low),
            (vec![ample, none, none], none),
            (vec![ample, out, low], low),
            (vec![ample, ample, low, low], low),
            (vec![ample, ample, ample, low], ample),
            (vec![out, out, ample, ample, low], low),
        ] {
            assert_eq!(of_majority(spaces.clone()), expected, "{spaces:?}");
        }
    }

    #[test]
    fn levels_are_left_upwards_only_with_an_eighth_to_spare() {
        let disk = DiskSpace::new(64 * MIB);
        for (free, level) in [
            (64 * MIB, Space::Ample),
            (64 * MIB - 1, Space::Reserve),
            (71 * MIB, Space::Reserve),
            (72 * MIB, Space::Ample),
            (MIB, Space::Reserve),
            (MIB - 1, Space::Exhausted),
            (MIB, Space::Exhausted),
            (2 * MIB, Space::Reserve),
        ] {
            let before = disk.level();
            assert_eq!(disk.note(free, false), level != before, "{free}");
            assert_eq!(disk.level(), level, "{free}");
        }
        disk.note(u64::MAX, true);
        assert_eq!(
            disk.level(),
            Space::Reserve,
            "a log waits for space in spite of what is said to be free"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn records_with_priority_use_the_reserve_slowly_and_ordinary_ones_never() {
        let disk = Arc::new(DiskSpace::new(64 * MIB));
        let space = GroupSpace::new(Arc::clone(&disk));
        assert!(space.admits(Priority::Normal, MIB));
        disk.note(20 * MIB, false);
        assert!(!space.admits(Priority::Normal, 1));
        let flood = |priority| {
            let mut used = 0_u64;
            while space.admits(priority, 1000) {
                used += 1104;
            }
            used
        };
        let about = |used: u64, expected: u64| expected.abs_diff(used) < expected / 16 + 2 * 1104;
        let at_once = flood(Priority::Reserved);
        assert!(about(at_once, 3 * MIB / 4), "of a 64th at once, a quarter is kept: {at_once}");
        let renewals = flood(Priority::Renewal);
        assert!(about(renewals, MIB / 16), "a quarter of that: {renewals}");
        let preferred = flood(Priority::Preferred);
        assert!(about(preferred, MIB / 16), "with them, half of the quarter: {preferred}");
        assert!(!space.admits(Priority::Reserved, 0));
        let essential = flood(Priority::Essential);
        assert!(about(essential, MIB / 8), "the rest: {essential}");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!space.admits(Priority::Reserved, 0), "first there is for the others");
        let later = flood(Priority::Essential);
        assert!(about(later, 160 << 10), "a 4096th a second: {later}");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(flood(Priority::Reserved) > 0);
        disk.note(1, false);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!space.admits(Priority::Essential, 1), "the last of it is for no record");
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_uses_its_reserve_where_it_is_needed_and_a_little_of_it_to_keep_up() {
        let disk = Arc::new(DiskSpace::new(64 * MIB));
        let space = GroupSpace::new(Arc::clone(&disk));
        assert!(space.takes_entries(false, MIB));
        disk.note(20 * MIB, false);
        assert!(space.takes_entries(false, 60 << 10), "it hears who leads");
        assert!(!space.takes_entries(false, 60 << 10));
        assert!(space.takes_entries(true, MIB));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(space.takes_entries(false, 20 << 10));
        assert!(!space.takes_entries(false, 20 << 10));
        disk.note(0, false);
        assert!(!space.takes_entries(true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn many_logs_of_a_follower_take_together_what_one_budget_allows() {
        let disk = Arc::new(DiskSpace::new(64 * MIB));
        let logs: Vec<_> = (0..1024).map(|_| GroupSpace::new(Arc::clone(&disk))).collect();
        disk.note(20 * MIB, false);
        let mut taken = 0;
        let mut offer = || {
            let takes = |log: &&GroupSpace| log.takes_entries(false, 8 << 10);
            taken += logs.iter().filter(takes).count() * (8 << 10);
            taken as u64
        };
        for _ in 0..10 {
            offer();
        }
        assert_eq!(offer(), MIB, "a 64th of the reserve, and no 64 KiB for each of 1024 logs");
        tokio::time::advance(Duration::from_secs(64)).await;
        for _ in 0..10 {
            offer();
        }
        assert_eq!(offer(), 2 * MIB, "a 4096th of it in a second");
    }
}

//! Kinds of faults, and the classes that a seed turns on or off as a whole.

use std::fmt;
use std::str::FromStr;

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A process dies; its page cache stays.
    Kill,
    /// A machine loses its power.
    PowerCut,
    /// A machine loses its power when a state is saved that covers more than its log has flushed.
    CheckpointCut,
    /// All machines lose their power at the same instant.
    PowerCutAll,
    /// So many machines lose their power that the others are no majority, and they elect a leader while they cannot reach
    /// those. The others come back later.
    LoneSurvivor,
    /// A process dies at the n-th disk operation from now.
    CrashAtDiskOp,
    /// A machine loses its power at the n-th disk operation from now.
    PowerCutAtDiskOp,
    /// A process stands still, then goes on.
    Pause,
    /// A node's time runs faster or slower.
    Drift,
    /// A node's wall clock jumps.
    ClockStep,
    /// Two halves that cannot talk.
    PartitionHalves,
    /// One node is cut off.
    PartitionSingle,
    /// Each node sees a majority, and no two see the same one.
    MajorityRing,
    /// One node sees all; the others are two halves.
    Bridge,
    /// One direction of some links is cut.
    OneWay,
    /// The leader is left with a minority.
    LeaderWithMinority,
    /// The leader is cut off for a little less than its requests wait for answers: until others have elected the
    /// next one, and so that answers of before come after that.
    LateAnswers,
    /// A link is slow.
    LinkSlow,
    /// Connections of a node break.
    LinkReset,
    /// Bytes of a link are changed.
    LinkCorrupt,
    /// Frames are lost.
    BusDrop,
    /// Frames arrive twice.
    BusDuplicate,
    /// Frames overtake each other.
    BusReorder,
    /// Frames arrive very late.
    BusLate,
    /// The n-th disk operation from now fails.
    DiskError,
    /// The n-th read from now fails, or many do.
    ReadError,
    /// The next flush fails and loses what it was to flush.
    FailedFlush,
    /// The disk is full.
    DiskFull,
    /// A write writes less than it was given.
    ShortWrite,
    /// Flushes take long.
    SlowFlush,
    /// Flushes do not return for a while.
    StuckFlush,
    /// A bit of a stored file flips.
    BitRot,
    /// A stored sector becomes zeros.
    ZeroedSector,
    /// A stored sector holds what it held before.
    StaleSector,
    /// Two stored sectors change places.
    SwappedSectors,
    /// Leadership is handed over.
    Transfer,
    /// A spare node joins: as a learner, then as a voter.
    Join,
    /// A voter leaves, and comes back later with what it has.
    Leave,
    /// A voter is removed, loses its data and joins again.
    Replace,
    /// A voter loses its data and returns with its old number, which must be refused; then it is replaced.
    WipedReturn,
    /// A node comes back with its data at another address.
    Move,
    /// Old records are dropped.
    Trim,
    /// State machines save their state.
    Checkpoint,
    /// A log is made.
    CreateLog,
    /// A log is deleted.
    DeleteLog,
}

/// Faults that a seed turns on or off together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Processes die.
    Crash,
    /// Power is lost.
    Power,
    /// Processes stand still.
    Pause,
    /// Clocks are wrong.
    Clock,
    /// The network falls apart.
    Partition,
    /// Links misbehave: those of the network that the seed has.
    Link,
    /// Disks fail.
    DiskError,
    /// Disks are slow.
    DiskSlow,
    /// Disks change what they hold.
    Corruption,
    /// Leadership moves.
    Leadership,
    /// Members change.
    Membership,
    /// Old records are dropped.
    Retention,
    /// Logs are made and deleted.
    Logs,
}

impl Class {
    /// All classes.
    pub(crate) const ALL: [Self; 13] = [
        Self::Crash,
        Self::Power,
        Self::Pause,
        Self::Clock,
        Self::Partition,
        Self::Link,
        Self::DiskError,
        Self::DiskSlow,
        Self::Corruption,
        Self::Leadership,
        Self::Membership,
        Self::Retention,
        Self::Logs,
    ];
}

impl Fault {
    /// All kinds, with their names.
    pub(crate) const ALL: [(Self, &'static str); 45] = [
        (Self::Kill, "kill"),
        (Self::PowerCut, "power-cut"),
        (Self::CheckpointCut, "checkpoint-cut"),
        (Self::PowerCutAll, "power-cut-all"),
        (Self::LoneSurvivor, "lone-survivor"),
        (Self::CrashAtDiskOp, "crash-at-disk-op"),
        (Self::PowerCutAtDiskOp, "power-cut-at-disk-op"),
        (Self::Pause, "pause"),
        (Self::Drift, "drift"),
        (Self::ClockStep, "clock-step"),
        (Self::PartitionHalves, "partition-halves"),
        (Self::PartitionSingle, "partition-single"),
        (Self::MajorityRing, "majority-ring"),
        (Self::Bridge, "bridge"),
        (Self::OneWay, "one-way"),
        (Self::LeaderWithMinority, "leader-with-minority"),
        (Self::LateAnswers, "late-answers"),
        (Self::LinkSlow, "link-slow"),
        (Self::LinkReset, "link-reset"),
        (Self::LinkCorrupt, "link-corrupt"),
        (Self::BusDrop, "bus-drop"),
        (Self::BusDuplicate, "bus-duplicate"),
        (Self::BusReorder, "bus-reorder"),
        (Self::BusLate, "bus-late"),
        (Self::DiskError, "disk-error"),
        (Self::ReadError, "read-error"),
        (Self::FailedFlush, "failed-flush"),
        (Self::DiskFull, "disk-full"),
        (Self::ShortWrite, "short-write"),
        (Self::SlowFlush, "slow-flush"),
        (Self::StuckFlush, "stuck-flush"),
        (Self::BitRot, "bit-rot"),
        (Self::ZeroedSector, "zeroed-sector"),
        (Self::StaleSector, "stale-sector"),
        (Self::SwappedSectors, "swapped-sectors"),
        (Self::Transfer, "transfer"),
        (Self::Join, "join"),
        (Self::Leave, "leave"),
        (Self::Replace, "replace"),
        (Self::WipedReturn, "wiped-return"),
        (Self::Move, "move"),
        (Self::Trim, "trim"),
        (Self::Checkpoint, "checkpoint"),
        (Self::CreateLog, "create-log"),
        (Self::DeleteLog, "delete-log"),
    ];

    /// Its name, as in reports.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(fault, _)| *fault == self).map_or("?", |(_, name)| name)
    }

    /// The class that it belongs to.
    pub(crate) fn class(self) -> Class {
        match self {
            Self::Kill | Self::CrashAtDiskOp => Class::Crash,
            Self::PowerCut
            | Self::CheckpointCut
            | Self::PowerCutAll
            | Self::LoneSurvivor
            | Self::PowerCutAtDiskOp => Class::Power,
            Self::Pause => Class::Pause,
            Self::Drift | Self::ClockStep => Class::Clock,
            Self::PartitionHalves
            | Self::PartitionSingle
            | Self::MajorityRing
            | Self::Bridge
            | Self::OneWay
            | Self::LeaderWithMinority
            | Self::LateAnswers => Class::Partition,
            Self::LinkSlow
            | Self::LinkReset
            | Self::LinkCorrupt
            | Self::BusDrop
            | Self::BusDuplicate
            | Self::BusReorder
            | Self::BusLate => Class::Link,
            Self::DiskError
            | Self::ReadError
            | Self::FailedFlush
            | Self::DiskFull
            | Self::ShortWrite => Class::DiskError,
            Self::SlowFlush | Self::StuckFlush => Class::DiskSlow,
            Self::BitRot | Self::ZeroedSector | Self::StaleSector | Self::SwappedSectors => {
                Class::Corruption
            }
            Self::Transfer => Class::Leadership,
            Self::Join | Self::Leave | Self::Replace | Self::WipedReturn | Self::Move => {
                Class::Membership
            }
            Self::Trim | Self::Checkpoint => Class::Retention,
            Self::CreateLog | Self::DeleteLog => Class::Logs,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(fault, _)| *fault).ok_or_else(|| format!("{name:?} is no fault"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_that_is_its_own() {
        for (fault, name) in Fault::ALL {
            assert_eq!(name.parse(), Ok(fault));
            assert_eq!(fault.to_string(), name);
            assert!(Class::ALL.contains(&fault.class()));
        }
    }
}

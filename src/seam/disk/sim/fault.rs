//! Faults: which operations go wrong, and how.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::random::Random;

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// A file that exists is opened.
    Open,
    /// A file is made or emptied.
    Create,
    /// A file or directory gets another name.
    Rename,
    /// The names of a directory are flushed.
    SyncDir,
    /// The names of a directory are read.
    List,
    /// A file's name is removed.
    Unlink,
    /// A directory is made.
    MakeDir,
    /// A directory is removed.
    RemoveDir,
    /// A file is locked.
    Lock,
    /// The free space is asked for.
    FreeSpace,
    /// A random number is drawn.
    Random,
    /// A file's length is asked for.
    Size,
    /// Space is allocated.
    Allocate,
    /// A file's length is set.
    Cut,
    /// A file is written.
    Write,
    /// A file is read.
    Read,
    /// A file is mapped.
    Map,
    /// A file is flushed.
    Flush,
}

impl OpKind {
    /// All of them, in their order.
    pub const ALL: [Self; 18] = [
        Self::Open,
        Self::Create,
        Self::Rename,
        Self::SyncDir,
        Self::List,
        Self::Unlink,
        Self::MakeDir,
        Self::RemoveDir,
        Self::Lock,
        Self::FreeSpace,
        Self::Random,
        Self::Size,
        Self::Allocate,
        Self::Cut,
        Self::Write,
        Self::Read,
        Self::Map,
        Self::Flush,
    ];

    /// True if it changes what is on the disk, or what is durable of it.
    pub fn is_change(self) -> bool {
        use OpKind::{
            Allocate, Create, Cut, Flush, MakeDir, RemoveDir, Rename, SyncDir, Unlink, Write,
        };
        matches!(
            self,
            Create
                | Rename
                | SyncDir
                | Unlink
                | MakeDir
                | RemoveDir
                | Allocate
                | Cut
                | Write
                | Flush
        )
    }
}

/// What goes wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with EIO. A flush also drops what it was to write: the pages count as clean, the old bytes
    /// are read again, and the next flush has nothing to do and succeeds. A failed [`OpKind::SyncDir`]
    /// leaves the names as they were: seen, and not durable.
    Eio,
    /// It fails with ENOSPC; a flush drops what it was to write.
    NoSpace,
    /// A read or write does the first half. Other operations are done whole.
    Short,
    /// It and all that follow fail, and it was not done: the machine is dead.
    Halt,
    /// A write is seen until the power fails, and never written back, flushed or not. Other operations are
    /// done right.
    LostWrite,
    /// As [`Fault::LostWrite`], but it is written back so many sectors away, in the same file.
    MisdirectedWrite {
        /// Sectors, forwards; the end of the file is followed by its beginning.
        sectors: u64,
    },
    /// A flush fails with EIO after it wrote some of the sectors, as the seed has it.
    TornFlush {
        /// Seed of which sectors.
        seed: u64,
    },
}

impl Fault {
    /// What it counts as.
    pub fn kind(self) -> FaultKind {
        match self {
            Self::Eio => FaultKind::Eio,
            Self::NoSpace => FaultKind::NoSpace,
            Self::Short => FaultKind::Short,
            Self::Halt => FaultKind::Halt,
            Self::LostWrite => FaultKind::LostWrite,
            Self::MisdirectedWrite { .. } => FaultKind::MisdirectedWrite,
            Self::TornFlush { .. } => FaultKind::TornFlush,
        }
    }

    /// False if an operation of this kind is done as if there were no fault.
    pub(super) fn concerns(self, kind: OpKind) -> bool {
        match self {
            Self::Eio | Self::NoSpace | Self::Halt => true,
            Self::Short => matches!(kind, OpKind::Read | OpKind::Write),
            Self::LostWrite | Self::MisdirectedWrite { .. } => kind == OpKind::Write,
            Self::TornFlush { .. } => kind == OpKind::Flush,
        }
    }
}

/// Kinds of faults that are counted: each time that one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// [`Fault::Eio`].
    Eio,
    /// [`Fault::NoSpace`], or the space was used up.
    NoSpace,
    /// [`Fault::Short`], or the space sufficed for a part of a write.
    Short,
    /// [`Fault::Halt`].
    Halt,
    /// [`Fault::LostWrite`].
    LostWrite,
    /// [`Fault::MisdirectedWrite`].
    MisdirectedWrite,
    /// [`Fault::TornFlush`].
    TornFlush,
    /// A flush of a file or directory lied, and there was something to flush.
    LyingFlush,
    /// A flush took unusually long.
    SlowFlush,
    /// A flush was held.
    HeldFlush,
    /// A crash of the process alone.
    ProcessCrash,
    /// A crash that came with the loss of power.
    PowerCut,
    /// A power cut lost bytes or a length.
    LostBytes,
    /// A power cut tore a sector.
    TornSector,
    /// A power cut lost a change of names.
    LostNames,
    /// [`Damage::FlipBit`](super::Damage::FlipBit).
    FlippedBit,
    /// [`Damage::ZeroSector`](super::Damage::ZeroSector).
    ZeroedSector,
    /// [`Damage::GarbageSector`](super::Damage::GarbageSector).
    GarbageSector,
    /// [`Damage::StaleSector`](super::Damage::StaleSector).
    StaleSector,
    /// [`Damage::SwapSectors`](super::Damage::SwapSectors).
    SwappedSectors,
    /// [`Damage::Restore`](super::Damage::Restore).
    RestoredSectors,
    /// [`Damage::SwapFiles`](super::Damage::SwapFiles).
    SwappedFiles,
    /// [`Damage::Truncate`](super::Damage::Truncate).
    TruncatedFile,
    /// [`Damage::Delete`](super::Damage::Delete).
    DeletedFile,
}

impl FaultKind {
    /// All of them, in their order.
    pub const ALL: [Self; 24] = [
        Self::Eio,
        Self::NoSpace,
        Self::Short,
        Self::Halt,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::TornFlush,
        Self::LyingFlush,
        Self::SlowFlush,
        Self::HeldFlush,
        Self::ProcessCrash,
        Self::PowerCut,
        Self::LostBytes,
        Self::TornSector,
        Self::LostNames,
        Self::FlippedBit,
        Self::ZeroedSector,
        Self::GarbageSector,
        Self::StaleSector,
        Self::SwappedSectors,
        Self::RestoredSectors,
        Self::SwappedFiles,
        Self::TruncatedFile,
        Self::DeletedFile,
    ];
}

/// Which operations a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ops {
    /// All.
    Any,
    /// Those that change something ([`OpKind::is_change`]).
    Changes,
    /// Those of one kind.
    Kind(OpKind),
}

impl Ops {
    fn contains(self, kind: OpKind) -> bool {
        match self {
            Self::Any => true,
            Self::Changes => kind.is_change(),
            Self::Kind(only) => only == kind,
        }
    }
}

/// Which of a rule's operations go wrong; they are counted from 0, from the moment that the rule is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// One.
    Nth(u64),
    /// It and all later ones.
    From(u64),
    /// Each with so much of a chance in a million; the seed is the rule's own.
    Chance {
        /// In a million.
        per_million: u32,
        /// Of what is drawn.
        seed: u64,
    },
}

/// A fault, and the operations that it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What kinds of operations.
    pub ops: Ops,
    /// Only those whose path ends so; any for an empty one. A rename is also looked at by its new path.
    pub path: String,
    /// Which of them.
    pub when: When,
    /// What goes wrong.
    pub fault: Fault,
}

/// A rule at work.
#[derive(Debug, Clone)]
pub(super) struct ActiveRule {
    rule: Rule,
    seen: u64,
    random: Random,
}

impl ActiveRule {
    pub(super) fn new(rule: Rule) -> Self {
        let seed = match rule.when {
            When::Chance { seed, .. } => seed,
            When::Nth(_) | When::From(_) => 0,
        };
        Self { rule, seen: 0, random: Random(seed) }
    }

    /// What it does to the next operation.
    pub(super) fn meet(&mut self, kind: OpKind, paths: [&Path; 2]) -> Option<Fault> {
        let Rule { ops, path, when, fault } = &self.rule;
        let ends = |of: &Path| of.as_os_str().as_encoded_bytes().ends_with(path.as_bytes());
        if !ops.contains(kind) || !paths.into_iter().any(ends) {
            return None;
        }
        let at = self.seen;
        self.seen += 1;
        let met = match *when {
            When::Nth(nth) => at == nth,
            When::From(first) => at >= first,
            When::Chance { per_million, .. } => self.random.per_million(per_million),
        };
        (met && fault.concerns(kind)).then_some(*fault)
    }

    /// True if it can do nothing any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.rule.when, When::Nth(nth) if self.seen > nth)
    }
}

pub(super) fn eio() -> io::Error {
    Errno::IO.into()
}

pub(super) fn no_space() -> io::Error {
    Errno::NOSPC.into()
}

pub(super) fn dead() -> io::Error {
    io::Error::other("the machine is dead")
}

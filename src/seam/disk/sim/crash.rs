//! What a crash leaves of the changes that were not flushed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use super::fault::FaultKind;
use super::file::{Change, FileState};
use super::image::SECTOR;
use super::random::Random;
use super::tree::{Inode, Tree};

/// What a crash leaves of the changes that were not flushed.
///
/// The changes are listed by [`SimDisk::pending`](super::SimDisk::pending); each policy but `KeepAll` comes
/// down to a choice of what is [`Kept`] of each of them, so that `Exactly` enumerates all that
/// the others give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrashPolicy {
    /// The process dies and the machine lives on: everything is seen, and what was not flushed is still
    /// not durable.
    KeepAll,
    /// The power fails before anything was written back.
    LoseAll,
    /// The power fails, and exactly the first operations that were not flushed were written back.
    Prefix(u64),
    /// The power fails in the last write that was not flushed. Everything before it was written back,
    /// nothing behind it, and of it the first `bytes`.
    CutLast {
        /// Bytes of the write that were written back.
        bytes: u64,
        /// What the rest of the sector of the cut holds, as far as the write reaches.
        rest: TornRest,
    },
    /// The power fails, and what was written back is as the seed has it: between everything and nothing,
    /// some or none of the operations, sectors, lengths and names, sectors torn.
    Random(u64),
    /// The power fails, and of each change in [`SimDisk::pending`](super::SimDisk::pending) this is kept.
    /// Changes that are not mentioned are lost.
    Exactly(Vec<Kept>),
}

/// What is kept of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Lost,
    /// All of it. A change of names is lost nevertheless if an earlier one is lost that it needs.
    Whole,
    /// The first bytes, and something else where the others were. A length or a name has no parts and is lost.
    Torn {
        /// How many of the bytes that this change has in its sector.
        bytes: u64,
        /// In place of the others.
        rest: TornRest,
    },
    /// None, and the whole sector is random, what was durable in it included: as on a disk that does not
    /// keep a sector whole when the power fails. The library does not promise to stand it.
    Garbled {
        /// Of the random bytes.
        seed: u64,
    },
}

/// What is found behind the place where a sector is torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TornRest {
    /// What was there before.
    Old,
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// What the sector held before it was last changed durably.
    Stale,
    /// Random bytes of this seed.
    Random(u64),
}

/// A change that is not durable, and that a crash keeps or loses: one sector of a write, a file's length, or
/// names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingChange {
    /// Number of the operation that made it, counted from the making of the disk. Changes of one
    /// operation lie beside each other.
    pub operation: u64,
    /// Where. Of a file without a name any more, no path.
    pub path: Option<PathBuf>,
    /// What.
    pub part: ChangePart,
}

/// What a [`PendingChange`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangePart {
    /// A change of names: all of it or nothing.
    Names,
    /// The file becomes longer, at least so long.
    Extend(u64),
    /// The file is cut, or made longer, to so many bytes.
    Cut(u64),
    /// Bytes in one sector.
    Bytes {
        /// Offset in the file.
        at: u64,
        /// How many.
        len: u64,
    },
}

/// One change, as it is applied.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    /// Which of the pending changes of names.
    Names(usize),
    /// Which of the pending changes of a file; of a write, which bytes.
    File { inode: Inode, pending: usize, from: usize, to: usize },
}

/// All changes that are not durable, in the order in which they were made.
pub(super) fn pieces(tree: &Tree) -> Vec<(u64, Piece)> {
    let names = tree.pending.iter().enumerate();
    let mut pieces: Vec<(u64, Piece)> =
        names.map(|(at, change)| (change.operation, Piece::Names(at))).collect();
    for (inode, file) in tree.files() {
        for (pending, what) in file.pending.iter().enumerate() {
            let mut push =
                |from, to| pieces.push((what.operation, Piece::File { inode, pending, from, to }));
            match &what.change {
                Change::Extend(_) | Change::Cut(_) => push(0, 0),
                Change::Write { at, bytes } => {
                    sectors(*at, bytes.len()).for_each(|range| push(range.start, range.end));
                }
            }
        }
    }
    // Changes of one operation keep their order.
    pieces.sort_by_key(|(operation, _)| *operation);
    pieces
}

/// The pending changes for the eyes of others.
pub(super) fn describe(tree: &Tree) -> Vec<PendingChange> {
    let mut paths: BTreeMap<Inode, PathBuf> =
        tree.paths(true).into_iter().map(|(path, inode)| (inode, path)).collect();
    paths.extend(tree.paths(false).into_iter().map(|(path, inode)| (inode, path)));
    let describe = |(operation, piece): (u64, Piece)| match piece {
        Piece::Names(at) => {
            let path = Some(tree.pending[at].path.clone());
            PendingChange { operation, path, part: ChangePart::Names }
        }
        Piece::File { inode, pending, from, to } => {
            let change = tree.file(inode).ok().map(|file| &file.pending[pending].change);
            let part = match change {
                Some(Change::Extend(len)) => ChangePart::Extend(*len),
                Some(Change::Cut(len)) => ChangePart::Cut(*len),
                Some(Change::Write { at, .. }) => {
                    ChangePart::Bytes { at: at + from as u64, len: (to - from) as u64 }
                }
                None => ChangePart::Bytes { at: 0, len: 0 },
            };
            PendingChange { operation, path: paths.get(&inode).cloned(), part }
        }
    };
    pieces(tree).into_iter().map(describe).collect()
}

/// Makes `tree` what a power cut leaves of it. Gives what bit.
pub(super) fn cut_power(tree: &mut Tree, policy: &CrashPolicy) -> Vec<FaultKind> {
    let pieces = pieces(tree);
    let kept = match policy {
        CrashPolicy::KeepAll => vec![Kept::Whole; pieces.len()],
        CrashPolicy::LoseAll => Vec::new(),
        CrashPolicy::Prefix(operations) => prefix(&pieces, *operations),
        CrashPolicy::CutLast { bytes, rest } => cut_last(tree, &pieces, *bytes, *rest),
        CrashPolicy::Random(seed) => random(tree, &pieces, &mut Random(*seed)),
        CrashPolicy::Exactly(kept) => kept.clone(),
    };
    let mut bit = vec![FaultKind::PowerCut];
    let mut names = vec![false; tree.pending.len()];
    tree.files_mut().for_each(FileState::begin_flush);
    for (at, (_, piece)) in pieces.iter().enumerate() {
        let kept = kept.get(at).copied().unwrap_or(Kept::Lost);
        match *piece {
            Piece::Names(number) => names[number] = kept == Kept::Whole,
            Piece::File { inode, pending, from, to } => {
                let Ok(file) = tree.file_mut(inode) else { continue };
                bit.extend(keep(file, pending, from..to, kept));
            }
        }
    }
    if tree.lose_all_but(names) > 0 {
        bit.push(FaultKind::LostNames);
    }
    tree.files_mut().for_each(FileState::lose_cache);
    bit.sort_unstable();
    bit.dedup();
    bit
}

/// Applies what is kept of one change of a file.
fn keep(
    file: &mut FileState,
    pending: usize,
    range: Range<usize>,
    kept: Kept,
) -> Option<FaultKind> {
    let change = file.pending[pending].change.clone();
    let Change::Write { at, bytes } = &change else {
        if kept != Kept::Whole {
            return Some(FaultKind::LostBytes);
        }
        file.apply(&change);
        return None;
    };
    let (at, bytes) = (at + range.start as u64, &bytes[range]);
    let sector = at / SECTOR;
    match kept {
        Kept::Lost => Some(FaultKind::LostBytes),
        Kept::Whole => {
            file.write_durable(at, bytes);
            None
        }
        Kept::Torn { bytes: whole, rest } => {
            let whole = bytes.len().min(usize::try_from(whole).unwrap_or(usize::MAX));
            let within = (at % SECTOR) as usize + whole;
            let mut torn = bytes.to_vec();
            let behind = &mut torn[whole..];
            let len = behind.len();
            match rest {
                TornRest::Old => torn.truncate(whole),
                TornRest::Zeros => behind.fill(0),
                TornRest::Ones => behind.fill(0xff),
                TornRest::Stale => {
                    behind.copy_from_slice(&file.earlier_sector(sector)[within..within + len]);
                }
                TornRest::Random(seed) => Random(seed).fill(behind),
            }
            file.write_durable(at, &torn);
            (len > 0).then_some(FaultKind::TornSector)
        }
        Kept::Garbled { seed } => {
            let mut garbage = [0; SECTOR as usize];
            Random(seed).fill(&mut garbage);
            let end = file.durable.len().max(at + bytes.len() as u64);
            let len = (end - sector * SECTOR).min(SECTOR);
            file.write_durable(sector * SECTOR, &garbage[..len as usize]);
            Some(FaultKind::TornSector)
        }
    }
}

/// Makes some sectors durable of what is written and not flushed.
pub(super) fn tear_flush(file: &mut FileState, random: &mut Random) {
    file.begin_flush();
    for pending in file.pending.clone() {
        let Change::Write { at, bytes } = pending.change else { continue };
        for range in sectors(at, bytes.len()) {
            if random.below(2) == 0 {
                file.write_durable(at + range.start as u64, &bytes[range]);
            }
        }
    }
}

/// The parts of `len` bytes at `at` that lie in one sector each.
fn sectors(at: u64, len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let left = SECTOR - (at + from as u64) % SECTOR;
        let range = from..len.min(from + left as usize);
        from = range.end;
        (!range.is_empty()).then_some(range)
    })
}

/// The first operations, whole.
fn prefix(pieces: &[(u64, Piece)], operations: u64) -> Vec<Kept> {
    let mut kept = Vec::new();
    let mut count = 0;
    for (at, (operation, _)) in pieces.iter().enumerate() {
        count += u64::from(at == 0 || pieces[at - 1].0 != *operation);
        if count > operations {
            break;
        }
        kept.push(Kept::Whole);
    }
    kept
}

/// Everything before the last write whole, and of it the first bytes.
fn cut_last(tree: &Tree, pieces: &[(u64, Piece)], bytes: u64, rest: TornRest) -> Vec<Kept> {
    let is_write = |piece: &Piece| matches!(piece, Piece::File { from, to, .. } if from < to);
    let Some(last) = pieces.iter().rfind(|(_, piece)| is_write(piece)).map(|(at, _)| *at) else {
        return vec![Kept::Whole; pieces.len()];
    };
    let mut kept = Vec::new();
    for (operation, piece) in pieces.iter().filter(|(operation, _)| *operation <= last) {
        kept.push(match *piece {
            _ if *operation < last => Kept::Whole,
            Piece::File { from, to, .. } if from < to => match bytes.saturating_sub(from as u64) {
                0 => Kept::Lost,
                some if some >= (to - from) as u64 => Kept::Whole,
                some => Kept::Torn { bytes: some, rest },
            },
            // Its length; what is kept of it makes the file as long as that.
            Piece::File { inode, pending, .. } => {
                let file = tree.file(inode).ok();
                let written = file.and_then(|file| file.pending.get(pending + 1));
                match written.map(|next| &next.change) {
                    Some(Change::Write { bytes: all, .. }) if bytes >= all.len() as u64 => {
                        Kept::Whole
                    }
                    _ => Kept::Lost,
                }
            }
            Piece::Names(_) => Kept::Whole,
        });
    }
    kept
}

/// How a part of the changes fares in a random crash.
#[derive(Clone, Copy)]
enum Fate {
    All,
    Nothing,
    /// The first so many changes, and a part of the next.
    First(usize),
    /// Each with so much of a chance in a million.
    Each(u32),
}

impl Fate {
    fn draw(random: &mut Random, changes: usize) -> Self {
        match random.below(4) {
            0 => Self::All,
            1 => Self::Nothing,
            2 => Self::First(random.below(changes + 1)),
            _ => Self::Each([100_000, 500_000, 900_000][random.below(3)]),
        }
    }

    fn kept(self, at: usize, random: &mut Random) -> Kept {
        match self {
            Self::All => Kept::Whole,
            Self::Nothing => Kept::Lost,
            Self::First(count) if at < count => Kept::Whole,
            Self::First(count) if at > count => Kept::Lost,
            Self::First(_) => torn(random),
            Self::Each(_) if random.per_million(100_000) => torn(random),
            Self::Each(chance) if random.per_million(chance) => Kept::Whole,
            Self::Each(_) => Kept::Lost,
        }
    }
}

fn torn(random: &mut Random) -> Kept {
    let bytes = random.below(SECTOR as usize) as u64;
    let rest = match random.below(5) {
        0 => TornRest::Old,
        1 => TornRest::Zeros,
        2 => TornRest::Ones,
        3 => TornRest::Stale,
        _ => TornRest::Random(random.next()),
    };
    Kept::Torn { bytes, rest }
}

/// A choice for the disk as a whole, or one for each file and directory.
fn random(tree: &Tree, pieces: &[(u64, Piece)], random: &mut Random) -> Vec<Kept> {
    if random.below(2) == 0 {
        let fate = Fate::draw(random, pieces.len());
        return (0..pieces.len()).map(|at| fate.kept(at, random)).collect();
    }
    let mut fates: BTreeMap<Inode, (Fate, usize)> = BTreeMap::new();
    let mut kept = Vec::new();
    for (_, piece) in pieces {
        let owner = match *piece {
            Piece::Names(at) => tree.pending[at].dir(),
            Piece::File { inode, .. } => inode,
        };
        let (fate, at) =
            fates.entry(owner).or_insert_with(|| (Fate::draw(random, pieces.len().min(8)), 0));
        kept.push(fate.kept(*at, random));
        *at += 1;
    }
    kept
}

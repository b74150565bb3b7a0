//! Damage: what happens to bytes that were durable.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::fault::FaultKind;
use super::file::FileState;
use super::image::{Image, SECTOR};
use super::random::Random;
use super::tree::Tree;

/// Damage to one file: to the bytes on the disk and in the page cache, behind everyone's back. Changes
/// that were not flushed stay pending, and may heal it when they are written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// One bit, counted from the lowest of the first byte.
    FlipBit(u64),
    /// A sector, by its number, becomes zeros.
    ZeroSector(u64),
    /// A sector becomes random bytes.
    GarbageSector {
        /// Its number.
        sector: u64,
        /// Of the bytes.
        seed: u64,
    },
    /// A sector holds what it held before the last flush that changed it: that write was lost.
    StaleSector(u64),
    /// Two sectors change places.
    SwapSectors(u64, u64),
    /// Sectors hold what they held in an image that was taken earlier, with
    /// [`SimDisk::durable_file`](super::SimDisk::durable_file).
    Restore {
        /// The earlier image.
        from: Image,
        /// Numbers of the sectors.
        sectors: Range<u64>,
    },
    /// The file and another change places.
    SwapFiles(PathBuf),
    /// The file loses its end.
    Truncate(u64),
    /// The file loses its name; handles of it stay valid.
    Delete,
}

impl Damage {
    /// What it counts as.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::FlipBit(_) => FaultKind::FlippedBit,
            Self::ZeroSector(_) => FaultKind::ZeroedSector,
            Self::GarbageSector { .. } => FaultKind::GarbageSector,
            Self::StaleSector(_) => FaultKind::StaleSector,
            Self::SwapSectors(..) => FaultKind::SwappedSectors,
            Self::Restore { .. } => FaultKind::RestoredSectors,
            Self::SwapFiles(_) => FaultKind::SwappedFiles,
            Self::Truncate(_) => FaultKind::TruncatedFile,
            Self::Delete => FaultKind::DeletedFile,
        }
    }
}

/// Does the damage. True if anything is different now.
pub(super) fn inflict(tree: &mut Tree, path: &Path, damage: &Damage) -> bool {
    let Ok(slot) = tree.slot(path) else { return false };
    let Some(inode) = slot.inode.filter(|inode| !tree.is_dir(*inode)) else { return false };
    if *damage == Damage::Delete {
        tree.tamper(&slot, None);
        return true;
    }
    if let Damage::SwapFiles(other) = damage {
        let Ok(other) = tree.slot(other) else { return false };
        let Some(with) = other.inode.filter(|with| *with != inode && !tree.is_dir(*with)) else {
            return false;
        };
        let same = |a: &FileState, b: &FileState| a.live == b.live && a.durable == b.durable;
        let differ = matches!((tree.file(inode), tree.file(with)), (Ok(a), Ok(b)) if !same(a, b));
        tree.tamper(&slot, Some(with));
        tree.tamper(&other, Some(inode));
        return differ;
    }
    tree.file_mut(inode).is_ok_and(|file| damage_file(file, damage))
}

fn damage_file(file: &mut FileState, damage: &Damage) -> bool {
    let end = file.live.len().max(file.durable.len());
    let behind_end = |sector: u64| sector >= end.div_ceil(SECTOR);
    match damage {
        Damage::FlipBit(bit) => {
            let (at, mask) = (bit / 8, 1 << (bit % 8));
            let mut flipped = false;
            for image in [&mut file.durable, &mut file.live] {
                let mut byte = [0];
                if image.read_at(&mut byte, at) == 1 {
                    image.write(at, &[byte[0] ^ mask]);
                    flipped = true;
                }
            }
            flipped
        }
        Damage::ZeroSector(sector) => {
            !behind_end(*sector) && file.replace_sector(*sector, &[0; SECTOR as usize])
        }
        Damage::GarbageSector { sector, seed } => {
            let mut garbage = [0; SECTOR as usize];
            Random(*seed).fill(&mut garbage);
            !behind_end(*sector) && file.replace_sector(*sector, &garbage)
        }
        Damage::StaleSector(sector) => {
            let earlier = file.earlier_sector(*sector);
            !behind_end(*sector) && file.replace_sector(*sector, &earlier)
        }
        Damage::SwapSectors(one, other) => {
            if behind_end(*one) || behind_end(*other) {
                return false;
            }
            let (a, b) = (file.live.sector(*one), file.live.sector(*other));
            // Both are done, whichever of them was different.
            file.replace_sector(*one, &b) | file.replace_sector(*other, &a)
        }
        Damage::Restore { from, sectors } => {
            let sectors = sectors.start..sectors.end.min(end.div_ceil(SECTOR));
            sectors
                .fold(false, |bit, sector| file.replace_sector(sector, &from.sector(sector)) | bit)
        }
        Damage::Truncate(len) => {
            let shorter = *len < end;
            for image in [&mut file.durable, &mut file.live] {
                image.resize(image.len().min(*len));
            }
            shorter
        }
        Damage::SwapFiles(_) | Damage::Delete => false,
    }
}

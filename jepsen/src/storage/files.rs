//! Sectors and whole files that are zeroed, old, in another's place, cut off or gone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorumlog::simulation::{Damage, SECTOR, SimDisk};

use super::damage::{Look, outcome};
use super::host::DATA;
use super::sample::Sample;
use super::tally::{Family, Outcome, Tally};

/// Points of one unit.
const UNIT: usize = 64;

/// What is done to the sample.
#[derive(Debug, Clone)]
enum Deed {
    /// To one file.
    Damage(Damage),
    /// The file holds these bytes from there on.
    Overwrite { at: usize, bytes: Arc<[u8]> },
    /// The file is these bytes.
    Replace(Arc<[u8]>),
    /// The directory loses all its files.
    Empty,
}

#[derive(Debug, Clone)]
struct Point {
    path: PathBuf,
    deed: Deed,
    look: Look,
}

/// A list of points.
pub(crate) struct Files {
    name: &'static str,
    sample: Arc<Sample>,
    points: Vec<Point>,
}

impl Files {
    /// Each sector zeroed, all ones, random, as it was before, in the place of each other one of its
    /// file, and in the place of the same one of each other file.
    pub(crate) fn sectors(sample: &Arc<Sample>) -> Self {
        let look = Look { each_entry: true, offline: true, unwitnessed: true, ..Look::PLAIN };
        let mut points = Vec::new();
        let files = sample.files();
        for path in &files {
            let bytes = bytes(&sample.disk, path);
            let count = (bytes.len() as u64).div_ceil(SECTOR);
            let mut push = |deed| points.push(Point { path: path.clone(), deed, look });
            let stale = sample.segments.iter().find(|segment| segment.path == *path);
            for sector in 0..count {
                push(Deed::Damage(Damage::ZeroSector(sector)));
                push(Deed::Damage(Damage::StaleSector(sector)));
                for seed in 0..2 {
                    push(Deed::Damage(Damage::GarbageSector { sector, seed }));
                }
                let at = (sector * SECTOR) as usize;
                let len = (bytes.len() - at).min(SECTOR as usize);
                push(Deed::Overwrite { at, bytes: vec![0xff; len].into() });
                if let Some(stale) = stale.and_then(|segment| segment.stale.get(at..at + len)) {
                    push(Deed::Overwrite { at, bytes: stale.into() });
                }
                for other in sector + 1..count {
                    push(Deed::Damage(Damage::SwapSectors(sector, other)));
                }
                for other in files.iter().filter(|other| *other != path) {
                    let other = self::bytes(&sample.disk, other);
                    if let Some(bytes) = other.get(at..at + len) {
                        push(Deed::Overwrite { at, bytes: bytes.into() });
                    }
                }
            }
        }
        Self { name: "sector", sample: Arc::clone(sample), points }
    }

    /// Each file cut off at every sector, deleted, emptied, and in the place of each other one; each directory
    /// without its files.
    pub(crate) fn whole(sample: &Arc<Sample>) -> Self {
        let look = Look { offline: true, unwitnessed: true, ..Look::PLAIN };
        let mut points = Vec::new();
        let files = sample.files();
        for path in &files {
            let len = bytes(&sample.disk, path).len() as u64;
            let mut push = |deed| points.push(Point { path: path.clone(), deed, look });
            push(Deed::Damage(Damage::Delete));
            let cuts = [1, 23, 24, 47, 48, 55, 56, len / 2, len - 1];
            for cut in cuts.into_iter().chain((0..len).step_by(SECTOR as usize)) {
                if cut < len {
                    push(Deed::Damage(Damage::Truncate(cut)));
                }
            }
            for other in files.iter().filter(|other| *other > path) {
                push(Deed::Damage(Damage::SwapFiles(other.clone())));
            }
            for other in files.iter().filter(|other| *other != path) {
                push(Deed::Replace(bytes(&sample.disk, other).into()));
            }
        }
        let mut dirs: Vec<_> = files.iter().filter_map(|path| path.parent()).collect();
        dirs.dedup();
        for dir in dirs.into_iter().filter(|dir| *dir != Path::new(DATA)) {
            points.push(Point { path: dir.to_owned(), deed: Deed::Empty, look });
        }
        Self { name: "file", sample: Arc::clone(sample), points }
    }

    /// Files that are replaced whole, as they were at some time before. Only a disk that lies does this, and
    /// not all of it can be found; but what is read was once written.
    pub(crate) fn earlier(sample: &Arc<Sample>) -> Self {
        let look = Look { unwitnessed: true, rolled_back: true, ..Look::PLAIN };
        let point = |(path, bytes): &(PathBuf, Vec<u8>)| Point {
            path: path.clone(),
            deed: Deed::Replace(bytes.as_slice().into()),
            look,
        };
        let points = sample.earlier.iter().map(point).collect();
        Self { name: "earlier-file", sample: Arc::clone(sample), points }
    }
}

impl Point {
    /// Does it. Gives the files that are others now.
    fn inflict(&self, disk: &SimDisk) -> Vec<PathBuf> {
        let mut damaged = vec![self.path.clone()];
        match &self.deed {
            Deed::Damage(damage) => {
                disk.damage(&self.path, damage);
                if let Damage::SwapFiles(other) = damage {
                    damaged.push(other.clone());
                }
            }
            Deed::Overwrite { at, bytes } => disk.tamper(&self.path, |file| {
                let end = (at + bytes.len()).min(file.len());
                file[*at..end].copy_from_slice(&bytes[..end - at]);
            }),
            Deed::Replace(bytes) => disk.tamper(&self.path, |file| *file = bytes.to_vec()),
            Deed::Empty => {
                damaged = disk.contents().into_keys().collect();
                damaged.retain(|path| path.parent() == Some(&self.path));
                for path in &damaged {
                    disk.damage(path, &Damage::Delete);
                }
            }
        }
        damaged
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.deed {
            Deed::Damage(damage) => write!(f, "{damage:?}"),
            Deed::Overwrite { at, bytes } => write!(f, "{} other bytes at {at}", bytes.len()),
            Deed::Replace(bytes) => write!(f, "replaced by {} bytes", bytes.len()),
            Deed::Empty => f.write_str("emptied"),
        }
    }
}

impl Family for Files {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn units(&self) -> u64 {
        self.points.len().div_ceil(UNIT) as u64
    }

    fn unit_of(&self, first: u64) -> u64 {
        first / UNIT as u64
    }

    fn try_unit(&self, unit: u64, tally: &mut Tally) {
        let points = self.points.iter().enumerate().skip(unit as usize * UNIT).take(UNIT);
        for (number, point) in points {
            tally.point(&[number as u64], || {
                let disk = self.sample.copy();
                let damaged = point.inflict(&disk);
                match outcome(&self.sample, &disk, &damaged, point.look) {
                    Outcome::Wrong(why) => Outcome::Wrong(format!("{point}: {why}")),
                    other => other,
                }
            });
        }
    }
}

fn bytes(disk: &SimDisk, path: &Path) -> Vec<u8> {
    super::host::bytes_of(disk, path)
}

//! The last segment cut at every byte, and every subset of its last sectors, with what may be found there.

use std::ops::Range;
use std::sync::Arc;

use quorumlog::simulation::{Damage, SECTOR};

use super::damage::{Look, outcome};
use super::sample::Sample;
use super::tally::{Family, Outcome, Tally};

/// Lengths of one unit.
const UNIT: u64 = 256;
/// Sectors of which every subset is lost.
const SECTORS: usize = 8;
/// The log is used after so many of the points.
const GO_ON_EVERY: u64 = 16;

/// What is found where bytes were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// The file ends there.
    End,
    Zeros,
    Ones,
    Random,
    /// What an earlier use of the same blocks left: entries with the same indexes, of an earlier term.
    Stale,
}

const FILLS: [Fill; 5] = [Fill::End, Fill::Zeros, Fill::Ones, Fill::Random, Fill::Stale];

impl Fill {
    fn fill(self, bytes: &mut [u8], range: Range<usize>, stale: &[u8]) {
        let range = range.start.min(bytes.len())..range.end.min(bytes.len());
        match self {
            Self::End | Self::Zeros => bytes[range].fill(0),
            Self::Ones => bytes[range].fill(0xff),
            Self::Random => {
                let mut seed = range.start as u64;
                bytes[range].iter_mut().for_each(|byte| *byte = random(&mut seed));
            }
            Self::Stale => {
                // Over and over, where the earlier file was shorter.
                let mut left = stale.iter().cycle().skip(range.start);
                for byte in &mut bytes[range] {
                    *byte = left.next().copied().unwrap_or_default();
                }
            }
        }
    }
}

/// `SplitMix64`, a byte at a time.
fn random(state: &mut u64) -> u8 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) & 0xff) as u8
}

/// Every length of the last segment.
pub(crate) struct Cuts {
    sample: Arc<Sample>,
    /// One in so many.
    step: u64,
}

impl Cuts {
    pub(crate) fn new(sample: &Arc<Sample>, step: u64) -> Self {
        Self { sample: Arc::clone(sample), step }
    }

    fn cut(&self, len: u64, fill: Fill) -> Outcome {
        let disk = self.sample.copy();
        let active = self.sample.active();
        if fill == Fill::End {
            disk.damage(&active.path, &Damage::Truncate(len));
        } else {
            let all = active.bytes.len();
            disk.tamper(&active.path, |bytes| fill.fill(bytes, len as usize..all, &active.stale));
        }
        let look = Look {
            is_torn: true,
            unwitnessed: true,
            go_on: len.is_multiple_of(GO_ON_EVERY),
            offline: len % GO_ON_EVERY == 1,
            ..Look::PLAIN
        };
        outcome(&self.sample, &disk, std::slice::from_ref(&active.path), look)
    }
}

impl Family for Cuts {
    fn name(&self) -> String {
        "cut".to_owned()
    }

    fn units(&self) -> u64 {
        (self.sample.active().bytes.len() as u64 + 1).div_ceil(UNIT)
    }

    fn unit_of(&self, first: u64) -> u64 {
        first / UNIT
    }

    fn try_unit(&self, unit: u64, tally: &mut Tally) {
        let end = self.sample.active().bytes.len() as u64;
        for len in unit * UNIT..((unit + 1) * UNIT).min(end + 1) {
            if !len.is_multiple_of(self.step) && tally.is_whole() {
                continue;
            }
            for (number, fill) in (0..).zip(FILLS) {
                tally.point(&[len, number], || self.cut(len, fill));
            }
        }
    }
}

/// Every subset of the last sectors that hold anything.
pub(crate) struct Tails {
    name: &'static str,
    sample: Arc<Sample>,
}

impl Tails {
    pub(crate) fn new(name: &'static str, sample: Sample) -> Self {
        Self { name, sample: Arc::new(sample) }
    }

    fn lose(&self, subset: u64, fill: Fill) -> Outcome {
        let disk = self.sample.copy();
        let active = self.sample.active();
        let end = self.sample.layout.end().div_ceil(SECTOR as usize);
        disk.tamper(&active.path, |bytes| {
            for sector in 0..SECTORS {
                if subset >> sector & 1 == 1 {
                    let at = (end - SECTORS + sector) * SECTOR as usize;
                    fill.fill(bytes, at..at + SECTOR as usize, &active.stale);
                }
            }
        });
        let look =
            Look { is_torn: true, unwitnessed: true, go_on: true, offline: true, ..Look::PLAIN };
        outcome(&self.sample, &disk, std::slice::from_ref(&active.path), look)
    }
}

impl Family for Tails {
    fn name(&self) -> String {
        format!("sectors-of-{}", self.name)
    }

    fn units(&self) -> u64 {
        FILLS.len() as u64 - 1
    }

    fn unit_of(&self, first: u64) -> u64 {
        first
    }

    fn try_unit(&self, unit: u64, tally: &mut Tally) {
        // A sector in the middle of a file cannot end it.
        let fill = FILLS[unit as usize + 1];
        for subset in 0..1 << SECTORS {
            tally.point(&[unit, subset], || self.lose(subset, fill));
        }
    }
}

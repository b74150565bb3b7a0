//! Every single bit, flipped.

use std::path::PathBuf;
use std::sync::Arc;

use quorumlog::simulation::Damage;

use super::damage::{Look, outcome};
use super::sample::Sample;
use super::tally::{Family, Tally};

/// Bits of one unit.
const UNIT: u64 = 4096;

/// The bits of some files, counted through.
pub(crate) struct Flips {
    name: &'static str,
    sample: Arc<Sample>,
    files: Vec<(PathBuf, u64)>,
    /// One in so many.
    step: u64,
}

impl Flips {
    pub(crate) fn new(
        name: &'static str,
        sample: &Arc<Sample>,
        files: Vec<PathBuf>,
        step: u64,
    ) -> Self {
        let contents = sample.disk.contents();
        let bits = |path: &PathBuf| {
            contents.get(path).and_then(Option::as_ref).map_or(0, |image| image.len() * 8)
        };
        let files = files.into_iter().map(|path| (path.clone(), bits(&path))).collect();
        Self { name, sample: Arc::clone(sample), files, step }
    }

    fn bits(&self) -> u64 {
        self.files.iter().map(|(_, bits)| bits).sum()
    }

    /// The file and its bit.
    fn locate(&self, mut bit: u64) -> Option<(&PathBuf, u64)> {
        for (path, bits) in &self.files {
            if bit < *bits {
                return Some((path, bit));
            }
            bit -= bits;
        }
        None
    }
}

impl Family for Flips {
    fn name(&self) -> String {
        format!("flip-{}", self.name)
    }

    fn units(&self) -> u64 {
        self.bits().div_ceil(UNIT)
    }

    fn unit_of(&self, first: u64) -> u64 {
        first / UNIT
    }

    fn try_unit(&self, unit: u64, tally: &mut Tally) {
        for at in unit * UNIT..((unit + 1) * UNIT).min(self.bits()) {
            let Some((path, bit)) = self.locate(at) else { return };
            if !at.is_multiple_of(self.step) && tally.is_whole() {
                continue;
            }
            tally.point(&[at], || {
                let disk = self.sample.copy();
                disk.damage(path, &Damage::FlipBit(bit));
                // One bit of each byte.
                let offline = at % 8 == at / 8 % 8;
                outcome(
                    &self.sample,
                    &disk,
                    std::slice::from_ref(path),
                    Look { offline, ..Look::PLAIN },
                )
            });
        }
    }
}

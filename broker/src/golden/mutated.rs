//! The fuzz targets on recorded frames, whole and damaged at random: a bounded run of what `fuzz/` runs for as long as one likes.

use bytes::{BufMut as _, Bytes};

use super::{frames, recordings};
use crate::fuzz;
use crate::remoting::Command;

/// Damaged copies of each input for each target.
const COPIES: u64 = 8;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Flips, cuts, doubles, and numbers at the edge of what fits.
fn damaged(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 if at + 4 <= bytes.len() => {
                let edges = [0, 1, 0x7F, 0x80, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF_u32];
                (&mut bytes[at..]).put_u32(edges[random.below(8)]);
            }
            2 => {
                let part = bytes[at..].to_vec();
                bytes.extend(part);
            }
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.insert(at, random.next() as u8),
            _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    bytes
}

/// Whole frames, their bodies, and their properties.
fn inputs() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    let recorded: Vec<Bytes> =
        recordings().iter().flat_map(|path| frames(path)).map(|(_, _, frame)| frame).collect();
    for frame in recorded {
        if let Ok(command) = Command::decode(frame.clone()) {
            inputs.push(command.body.to_vec());
            let properties = ["i", "properties"].iter().find_map(|it| command.head.fields.get(it));
            inputs.extend(properties.map(|text| text.as_bytes().to_vec()));
        }
        inputs.push(frame.to_vec());
    }
    inputs.retain(|input| !input.is_empty());
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}

fn check(target: fn(&[u8]), input: &[u8], context: &str) {
    let checked = std::panic::catch_unwind(|| target(input));
    assert!(checked.is_ok(), "{context}: {input:?}");
}

#[test]
fn every_target_takes_recorded_input_whole_and_damaged() {
    // Another run has another seed; QUORUMLOG_SEED=N runs that of a failure again.
    let seed = std::env::var("QUORUMLOG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let inputs = inputs();
    assert!(inputs.len() > 500, "{}", inputs.len());
    for (name, target) in fuzz::TARGETS {
        for (number, input) in inputs.iter().enumerate() {
            check(target, input, &format!("{name}, input {number}, undamaged"));
            let mut random = Random(seed ^ (number as u64) << 20);
            for copy in 0..COPIES {
                let context = format!("QUORUMLOG_SEED={seed}: {name}, input {number}, copy {copy}");
                check(target, &damaged(input, &mut random), &context);
            }
        }
    }
}

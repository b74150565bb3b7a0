//! Random histories that are legal by construction.

#![allow(dead_code, reason = "each test takes what it needs")]

mod world;

use jepsen::History;
use world::World;

/// SplitMix64: the same numbers for the same seed, everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`; none if there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        (!items.is_empty()).then(|| &items[self.below(items.len() as u64) as usize])
    }
}

/// A run of three nodes with `count` operations, faults, elections and retention, and all that can be recorded of it.
pub(crate) fn legal(seed: u64, count: u64) -> History {
    assert!(count >= 20, "shorter runs may show too little");
    let mut world = World::new(seed, 40);
    world.found();
    for at in 0..count {
        if at == count * 3 / 4 {
            world.heal();
        }
        world.disturb();
        world.operate();
        world.observe();
    }
    world.end()
}

/// `count` operations of clients on one log, and a final read: what a general checker can judge. About a fifth of
/// `spread` operations overlap.
pub(crate) fn clients(seed: u64, count: u64, spread: u64) -> History {
    let mut world = World::new(seed, spread);
    for _ in 0..count {
        world.operate();
    }
    world.end()
}

//! Random histories that are legal by construction.

use jepsen::{Action, History, Operation, Outcome};

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
}

/// `count` operations around the moments at which a log took them, and a final read.
pub(crate) fn legal(seed: u64, count: u64) -> History {
    let mut random = Random(seed);
    let mut operations = Vec::new();
    let mut log: Vec<(u64, u64)> = Vec::new();
    let (mut now, mut next) = (1_000, 1);
    for value in 0..count {
        now += 1 + random.below(20);
        let (call, ret) = (now - random.below(40), now + random.below(40));
        let mut outcome = Outcome::Ok;
        let mut ret = Some(ret);
        let action = if random.chance(60) {
            // Blanks and memberships take indexes that readers never see.
            next += u64::from(random.chance(10));
            let mut index = None;
            match random.below(10) {
                0 => outcome = Outcome::Fail,
                1 => (outcome, ret) = (Outcome::Info, None),
                unsure => {
                    log.push((next, value));
                    index = Some(next);
                    next += 1;
                    if unsure == 2 {
                        (outcome, index) = (Outcome::Info, None);
                    }
                }
            }
            Action::Append { value, index }
        } else {
            let linearizable = random.chance(50);
            let seen =
                log.len() - if linearizable { 0 } else { random.below(3) as usize }.min(log.len());
            let to =
                if linearizable { next } else { log.get(seen).map_or(next, |record| record.0) };
            let from = random.below(to + 1);
            let records = log[..seen].iter().copied().filter(|record| record.0 >= from).collect();
            Action::Read { from, to, records, bound: linearizable.then_some(to) }
        };
        operations.push(Operation { process: value % 8, call, ret, outcome, action });
    }
    let action = Action::FinalRead { from: 0, to: next, records: log };
    let (call, ret, outcome) = (now + 1_000, Some(now + 1_001), Outcome::Ok);
    operations.push(Operation { process: 99, call, ret, outcome, action });
    operations.sort_by_key(|op| op.call);
    History { operations }
}

//! The seeded generator that everything random in a simulation draws from.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A generator (xoshiro256++) whose numbers depend on its seed alone, on every machine and with
/// every compiler.
#[derive(Debug, Clone)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Self {
        let mut z = seed;
        let state = std::array::from_fn(|_| {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        });
        Self { state }
    }

    /// Another generator, for one purpose: what is drawn from it changes nothing here.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and is no iterator")]
    pub fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number of the range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start());
        if span == u64::MAX { self.next() } else { range.start() + self.below(span + 1) }
    }

    /// A time of the range, in whole milliseconds above its begin.
    pub fn time(&mut self, range: RangeInclusive<Duration>) -> Duration {
        let span = range.end().saturating_sub(*range.start()).as_millis();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        *range.start() + Duration::from_millis(self.within(0..=span))
    }

    /// True with this probability. Draws nothing for 0 and below.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.next() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    /// One of `items`; none if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_the_seed_alone() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<_, 4, _>(|_| random.next())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        // From the reference implementation: a change of the generator changes every seed's run.
        let mut known = Random { state: [1, 2, 3, 4] };
        assert_eq!([known.next(), known.next()], [41_943_041, 58_720_359]);
    }

    #[test]
    fn ranges_and_chances_are_kept() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!random.chance(0.0));
        assert!((0..100).all(|_| random.chance(1.0)));
        for _ in 0..1_000 {
            assert!((3..=5).contains(&random.within(3..=5)));
        }
        assert_eq!(random.below(0), 0);
        let mut items: Vec<_> = (0..50).collect();
        random.shuffle(&mut items);
        assert!(items != (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}

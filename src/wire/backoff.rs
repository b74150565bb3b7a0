//! How long to wait before the next dial.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// Longest wait; also how long a connection must last to count as a success.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);

/// Wait after that many failures in a row: doubling from 50 ms to 2 s, and then between half of it
/// and all of it, by `seed`, so that those who lost the same node do not come back at once.
pub(crate) fn delay(failures: u32, seed: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    let full = (FIRST * (1 << doublings)).min(LONGEST);
    full / 2 + full.mul_f64(fraction(seed ^ u64::from(failures))) / 2
}

/// A number from 0 to 1 that looks random (splitmix64).
fn fraction(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from(((z ^ (z >> 31)) >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_two_seconds_and_differ_between_links() {
        for seed in 0..100 {
            for failures in 1..40 {
                let full = (FIRST * (1 << (failures - 1).min(10))).min(LONGEST);
                let wait = delay(failures, seed);
                assert!((full / 2..=full).contains(&wait), "{failures} failures: {wait:?}");
            }
        }
        assert_ne!(delay(3, 1), delay(3, 2));
    }
}

//! Quantiles of a few values, each of which counts.

use std::time::Duration;

/// Durations, sorted.
#[derive(Debug, Clone, Default)]
pub(super) struct Sorted(Vec<Duration>);

impl Sorted {
    pub(super) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// The smallest one that at least this part of them does not exceed. Of fifty, the 99th percentile is the
    /// largest. In milliseconds; 0 if there are none.
    pub(super) fn quantile_ms(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        let at = self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        at.as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sorted = Sorted::new((1..=50).rev().map(Duration::from_millis).collect());
        let quantile = |part| sorted.quantile_ms(part);
        assert_eq!((quantile(0.0), quantile(0.5), quantile(0.98)), (1.0, 25.0, 49.0));
        assert_eq!((quantile(0.99), quantile(1.0)), (50.0, 50.0));
        assert_eq!(Sorted::default().quantile_ms(0.5), 0.0);
    }
}

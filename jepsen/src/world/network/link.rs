//! One direction between two hosts: how long things take there, and what goes wrong.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::Random;
use super::hosts::HostId;

/// How long bytes are under way: any time of the range, in whole milliseconds. Less than a tick counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// At least so long.
    pub min: Duration,
    /// At most so long.
    pub max: Duration,
}

impl Latency {
    /// From `min` to `max` milliseconds.
    pub const fn millis(min: u64, max: u64) -> Self {
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }

    pub(super) fn range(self) -> RangeInclusive<Duration> {
        self.min..=self.max
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::millis(1, 2)
    }
}

/// What happens to requests and responses between nodes, as probabilities for each ([`Mode::Bus`]).
///
/// [`Mode::Bus`]: super::Mode::Bus
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BusFaults {
    /// It never arrives.
    pub drop: f64,
    /// It arrives again, within `shuffle` or, one time in four, within `lateness`. Administrative
    /// requests are spared: to do one twice is not the same as to do it once.
    pub duplicate: f64,
    /// It takes up to `shuffle` longer, and others overtake it.
    pub reorder: f64,
    /// It takes `lateness` longer, and may find its connection gone.
    pub late: f64,
    /// Longest delay of what is reordered.
    pub shuffle: Duration,
    /// Delay of what is late.
    pub lateness: Latency,
}

impl BusFaults {
    /// No faults.
    pub const NONE: Self = Self {
        drop: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        late: 0.0,
        shuffle: Duration::from_millis(30),
        lateness: Latency::millis(100, 3_000),
    };
}

#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) cut: bool,
    pub(super) latency: Latency,
    /// Bytes per second.
    pub(super) rate: Option<u64>,
    /// When the bytes before have left a slow link.
    pub(super) busy_until: Duration,
    /// Probability that a piece arrives with another byte in it.
    pub(super) corruption: f64,
    pub(super) bus: BusFaults,
}

impl Link {
    /// When `bytes` that are written at `now` arrive, and whether the link's rate delays them.
    pub(super) fn arrival(
        &mut self,
        now: Duration,
        bytes: usize,
        random: &mut Random,
    ) -> (Duration, bool) {
        let latency = random.time(self.latency.range()).max(Duration::from_millis(1));
        let Some(rate) = self.rate else { return (now + latency, false) };
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(nanos);
        (self.busy_until + latency, true)
    }
}

/// All links; one that was never named is as it should be.
#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<(HostId, HostId), Link>,
    untouched: Link,
}

impl Links {
    pub(super) fn new(latency: Latency) -> Self {
        let untouched = Link {
            cut: false,
            latency,
            rate: None,
            busy_until: Duration::ZERO,
            corruption: 0.0,
            bus: BusFaults::NONE,
        };
        Self { links: BTreeMap::new(), untouched }
    }

    pub(super) fn get(&mut self, from: HostId, to: HostId) -> &mut Link {
        self.links.entry((from, to)).or_insert_with(|| self.untouched.clone())
    }

    pub(super) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.links.get(&(from, to)).is_some_and(|link| link.cut)
    }

    /// Links that are cut.
    pub(super) fn cuts(&self) -> Vec<(HostId, HostId)> {
        let cut = self.links.iter().filter(|(_, link)| link.cut);
        cut.map(|(ends, _)| *ends).collect()
    }

    /// Removes every fault. What is held at a cut is not moved by this.
    pub(super) fn reset(&mut self) {
        self.links.clear();
    }

    /// Sets the faults of all links, known or not.
    pub(super) fn set_bus_everywhere(&mut self, faults: BusFaults) {
        self.untouched.bus = faults;
        self.links.values_mut().for_each(|link| link.bus = faults);
    }
}

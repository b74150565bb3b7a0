//! openraft's timers, from ours.

use std::time::Duration;

use crate::config::RaftConfig;

/// What openraft calls the election timeout, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timers {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Timers {
    /// A follower of openraft's stands for election when its leader's lease, which is `max`, has run out, and then a
    /// random time from `min` to `max` has passed. Ours promises that it does so after a random time between the
    /// bounds of the configuration, all in all: so the lease is half of the upper bound. A vote must be
    /// answered within `min`, which is why that is no shorter than a quarter of it.
    pub(super) fn of(raft: &RaftConfig) -> Self {
        let (lower, upper) = (millis(raft.election_timeout_min), millis(raft.election_timeout_max));
        let lease = upper / 2;
        // A follower that got an append is sent no heartbeat for half an interval, and openraft looks at its
        // clock five times in each.
        let heartbeat = millis(raft.heartbeat_interval);
        let silence = rest_after_append(raft) + heartbeat + (heartbeat * 13 / 64).max(1);
        let min = lower.saturating_sub(lease).max(upper / 4).max(silence + 1);
        Self { min, max: lease.max(min + 1) }
    }
}

/// How long a follower that got an append is sent no heartbeat, in milliseconds.
pub(super) fn rest_after_append(raft: &RaftConfig) -> u64 {
    // Appends keep followers from standing for election, so heartbeats rest under load.
    millis(raft.heartbeat_interval) / 2
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raft(heartbeat: u64, lower: u64, upper: u64) -> RaftConfig {
        RaftConfig {
            heartbeat_interval: Duration::from_millis(heartbeat),
            election_timeout_min: Duration::from_millis(lower),
            election_timeout_max: Duration::from_millis(upper),
            ..RaftConfig::default()
        }
    }

    #[test]
    fn a_follower_stands_for_election_within_the_bounds_of_the_configuration() {
        let configs =
            [RaftConfig::default(), raft(25, 100, 200), raft(100, 500, 600), raft(40, 300, 600)];
        for raft in configs {
            let Timers { min, max } = Timers::of(&raft);
            let lower = millis(raft.election_timeout_min);
            let upper = millis(raft.election_timeout_max);
            assert!(min < max, "{raft:?}");
            assert!(max + min >= lower, "after {} ms or more: {raft:?}", max + min);
            assert!(2 * max <= upper, "after {} ms at most: {raft:?}", 2 * max);
        }
    }

    #[test]
    fn openraft_takes_the_timers_of_every_valid_configuration() {
        for heartbeat in [5, 6, 7, 50, 99, 1000] {
            for lower in [2 * heartbeat, 3 * heartbeat, 20 * heartbeat] {
                for upper in [lower + 1, lower + 2, 2 * lower, 10 * lower] {
                    let raft = raft(heartbeat, lower, upper);
                    let Timers { min, max } = Timers::of(&raft);
                    let config = openraft::Config {
                        heartbeat_interval: heartbeat,
                        heartbeat_min_interval: Some(rest_after_append(&raft)),
                        election_timeout_min: min,
                        election_timeout_max: max,
                        ..openraft::Config::default()
                    };
                    config.validate().unwrap_or_else(|error| panic!("{raft:?}: {error}"));
                }
            }
        }
    }
}

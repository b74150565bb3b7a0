//! Replicas without ticks. openraft looks at its clock five times in each heartbeat interval, for each log, and each look
//! goes through its whole loop. A look can find that a leader is to send heartbeats, or that a follower is to stand for
//! election. So a leader is told when to send them, by one clock for all logs of the node, and a follower has
//! ticks only when it has not heard its leader lately. Whatever else a replica is, it has them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::AppendEntriesResponse;
use tokio::time::Instant;

use super::group::Group;
use super::types::Types;
use crate::mutant::Mutant;

/// Steps of the clock in a heartbeat interval; as many as openraft takes.
pub(crate) const STEPS: u32 = 5;

/// What is needed to know whether a replica can do without ticks.
pub(super) struct Ticks {
    /// Moments are counted from here, in microseconds.
    opened: Instant,
    /// How long a follower is without ticks after it heard its leader.
    rest: Duration,
    /// Until then it is.
    until: AtomicU64,
    /// Steps since this leader was told to send heartbeats.
    steps: AtomicU32,
    /// Whether openraft ticks.
    on: AtomicBool,
}

impl Ticks {
    pub(super) fn new(config: &openraft::Config) -> Self {
        Self {
            opened: Instant::now(),
            rest: rest(config),
            until: AtomicU64::new(0),
            steps: AtomicU32::new(STEPS),
            on: AtomicBool::new(config.enable_tick),
        }
    }

    fn since_opened(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.opened)
    }

    /// Notes the answer to an append that came at `received`. If the leader was accepted, openraft's own time of it
    /// is no earlier.
    pub(super) fn answered(&self, received: Instant, answer: &AppendEntriesResponse<Types>) {
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            let until = self.since_opened(received) + self.rest;
            let until = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
            self.until.fetch_max(until, Ordering::Relaxed);
        }
    }

    fn heard_leader(&self) -> bool {
        let until = Duration::from_micros(self.until.load(Ordering::Relaxed));
        let once = Mutant::TicksStayOff.is_active() && !until.is_zero();
        once || self.since_opened(Instant::now()) < until
    }
}

/// No election may begin later for want of ticks. openraft begins none before the shortest election timeout has
/// passed since it accepted a leader or granted a vote, and for most of them waits for the leader's lease
/// besides. Half of that time is left for the next step of the clock, and for openraft's next tick.
fn rest(config: &openraft::Config) -> Duration {
    Duration::from_millis(config.election_timeout_min) / 2
}

impl Group {
    /// True on a node that has accepted the leader's appends lately. Whom [`Group::leader`] names need not be there: after
    /// a restart it is the leader of the last vote.
    pub(crate) fn hears_leader(&self) -> bool {
        self.ticks.heard_leader()
    }

    /// One step of the clock, which makes `STEPS` of them in each heartbeat interval.
    pub(crate) fn step(&self) {
        // Says `Shutdown` before openraft stops to take commands.
        let (leads, term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.state == ServerState::Leader, metrics.current_term)
        };
        let rests = if leads {
            self.heard.leads(term);
            self.beats()
        } else {
            // Who becomes the leader sends its first heartbeat in the next step.
            self.ticks.steps.store(STEPS, Ordering::Relaxed);
            self.ticks.heard_leader()
        };
        self.tick(!rests);
    }

    fn tick(&self, on: bool) {
        if self.ticks.on.swap(on, Ordering::Relaxed) != on {
            self.raft.runtime_config().tick(on);
        }
    }

    /// Has the leader send heartbeats if it is time, as openraft's ticks do: in the first step after an interval has
    /// passed. False if it could not be told.
    fn beats(&self) -> bool {
        let steps = self.ticks.steps.load(Ordering::Relaxed).saturating_add(1);
        if steps <= STEPS {
            self.ticks.steps.store(steps, Ordering::Relaxed);
            return true;
        }
        // Pending only if the core's queue is full. The core's ticks have another.
        let trigger = self.raft.trigger();
        let telling = std::pin::pin!(trigger.heartbeat());
        let told = matches!(tokio::task::unconstrained(telling).now_or_never(), Some(Ok(())));
        if told {
            self.ticks.steps.store(0, Ordering::Relaxed);
        }
        told
    }

    /// Gives the replica its ticks back, for when the clock stops.
    pub(crate) fn tick_by_itself(&self) {
        self.tick(true);
    }

    #[cfg(test)]
    pub(crate) fn ticks(&self) -> bool {
        self.ticks.on.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::group::raft_config;
    use super::*;
    use crate::config::Config;
    use crate::record::LogName;

    #[test]
    fn ticks_are_back_before_openraft_could_begin_an_election() {
        for heartbeat in [5, 6, 7, 33, 100, 999] {
            for lower in [2 * heartbeat, 3 * heartbeat, 20 * heartbeat] {
                let mut config = Config::new(1, "/data");
                config.raft.heartbeat_interval = Duration::from_millis(heartbeat);
                config.raft.election_timeout_min = Duration::from_millis(lower);
                config.raft.election_timeout_max = Duration::from_millis(2 * lower);
                let raft = raft_config(&config, &LogName::new("x").expect("a name"));
                let raft = raft.expect("a valid configuration");
                let (step, tick) = (config.raft.heartbeat_interval / STEPS, heartbeat * 13 / 64);
                let latest = rest(&raft) + step + Duration::from_millis(tick);
                assert!(latest < Duration::from_millis(raft.election_timeout_min), "{raft:?}");
            }
        }
    }
}

//! One clock for the replicas of all logs.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;

use super::inner::NodeInner;
use crate::raft::STEPS;

/// Runs until the node stops.
pub(super) async fn keep_time(node: Arc<NodeInner>) {
    let mut stopping = node.stopping.subscribe();
    let mut clock = tokio::time::interval(node.config.raft.heartbeat_interval / STEPS);
    // A step that is late puts the next ones off: heartbeats keep their distance.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let clocked = Clocked(node);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        clocked.0.each_group(|group| group.step());
    }
}

/// Replicas go by the node's clock for as long as this lives, and by their own ticks after that.
struct Clocked(Arc<NodeInner>);

impl Drop for Clocked {
    fn drop(&mut self) {
        self.0.each_group(|group| group.tick_by_itself());
    }
}

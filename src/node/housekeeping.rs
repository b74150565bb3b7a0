//! What a node does now and then: retention, free space.

use std::sync::Arc;
use std::time::Duration;

use super::inner::NodeInner;
use crate::error::with_sources;
use crate::raft::Group;
use crate::record::LogId;

/// How often free space and retention are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one step of retention may take.
const RETENTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until the node stops.
pub(super) async fn keep_house(node: Arc<NodeInner>) {
    let mut stopping = node.stopping.subscribe();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        node.check_space();
        node.each_group(|group| group.forget_silent());
        #[cfg(feature = "metrics")]
        super::metrics::record_gauges(&node);
    }
}

/// Applies retention until the node stops. By itself, and to all logs at once: a step waits for the log's disk
/// and for replication that is under way.
pub(super) async fn keep_retention(node: Arc<NodeInner>) {
    let mut stopping = node.stopping.subscribe();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stopped = async move {
        // An error means that the node is gone, which is the same.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let retaining = async {
        loop {
            ticks.tick().await;
            node.retain().await;
        }
    };
    tokio::select! {
        () = stopped => {}
        () = retaining => {}
    }
}

impl NodeInner {
    /// Looks at the space that this node's disk has, and for logs that it leads those of a majority.
    pub(super) fn check_space(&self) {
        let groups = self.groups();
        match self.disk.free_space(&self.config.data_dir) {
            Ok(free) => {
                // A log stalls when the file system has no room in spite of what it says.
                let stalled = groups.iter().any(|group| group.log.stalled_for_space());
                if self.space.note(free, stalled) {
                    let reserve = self.config.storage.disk_reserve.bytes();
                    let level = self.space.level();
                    tracing::warn!(free, reserve, ?level, "the disk's space is another");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot tell free space"),
        }
        groups.iter().for_each(|group| group.note_space());
    }

    /// True if a log of the list has no entry here yet.
    fn has_unfounded(&self) -> bool {
        let founded =
            |id| self.group(id).is_some_and(|group: Arc<Group>| group.log.last_id().is_some());
        self.catalog.state().logs.values().any(|log| !founded(log.id))
    }

    async fn retain(&self) {
        let now_ms = self.disk.now_ms();
        let mut groups = self.groups();
        if self.has_unfounded() {
            // Who may found a log is read from the system log, as of the log's record there.
            groups.retain(|group| group.id != LogId::SYSTEM);
        }
        let retaining = groups.iter().map(async |group| {
            match group.retain(&self.config.retention, now_ms, RETENTION_TIMEOUT).await {
                Ok(Some(begin)) => {
                    tracing::info!(log = %group.name, begin, "retention moved the begin")
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(log = %group.name, error = %with_sources(&error), "retention");
                }
            }
        });
        futures_util::future::join_all(retaining).await;
    }
}

//! What a node does now and then: retention, free space.

use std::sync::Arc;
use std::time::Duration;

use super::inner::NodeInner;
use super::log_clock::{ClockFile, Jump};
use crate::error::with_sources;
use crate::raft::Group;
use crate::record::LogId;

/// How often free space and retention are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Ticks after which the logs' clock is saved.
const SAVED_TICKS: u64 = 60;
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
        for tick in 1_u64.. {
            ticks.tick().await;
            node.retain().await;
            if tick.is_multiple_of(SAVED_TICKS) {
                node.save_log_clock();
            }
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
                    tracing::warn!(free, reserve, ?level, "the disk's free space crossed a limit");
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

    /// After a start, once all logs are open: the clock of the logs has shown what their segments are stamped with. Not more
    /// than the wall clock shows, though: an older build stamped by a wall clock that may have been wrong.
    pub(super) fn begin_log_clock(&self) {
        if self.config.retention.age_max.is_none() {
            return;
        }
        for group in self.groups() {
            let segments = group.log.segments();
            let sealed = segments.iter().filter(|segment| segment.sealed);
            let newest_ms = sealed.map(|segment| segment.newest_ms).max().unwrap_or(0);
            self.log_clock.raise(newest_ms.min(self.disk.now_ms()));
        }
        self.save_log_clock();
    }

    /// Saves the clock of the logs, so that a restart with a wrong wall clock makes nothing old. Only ages need it.
    pub(super) fn save_log_clock(&self) {
        if self.config.retention.age_max.is_none() {
            return;
        }
        let now_ms = self.log_clock.now_ms(self.disk.now_ms());
        if let Err(error) = ClockFile::new(&self.config.data_dir).save(&*self.disk, now_ms) {
            tracing::warn!(error = %with_sources(&error), "the clock of the logs is not saved");
        }
    }

    fn tell_jump(&self, now_ms: u64) {
        let Some(Jump { seconds }) = self.log_clock.take_jump() else { return };
        let behind = self.disk.now_ms().saturating_sub(now_ms) / 1_000;
        tracing::warn!(
            seconds,
            behind,
            "the wall clock has jumped: ages of segments follow it, at most twice as fast as time"
        );
        #[cfg(feature = "metrics")]
        metrics::counter!("quorumlog_clock_jumps_total").increment(1);
    }

    async fn retain(&self) {
        let now_ms = self.log_clock.now_ms(self.disk.now_ms());
        self.tell_jump(now_ms);
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

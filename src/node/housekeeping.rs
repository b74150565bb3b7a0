//! What a node does now and then: retention, free space, the clock of its logs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock_file::{ClockFile, Saved};
use super::inner::NodeInner;
use super::log_clock::Jump;
use super::per_log::PerLog;
use crate::error::with_sources;
use crate::raft::Group;
use crate::record::LogId;
use crate::seam::Disk;

/// How often free space and retention are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The logs' clock is saved at least this often, and as often as this part of `retention.age_max`: what a crash makes of
/// the time since is time that the node was off.
const SAVED_INTERVAL_MAX: Duration = Duration::from_secs(60);
const SAVED_PART: u32 = 16;
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

/// Applies retention until the node stops. By itself: a step waits for the log's disk and for replication that is under way.
pub(super) async fn keep_retention(node: Arc<NodeInner>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let retaining = async {
        let mut logs = PerLog::default();
        loop {
            ticks.tick().await;
            node.retain(&mut logs);
        }
    };
    tokio::select! {
        () = node.stopped() => {}
        () = retaining => {}
    }
}

/// Tells of jumps of the wall clock and saves the clock of the logs, until the node stops. By itself: no log that is slow
/// may delay it.
pub(super) async fn keep_log_clock(node: Arc<NodeInner>) {
    let age_max = node.config.retention.age_max.unwrap_or(Duration::MAX);
    let interval = (age_max / SAVED_PART).clamp(INTERVAL, SAVED_INTERVAL_MAX);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = Instant::now() + interval;
    let keeping = async {
        loop {
            ticks.tick().await;
            let now_ms = node.log_clock.now_ms(node.clock.now_ms());
            // At once after a jump, or the next run would take it for time that the node was off.
            if node.tell_jump(now_ms) || Instant::now() >= next {
                next = Instant::now() + interval;
                node.save_log_clock_beside().await;
            }
        }
    };
    tokio::select! {
        () = node.stopped() => {}
        () = keeping => {}
    }
}

fn save(disk: &dyn Disk, data_dir: &Path, saved: &Saved) {
    if let Err(error) = ClockFile::new(data_dir).save(disk, saved) {
        tracing::warn!(error = %with_sources(&error), "the clock of the logs is not saved");
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
            self.log_clock.raise(newest_ms.min(self.clock.now_ms()));
        }
        self.save_log_clock();
    }

    /// Saves the clock of the logs, so that a restart with a wrong wall clock makes nothing old. Only ages need it. Blocks
    /// on the disk.
    pub(super) fn save_log_clock(&self) {
        if self.config.retention.age_max.is_some() {
            let saved = self.log_clock.to_save(self.clock.now_ms());
            save(&*self.disk, &self.config.data_dir, &saved);
        }
    }

    /// The same, on the thread that saves checkpoints.
    async fn save_log_clock_beside(&self) {
        if self.config.retention.age_max.is_none() {
            return;
        }
        let Some(system) = self.system() else { return };
        let (disk, dir) = (self.disk.clone(), self.config.data_dir.clone());
        let saved = self.log_clock.to_save(self.clock.now_ms());
        system.beside(move || save(&*disk, &dir, &saved)).await;
    }

    /// Logs and counts a jump of the wall clock. True if there was one.
    fn tell_jump(&self, now_ms: u64) -> bool {
        let Some(Jump { seconds }) = self.log_clock.take_jump() else { return false };
        let behind = i128::from(self.clock.now_ms()) - i128::from(now_ms);
        let behind = i64::try_from(behind / 1_000).unwrap_or(i64::MAX);
        tracing::warn!(
            seconds,
            behind,
            "the wall clock has jumped: ages of segments go on as time elapses"
        );
        #[cfg(feature = "metrics")]
        metrics::counter!("quorumlog_clock_jumps_total").increment(1);
        true
    }

    fn retain(&self, logs: &mut PerLog) {
        let now_ms = self.log_clock.now_ms(self.clock.now_ms());
        let mut groups = self.groups();
        if self.has_unfounded() {
            // Who may found a log is read from the system log, as of the log's record there.
            groups.retain(|group| group.id != LogId::SYSTEM);
        }
        let groups = groups.into_iter().map(|group| (group.id, group)).collect();
        logs.round(groups, |group| {
            let retention = self.config.retention.clone();
            async move {
                match group.retain(&retention, now_ms, RETENTION_TIMEOUT).await {
                    Ok(Some(begin)) => {
                        tracing::info!(log = %group.name, begin, "retention moved the begin");
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(log = %group.name, error = %with_sources(&error), "retention");
                    }
                }
            }
        });
    }
}

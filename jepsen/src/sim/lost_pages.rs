//! Who has lost pages, as the harness knows it: what the cluster may lose when they are too many at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorumlog::simulation::may_lack_records;
use quorumlog::{Flush, LogId};

use super::cluster::Cluster;
use super::fault::{Class, Fault};
use super::node::{FLUSH_INTERVAL_MS, data_dir, host_of};
use super::schedule::CHECKPOINT_CUT_MS;
use super::shared::LogState;

/// From a write to the start of its flush the writer may be at work on what came before.
const FLUSH_SLACK_MS: u64 = 20;

/// What is known of lost pages.
#[derive(Debug, Default)]
pub(super) struct LostPages {
    /// Nodes that may lack what they had acknowledged, as was seen last, and since when each has.
    lacking: BTreeMap<u64, Duration>,
    /// Logs with too many of them.
    too_many: BTreeSet<LogId>,
    /// There were too many of them once, in some log.
    were_too_many: bool,
    /// Some node has lost pages.
    lost_any: bool,
    /// Starts of a node, and how often a copy of it has gone back since the last one.
    rewinds: BTreeMap<(u64, LogId), (u64, u64)>,
}

impl Cluster {
    /// A node has lost pages: if it is one too many, what no majority has flushed may be gone.
    pub(super) fn note_lost_pages(&mut self, node: u64) {
        self.shared.auditor().note_voters(&self.shared.nodes());
        self.look_who_lacks();
        self.lost_pages.lacking.entry(node).or_insert_with(|| self.world.now());
        self.lost_pages.lost_any = true;
        for log in self.shared.logs() {
            if !self.too_many(log.id) {
                continue;
            }
            self.lost_pages.too_many.insert(log.id);
            self.lost_pages.were_too_many = true;
            let from = self.shared.auditor().flushed_by_majority(log.id);
            // Whoever lacked something already may hold none of what was acknowledged before it lost its pages.
            let first = self.lost_pages.lacking.values().min().copied().unwrap_or_default();
            let unflushed = Duration::from_millis(self.unflushed_ms());
            log.recorder.loss(from, first.saturating_sub(unflushed).as_nanos() as u64);
            self.bit("too-many-lost-pages", 1);
            let what =
                format!("too many lost pages: {} is sure to hold what is below {from}", log.name);
            self.shared.event(&host_of(node), what);
        }
    }

    /// Looks for nodes that have lost pages while they ran, and for those that are trusted again.
    pub(super) fn observe_lost_pages(&mut self) {
        if self.shared.profile.flush != Flush::Async {
            return;
        }
        for node in self.look_who_lacks() {
            self.note_lost_pages(node);
        }
        let over = |log: &Arc<LogState>| {
            self.lost_pages.too_many.contains(&log.id) && !self.too_many(log.id)
        };
        let over: Vec<_> = self.shared.logs().into_iter().filter(over).collect();
        for log in over {
            self.lost_pages.too_many.remove(&log.id);
            log.recorder.whole_again();
            self.shared.event("cluster", format!("enough copies of {} are whole", log.name));
        }
    }

    /// Counts how often nodes took back what they had shown.
    pub(super) fn observe_rewinds(&mut self) {
        if self.shared.profile.flush != Flush::Async {
            return;
        }
        for (id, node) in self.shared.nodes() {
            let starts = self.machines[&id].starts;
            for status in node.statuses() {
                let log = LogId(status.log_id);
                let (of_start, seen) = self.lost_pages.rewinds.entry((id, log)).or_default();
                if *of_start != starts {
                    (*of_start, *seen) = (starts, 0);
                }
                let more = status.rewinds.saturating_sub(*seen);
                *seen += more;
                if more > 0 {
                    self.bit("rewind", more);
                    let what = format!("{} went back, to {} at least", status.log, status.stable);
                    self.shared.event(&host_of(id), what);
                }
            }
        }
    }

    /// Counts a run in which nodes lost pages, and never too many of them at once: it may lose nothing.
    pub(super) fn note_all_kept(&self) {
        if self.lost_pages.lost_any && !self.lost_pages.were_too_many {
            self.bit("never-too-many", 1);
        }
    }

    /// Looks at the disks. Those that have come to lack something since the last look.
    fn look_who_lacks(&mut self) -> Vec<u64> {
        let now = self.world.now();
        let lacks = |id: &u64| may_lack_records(&self.machines[id].disk, data_dir());
        let lacking: BTreeSet<u64> = self.machines.keys().copied().filter(lacks).collect();
        let known = &mut self.lost_pages.lacking;
        known.retain(|id, _| lacking.contains(id));
        let more: Vec<u64> = lacking.into_iter().filter(|id| !known.contains_key(id)).collect();
        known.extend(more.iter().map(|id| (*id, now)));
        more
    }

    /// True if the voters that have everything are no majority.
    fn too_many(&self, log: LogId) -> bool {
        let auditor = self.shared.auditor();
        let whole = |voters: &BTreeSet<u64>| {
            let lacking =
                voters.iter().filter(|id| self.lost_pages.lacking.contains_key(id)).count();
            (voters.len() - lacking) * 2 > voters.len()
        };
        !auditor.configs(log).iter().all(whole)
    }

    /// How long something that was acknowledged may stay without a flush. No bound where disks or nodes stand still.
    fn unflushed_ms(&self) -> u64 {
        let profile = &self.shared.profile;
        let stuck_ms = if profile.allows(Fault::CheckpointCut) { CHECKPOINT_CUT_MS.end } else { 0 };
        let stands_still = |class: &Class| {
            use Class::{DiskError, DiskSlow, Logs, Membership, Pause};
            matches!(class, DiskError | DiskSlow | Logs | Membership | Pause)
        };
        match profile.writer_steps || profile.classes.iter().any(stands_still) {
            true => u64::MAX,
            false => FLUSH_INTERVAL_MS + 3 * profile.disk_ms.end + FLUSH_SLACK_MS + stuck_ms,
        }
    }
}

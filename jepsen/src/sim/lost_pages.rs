//! Who has lost pages, as the harness knows it: what the cluster may lose when they are too many at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorumlog::simulation::may_lack_records;
use quorumlog::{Flush, LogId};

use super::cluster::Cluster;
use super::fault::{Class, Fault};
use super::node::{FLUSH_INTERVAL_MS, data_dir, host_of};
use super::schedule::CHECKPOINT_CUT_MS;
use super::shared::LogState;

const NANOS: u64 = 1_000_000;
/// From a write to the start of its flush the writer may be at work on what came before.
const FLUSH_SLACK_MS: u64 = 20;

/// What is known of lost pages.
#[derive(Debug, Default)]
pub(super) struct LostPages {
    /// Nodes that may lack what they had acknowledged, as was seen last.
    lacking: BTreeSet<u64>,
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
        self.lost_pages.lacking = self.lacking();
        self.lost_pages.lacking.insert(node);
        self.lost_pages.lost_any = true;
        for log in self.shared.logs() {
            if !self.too_many(log.id) {
                continue;
            }
            self.lost_pages.too_many.insert(log.id);
            self.lost_pages.were_too_many = true;
            let from = self.shared.auditor().flushed_by_majority(log.id);
            log.recorder.loss(from, self.unflushed_ms().saturating_mul(NANOS));
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
        let lacking = self.lacking();
        let lost: Vec<u64> = lacking.difference(&self.lost_pages.lacking).copied().collect();
        self.lost_pages.lacking = lacking;
        for node in lost {
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

    fn lacking(&self) -> BTreeSet<u64> {
        let lacks = |id: &u64| may_lack_records(&self.machines[id].disk, data_dir());
        self.machines.keys().copied().filter(lacks).collect()
    }

    /// True if the voters that have everything are no majority.
    fn too_many(&self, log: LogId) -> bool {
        let auditor = self.shared.auditor();
        let whole = |voters: &BTreeSet<u64>| {
            let lacking = voters.intersection(&self.lost_pages.lacking).count();
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

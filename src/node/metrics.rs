//! Gauges of a node, set once a second (feature `metrics`).

use super::inner::NodeInner;
use crate::member::{Role, Status};
use crate::problem::ProblemKind;
use crate::raft::Space;
use crate::record::LogId;

/// True if this node leads the log, and a majority answers it.
fn leads(status: &Status) -> bool {
    status.role == Role::Leader && status.leader.is_some()
}

/// Sets the gauges of every log that the node holds.
#[allow(clippy::cast_precision_loss)] // indexes are exact in an f64 up to 2^53
pub(super) fn record_gauges(node: &NodeInner) {
    metrics::gauge!("quorumlog_disk_full")
        .set(f64::from(u8::from(node.space.level() < Space::Ample)));
    metrics::gauge!("quorumlog_disk_free_bytes").set(node.space.free() as f64);
    let behind = node.clock.now_ms().saturating_sub(node.log_clock.now_ms(node.clock.now_ms()));
    metrics::gauge!("quorumlog_log_clock_behind_seconds").set(behind as f64 / 1_000.0);
    let problems = node.problems();
    for kind in ProblemKind::ALL {
        let count = problems.iter().filter(|problem| problem.kind == kind).count();
        metrics::gauge!("quorumlog_problems", "kind" => kind.name()).set(count as f64);
    }
    let statuses = node.statuses();
    for status in &statuses {
        let gauge = |name: &'static str, value: u64| {
            metrics::gauge!(name, "log" => status.log.clone()).set(value as f64);
        };
        gauge("quorumlog_term", status.term);
        gauge("quorumlog_is_leader", u64::from(leads(status)));
        gauge("quorumlog_has_leader", u64::from(status.leader.is_some()));
        gauge("quorumlog_stopped", u64::from(status.role == Role::Stopped));
        record_lags(status);
    }
    for status in &statuses {
        // Of a log that could not be opened there is nothing more.
        let Some(group) = node.group(LogId(status.log_id)) else { continue };
        let log = &status.log;
        let gauge = |name: &'static str, value: u64| {
            metrics::gauge!(name, "log" => log.clone()).set(value as f64);
        };
        gauge("quorumlog_damaged", u64::from(group.unfit.damage().is_some()));
        gauge("quorumlog_suspect", u64::from(status.suspect));
        gauge("quorumlog_stable_index", status.stable);
        gauge("quorumlog_begin_index", status.begin);
        gauge("quorumlog_committed_index", status.committed);
        gauge("quorumlog_end_index", status.end);
        gauge("quorumlog_applied_index", status.applied);
        gauge("quorumlog_disk_bytes", status.disk_bytes);
        gauge("quorumlog_inflight_bytes", group.inflight.bytes());
        let counts = group.log.counts();
        let counter = |name: &'static str, value: u64| {
            metrics::counter!(name, "log" => log.clone()).absolute(value);
        };
        counter("quorumlog_groups_total", counts.groups);
        counter("quorumlog_entries_total", counts.entries);
        counter("quorumlog_flushes_total", counts.flushes);
        counter("quorumlog_writer_wakeups_total", counts.wakeups);
        counter("quorumlog_suspect_elections_total", status.suspect_elections);
        counter("quorumlog_rewinds_total", status.rewinds);
        counter("quorumlog_lost_records_max_total", status.lost_records_max);
    }
}

/// Entries that a leader knows each follower to miss. A node that does not lead knows nothing of others; what it knew when
/// it led must not stay.
#[allow(clippy::cast_precision_loss)]
fn record_lags(status: &Status) {
    for member in status.members.iter().filter(|member| member.member.id != status.node_id) {
        let labels = [("log", status.log.clone()), ("follower", member.member.id.to_string())];
        let lag = member.matched.map_or(0, |matched| status.end.saturating_sub(matched));
        metrics::gauge!("quorumlog_replication_lag_entries", &labels).set(lag as f64);
    }
}

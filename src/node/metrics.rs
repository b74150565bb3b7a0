//! Gauges of a node, set once a second (feature `metrics`).

use super::inner::NodeInner;
use crate::member::Role;
use crate::problem::ProblemKind;
use crate::raft::Space;

/// Sets the gauges of every log that the node holds.
#[allow(clippy::cast_precision_loss)] // indexes are exact in an f64 up to 2^53
pub(super) fn record_gauges(node: &NodeInner) {
    metrics::gauge!("quorumlog_disk_full")
        .set(f64::from(u8::from(node.space.level() < Space::Ample)));
    metrics::gauge!("quorumlog_disk_free_bytes").set(node.space.free() as f64);
    let behind = node.disk.now_ms().saturating_sub(node.log_clock.now_ms(node.disk.now_ms()));
    metrics::gauge!("quorumlog_log_clock_behind_seconds").set(behind as f64 / 1_000.0);
    let problems = node.problems();
    for kind in ProblemKind::ALL {
        let count = problems.iter().filter(|problem| problem.kind == kind).count();
        metrics::gauge!("quorumlog_problems", "kind" => kind.name()).set(count as f64);
    }
    for not_open in node.not_open().values() {
        metrics::gauge!("quorumlog_stopped", "log" => not_open.name.to_string()).set(1.0);
    }
    for group in node.groups() {
        let status = group.status();
        let log = status.log.clone();
        let gauge = |name: &'static str, value: u64| {
            metrics::gauge!(name, "log" => log.clone()).set(value as f64);
        };
        gauge("quorumlog_term", status.term);
        gauge("quorumlog_is_leader", u64::from(status.role == Role::Leader));
        gauge("quorumlog_has_leader", u64::from(status.leader.is_some()));
        gauge("quorumlog_stopped", u64::from(status.role == Role::Stopped));
        gauge("quorumlog_damaged", u64::from(group.is_damaged(group.node())));
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
        for member in status.members.iter().filter(|member| member.member.id != status.node_id) {
            let Some(matched) = member.matched else { continue };
            let labels = [("log", log.clone()), ("follower", member.member.id.to_string())];
            metrics::gauge!("quorumlog_replication_lag_entries", &labels)
                .set(status.end.saturating_sub(matched) as f64);
        }
    }
}

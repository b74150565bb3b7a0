//! Results as rows: for people, and as JSON lines that can be compared with those of other systems.

use quorumlog::NodeId;
use serde::Serialize;

use crate::latency::micros;
use crate::output::Table;

use super::{Measured, Round};

/// One round.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    system: &'static str,
    flush: String,
    clients: u32,
    size: u64,
    logs: u32,
    ops_s: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    /// CPU time of all nodes for one append; none where no process was sampled.
    cpu_us_per_op: Option<f64>,
    /// Of the node that holds most: resident memory, with mapped page cache, and its own part.
    node_rss_mib: Option<f64>,
    node_rss_anon_mib: Option<f64>,
    /// Of the node that has most.
    threads: Option<u64>,
    /// Voluntary context switches of all nodes for one append.
    wakeups_per_op: Option<f64>,
    errors: u64,
    nodes: Vec<NodeRow>,
}

/// One node in one round.
#[derive(Debug, Clone, Serialize)]
struct NodeRow {
    node: NodeId,
    cpu_us_per_op: f64,
    cpu_cores: f64,
    rss_mib: f64,
    rss_anon_mib: f64,
    threads: u64,
    wakeups_per_op: f64,
}

impl Row {
    pub(super) fn new(round: &Round, logs: u32, measured: &Measured) -> Self {
        let seconds = measured.took.as_secs_f64().max(f64::MIN_POSITIVE);
        let latency = &measured.latency;
        let nodes = NodeRow::all(measured, seconds);
        let sampled = !nodes.is_empty();
        let sum = |of: fn(&NodeRow) -> f64| sampled.then(|| nodes.iter().map(of).sum());
        let most = |of: fn(&NodeRow) -> f64| nodes.iter().map(of).reduce(f64::max);
        Self {
            system: "quorumlog",
            flush: round.flush.to_string(),
            clients: round.clients,
            size: round.size as u64,
            logs,
            ops_s: latency.count as f64 / seconds,
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
            p999_us: latency.p999_us,
            max_us: latency.max_us,
            cpu_us_per_op: sum(|node| node.cpu_us_per_op),
            node_rss_mib: most(|node| node.rss_mib),
            node_rss_anon_mib: most(|node| node.rss_anon_mib),
            threads: nodes.iter().map(|node| node.threads).max(),
            wakeups_per_op: sum(|node| node.wakeups_per_op),
            errors: measured.errors,
            nodes,
        }
    }
}

impl NodeRow {
    fn all(measured: &Measured, seconds: f64) -> Vec<Self> {
        let ops = measured.latency.count.max(1) as f64;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let nodes = measured.nodes.iter();
        nodes
            .map(|(node, before, after)| {
                let (cpu_us, wakeups) = after.since(before);
                Self {
                    node: *node,
                    cpu_us_per_op: cpu_us as f64 / ops,
                    cpu_cores: cpu_us as f64 / 1e6 / seconds,
                    rss_mib: mib(after.rss_bytes),
                    rss_anon_mib: mib(after.rss_anon_bytes),
                    threads: after.threads,
                    wakeups_per_op: wakeups as f64 / ops,
                }
            })
            .collect()
    }
}

/// All rounds.
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&[
            "flush",
            "clients",
            "size",
            "logs",
            "ops/s",
            "p50",
            "p99",
            "p99.9",
            "max",
            "cpu us/op",
            "rss MiB",
            "anon MiB",
            "threads",
            "wakeups/op",
            "errors",
        ]);
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for row in &self.rows {
            table.row(vec![
                row.flush.clone(),
                row.clients.to_string(),
                row.size.to_string(),
                row.logs.to_string(),
                format!("{:.0}", row.ops_s),
                micros(row.p50_us),
                micros(row.p99_us),
                micros(row.p999_us),
                micros(row.max_us),
                number(row.cpu_us_per_op, 1),
                number(row.node_rss_mib, 1),
                number(row.node_rss_anon_mib, 1),
                row.threads.map_or_else(|| "-".to_owned(), |threads| threads.to_string()),
                number(row.wakeups_per_op, 2),
                row.errors.to_string(),
            ]);
        }
        table
    }

    /// What each node cost; none if no process was sampled.
    pub(super) fn node_table(&self) -> Option<Table> {
        let mut table = Table::new(&[
            "flush",
            "clients",
            "node",
            "cpu us/op",
            "cpu cores",
            "rss MiB",
            "anon MiB",
            "threads",
            "wakeups/op",
        ]);
        for row in &self.rows {
            for node in &row.nodes {
                table.row(vec![
                    row.flush.clone(),
                    row.clients.to_string(),
                    node.node.to_string(),
                    format!("{:.1}", node.cpu_us_per_op),
                    format!("{:.2}", node.cpu_cores),
                    format!("{:.1}", node.rss_mib),
                    format!("{:.1}", node.rss_anon_mib),
                    node.threads.to_string(),
                    format!("{:.2}", node.wakeups_per_op),
                ]);
            }
        }
        self.rows.iter().any(|row| !row.nodes.is_empty()).then_some(table)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorumlog::Flush;

    use super::*;
    use crate::latency::Percentiles;
    use crate::proc::ProcessSample;

    fn round() -> Round {
        let (warmup, duration) = (Duration::ZERO, Duration::from_secs(2));
        Round { clients: 64, size: 1024, flush: Flush::Sync, warmup, duration }
    }

    fn sample(cpu_us: u64, rss_mib: u64, voluntary_switches: u64) -> ProcessSample {
        ProcessSample {
            cpu_us,
            rss_bytes: rss_mib << 20,
            rss_anon_bytes: (rss_mib / 2) << 20,
            threads: 5,
            voluntary_switches,
        }
    }

    fn measured() -> Measured {
        Measured {
            latency: Percentiles { count: 40_000, p50_us: 900, ..Percentiles::default() },
            errors: 1,
            took: Duration::from_secs(2),
            nodes: vec![
                (1, sample(1_000_000, 40, 100), sample(3_000_000, 64, 20_100)),
                (2, sample(0, 40, 0), sample(1_000_000, 48, 10_000)),
            ],
        }
    }

    #[test]
    fn costs_are_per_append_summed_over_the_nodes() {
        let row = Row::new(&round(), 1, &measured());
        assert_eq!(row.ops_s, 20_000.0);
        assert_eq!(row.cpu_us_per_op, Some(75.0));
        assert_eq!(row.wakeups_per_op, Some(0.75));
        assert_eq!(row.node_rss_mib, Some(64.0));
        assert_eq!(row.node_rss_anon_mib, Some(32.0));
        assert_eq!(row.nodes[0].cpu_cores, 1.0);
    }

    #[test]
    fn json_has_the_fields_that_comparisons_use() {
        let json = serde_json::to_value(Row::new(&round(), 1, &measured())).expect("json");
        for field in [
            "system",
            "flush",
            "clients",
            "size",
            "logs",
            "ops_s",
            "p50_us",
            "p99_us",
            "p999_us",
            "cpu_us_per_op",
            "node_rss_mib",
            "threads",
            "wakeups_per_op",
            "errors",
        ] {
            assert!(!json[field].is_null(), "{field}: {json}");
        }
    }

    #[test]
    fn without_samples_the_costs_are_unknown_and_not_zero() {
        let row = Row::new(&round(), 1, &Measured { nodes: Vec::new(), ..measured() });
        assert_eq!(row.cpu_us_per_op, None);
        let mut report = Report::new();
        report.add(row);
        assert!(report.node_table().is_none());
        assert!(report.table().to_string().contains(" - "));
    }

    #[test]
    fn a_round_without_appends_divides_by_nothing() {
        let row =
            Row::new(&round(), 1, &Measured { latency: Percentiles::default(), ..measured() });
        assert_eq!(row.ops_s, 0.0);
        assert!(row.cpu_us_per_op.is_some_and(f64::is_finite));
    }
}

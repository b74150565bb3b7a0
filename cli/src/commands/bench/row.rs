//! Results as rows: everything for people and for JSON, and the few fields that systems are compared by.

use quorumlog::NodeId;
use serde::Serialize;

use super::case::Case;
use super::load::Found;
use super::systems::{ClientKind, NodeSample};
use crate::proc::{ProcessCost, ProcessSample};

/// What one repetition found.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    pub(super) found: Found,
    /// Of each node, at the begin and at the end of the measurement.
    pub(super) before: Vec<NodeSample>,
    pub(super) after: Vec<NodeSample>,
    /// Of the process that the load ran in.
    pub(super) client: ProcessCost,
}

/// The median of the repetitions of one case on one system.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) system: &'static str,
    pub(super) client: ClientKind,
    #[serde(flatten)]
    pub(super) case: Case,
    pub(super) repetitions: usize,
    /// Records acknowledged a second.
    pub(super) ops_s: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
    pub(super) max_us: u64,
    /// CPU time of all nodes for one record; none where no process was sampled.
    pub(super) cpu_us_per_op: Option<f64>,
    /// Of the process that the load ran in.
    pub(super) client_cpu_us_per_op: f64,
    /// Of the node that holds most: resident memory, with mapped page cache, and its own part.
    pub(super) node_rss_mib: Option<f64>,
    pub(super) node_rss_anon_mib: Option<f64>,
    /// Of the node that has most.
    pub(super) threads: Option<u64>,
    /// Of all nodes for one record: voluntary context switches, flushes, bytes that disks were given.
    pub(super) wakeups_per_op: Option<f64>,
    pub(super) flushes_per_op: Option<f64>,
    pub(super) disk_bytes_per_op: Option<f64>,
    pub(super) errors: u64,
    /// Ratios to the reference in the same case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to_reference: Option<Ratios>,
    pub(super) nodes: Vec<NodeRow>,
    #[serde(skip)]
    pub(super) curve: Vec<(f64, u64)>,
}

/// A row by that of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ratios {
    pub(super) ops: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) cpu: Option<f64>,
}

/// One node in one round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NodeRow {
    pub(super) node: NodeId,
    pub(super) cpu_us_per_op: f64,
    pub(super) cpu_cores: f64,
    pub(super) rss_mib: f64,
    pub(super) rss_anon_mib: f64,
    pub(super) threads: u64,
    pub(super) wakeups_per_op: f64,
    pub(super) flushes_per_op: Option<f64>,
    pub(super) disk_bytes_per_op: f64,
}

/// The fields that systems are compared by.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    system: String,
    flush: String,
    clients: u32,
    size: u64,
    logs: u32,
    ops_s: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    cpu_us_per_op: Option<f64>,
    node_rss_mib: Option<f64>,
    errors: u64,
}

impl Row {
    /// Of one repetition.
    pub(super) fn new(
        system: &'static str,
        client: ClientKind,
        case: Case,
        measured: &Measured,
    ) -> Self {
        let Found { appends, errors, took, latency, curve } = &measured.found;
        let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
        let records = appends * u64::from(case.batch);
        let nodes = NodeRow::all(measured, records.max(1) as f64, seconds);
        let sampled = !nodes.is_empty();
        let sum = |of: fn(&NodeRow) -> f64| sampled.then(|| nodes.iter().map(of).sum());
        let most = |of: fn(&NodeRow) -> f64| nodes.iter().map(of).reduce(f64::max);
        let flushes = nodes.iter().map(|node| node.flushes_per_op).sum::<Option<f64>>();
        Self {
            system,
            client,
            case,
            repetitions: 1,
            ops_s: records as f64 / seconds,
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
            p999_us: latency.p999_us,
            max_us: latency.max_us,
            cpu_us_per_op: sum(|node| node.cpu_us_per_op),
            client_cpu_us_per_op: measured.client.cpu_us as f64 / records.max(1) as f64,
            node_rss_mib: most(|node| node.rss_mib),
            node_rss_anon_mib: most(|node| node.rss_anon_mib),
            threads: nodes.iter().map(|node| node.threads).max(),
            wakeups_per_op: sum(|node| node.wakeups_per_op),
            flushes_per_op: flushes.filter(|_| sampled),
            disk_bytes_per_op: sum(|node| node.disk_bytes_per_op),
            errors: *errors,
            to_reference: None,
            nodes,
            curve: curve.clone(),
        }
    }

    /// Field by field the median of the repetitions; of the nodes and the curve those of the repetition
    /// in the middle. Errors are added up. None of no rows.
    pub(super) fn median(mut rows: Vec<Self>) -> Option<Self> {
        rows.sort_by(|a, b| a.ops_s.total_cmp(&b.ops_s));
        let middle = rows.get(rows.len() / 2)?.clone();
        let number = |of: fn(&Self) -> f64| median(rows.iter().map(of).collect());
        let whole = |of: fn(&Self) -> u64| {
            let mut values: Vec<u64> = rows.iter().map(of).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        let known = |of: fn(&Self) -> Option<f64>| {
            let values: Option<Vec<f64>> = rows.iter().map(of).collect();
            values.map(median)
        };
        Some(Self {
            repetitions: rows.len(),
            ops_s: number(|row| row.ops_s),
            p50_us: whole(|row| row.p50_us),
            p99_us: whole(|row| row.p99_us),
            p999_us: whole(|row| row.p999_us),
            max_us: whole(|row| row.max_us),
            cpu_us_per_op: known(|row| row.cpu_us_per_op),
            client_cpu_us_per_op: number(|row| row.client_cpu_us_per_op),
            node_rss_mib: known(|row| row.node_rss_mib),
            node_rss_anon_mib: known(|row| row.node_rss_anon_mib),
            wakeups_per_op: known(|row| row.wakeups_per_op),
            flushes_per_op: known(|row| row.flushes_per_op),
            disk_bytes_per_op: known(|row| row.disk_bytes_per_op),
            errors: rows.iter().map(|row| row.errors).sum(),
            ..middle
        })
    }

    /// Ratios to another row.
    pub(super) fn by(&self, reference: &Self) -> Ratios {
        let ratio = |ours: f64, theirs: f64| ours / theirs.max(f64::MIN_POSITIVE);
        let cpu = self.cpu_us_per_op.zip(reference.cpu_us_per_op);
        Ratios {
            ops: ratio(self.ops_s, reference.ops_s),
            p50: ratio(self.p50_us as f64, reference.p50_us as f64),
            p99: ratio(self.p99_us as f64, reference.p99_us as f64),
            cpu: cpu.map(|(ours, theirs)| ratio(ours, theirs)),
        }
    }

    /// The system, and where its load is if that makes another system of it.
    pub(super) fn label(&self) -> String {
        match self.client {
            ClientKind::Remote => self.system.to_owned(),
            ClientKind::Embedded => format!("{} embedded", self.system),
        }
    }

    pub(super) fn compared(&self) -> Compared {
        Compared {
            system: self.label(),
            flush: self.case.flush.to_string(),
            clients: self.case.clients,
            size: self.case.size,
            logs: self.case.logs,
            ops_s: self.ops_s,
            p50_us: self.p50_us,
            p99_us: self.p99_us,
            p999_us: self.p999_us,
            cpu_us_per_op: self.cpu_us_per_op,
            node_rss_mib: self.node_rss_mib,
            errors: self.errors,
        }
    }
}

/// Of an odd number the one in the middle, of an even number the upper of the two. 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl NodeRow {
    fn all(measured: &Measured, records: f64, seconds: f64) -> Vec<Self> {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let node = |before: &NodeSample| {
            let after = measured.after.iter().find(|after| after.node == before.node)?;
            let ProcessSample { rss_bytes, rss_anon_bytes, threads, .. } = after.process;
            let cost = after.process.since(&before.process);
            let flushes = after.flushes.zip(before.flushes);
            Some(Self {
                node: before.node,
                cpu_us_per_op: cost.cpu_us as f64 / records,
                cpu_cores: cost.cpu_us as f64 / 1e6 / seconds,
                rss_mib: mib(rss_bytes),
                rss_anon_mib: mib(rss_anon_bytes),
                threads,
                wakeups_per_op: cost.voluntary_switches as f64 / records,
                flushes_per_op: flushes
                    .map(|(after, before)| after.saturating_sub(before) as f64 / records),
                disk_bytes_per_op: cost.disk_bytes as f64 / records,
            })
        };
        measured.before.iter().filter_map(node).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use quorumlog::Flush;

    use super::*;
    use crate::latency::Percentiles;

    pub(in super::super) fn case() -> Case {
        Case { flush: Flush::Sync, clients: 64, size: 1024, logs: 1, batch: 1, rate: None }
    }

    fn sample(node: NodeId, cpu_us: u64, rss_mib: u64, switches: u64) -> NodeSample {
        let process = ProcessSample {
            cpu_us,
            rss_bytes: rss_mib << 20,
            rss_anon_bytes: (rss_mib / 2) << 20,
            threads: 5,
            voluntary_switches: switches,
            disk_bytes: switches * 4096,
        };
        NodeSample { node, process, flushes: Some(switches / 2) }
    }

    pub(in super::super) fn measured() -> Measured {
        let latency = Percentiles { count: 40_000, p50_us: 900, ..Percentiles::default() };
        let took = Duration::from_secs(2);
        Measured {
            found: Found { appends: 40_000, errors: 1, took, latency, curve: vec![(0.5, 900)] },
            before: vec![sample(1, 1_000_000, 40, 100), sample(2, 0, 40, 0)],
            after: vec![sample(1, 3_000_000, 64, 20_100), sample(2, 1_000_000, 48, 10_000)],
            client: ProcessCost { cpu_us: 400_000, ..ProcessCost::default() },
        }
    }

    pub(in super::super) fn row() -> Row {
        Row::new("quorumlog", ClientKind::Remote, case(), &measured())
    }

    #[test]
    fn costs_are_per_record_summed_over_the_nodes() {
        let row = row();
        assert_eq!(row.ops_s, 20_000.0);
        assert_eq!(row.cpu_us_per_op, Some(75.0));
        assert_eq!(row.client_cpu_us_per_op, 10.0);
        assert_eq!(row.wakeups_per_op, Some(0.75));
        assert_eq!(row.flushes_per_op, Some(0.375));
        assert_eq!(row.disk_bytes_per_op, Some(3072.0));
        assert_eq!(row.node_rss_mib, Some(64.0));
        assert_eq!(row.node_rss_anon_mib, Some(32.0));
        assert_eq!(row.nodes[0].cpu_cores, 1.0);
        let batches = Row::new("x", ClientKind::Remote, Case { batch: 10, ..case() }, &measured());
        assert_eq!((batches.ops_s, batches.cpu_us_per_op), (200_000.0, Some(7.5)));
    }

    #[test]
    fn comparisons_have_exactly_their_fields() {
        let json = serde_json::to_value(row().compared()).expect("json");
        let object = json.as_object().expect("an object");
        let mut names: Vec<_> = object.keys().map(String::as_str).collect();
        names.sort_unstable();
        let wanted = [
            "clients",
            "cpu_us_per_op",
            "errors",
            "flush",
            "logs",
            "node_rss_mib",
            "ops_s",
            "p50_us",
            "p999_us",
            "p99_us",
            "size",
            "system",
        ];
        assert_eq!(names, wanted);
        assert_eq!(json["flush"], "sync");
        let embedded = Row { client: ClientKind::Embedded, ..row() };
        let json = serde_json::to_value(embedded.compared()).expect("json");
        assert_eq!(json["system"], "quorumlog embedded", "told apart from the remote client");
        let all = serde_json::to_value(row()).expect("json");
        assert!(wanted.iter().all(|name| !all[name].is_null()), "{all}");
    }

    #[test]
    fn what_is_reported_is_the_median_of_the_repetitions() {
        let repetition = |ops_s, p50_us, cpu| Row { ops_s, p50_us, cpu_us_per_op: cpu, ..row() };
        let rows = vec![
            repetition(10.0, 3, Some(1.0)),
            repetition(30.0, 1, Some(9.0)),
            repetition(20.0, 7, Some(2.0)),
        ];
        let median = Row::median(rows.clone()).expect("some");
        assert_eq!((median.ops_s, median.p50_us, median.cpu_us_per_op), (20.0, 3, Some(2.0)));
        assert_eq!((median.repetitions, median.errors), (3, 3));
        let unknown = [rows, vec![repetition(1.0, 1, None)]].concat();
        assert_eq!(Row::median(unknown).expect("some").cpu_us_per_op, None);
        assert!(Row::median(Vec::new()).is_none());
        assert_eq!((super::median(vec![3.0, 1.0, 2.0]), super::median(Vec::new())), (2.0, 0.0));
    }

    #[test]
    fn ratios_are_ours_by_theirs() {
        let reference = Row { ops_s: 40_000.0, p50_us: 300, cpu_us_per_op: None, ..row() };
        let ratios = row().by(&reference);
        assert_eq!((ratios.ops, ratios.p50, ratios.cpu), (0.5, 3.0, None));
    }

    #[test]
    fn without_samples_the_costs_are_unknown_and_not_zero() {
        let measured = Measured { before: Vec::new(), ..measured() };
        let row = Row::new("quorumlog", ClientKind::Remote, case(), &measured);
        assert_eq!((row.cpu_us_per_op, row.flushes_per_op), (None, None));
    }

    #[test]
    fn a_round_without_appends_divides_by_nothing() {
        let measured = Measured { found: Found::default(), ..measured() };
        let row = Row::new("quorumlog", ClientKind::Remote, case(), &measured);
        assert_eq!(row.ops_s, 0.0);
        assert!(row.cpu_us_per_op.is_some_and(f64::is_finite));
    }
}

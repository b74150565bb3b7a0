//! All rows, as tables.

use super::row::Row;
use super::systems::ClientKind;
use crate::latency::micros;
use crate::output::Table;

/// The rows so far.
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds the rows of one case, and compares them with the reference if it is among them.
    pub(super) fn add(&mut self, mut rows: Vec<Row>) -> &[Row] {
        let reference = rows.iter().find(|row| row.system == "reference").cloned();
        if let Some(reference) = reference {
            // What is inside the leader's process has one hop less.
            let comparable =
                |row: &&mut Row| row.system != reference.system && row.client == ClientKind::Remote;
            for row in rows.iter_mut().filter(comparable) {
                row.to_reference = Some(row.by(&reference));
            }
        }
        let new = self.rows.len();
        self.rows.extend(rows);
        &self.rows[new..]
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn table(&self) -> Table {
        let mut heads = vec![
            "system",
            "flush",
            "clients",
            "size",
            "logs",
            "batch",
            "rate",
            "records/s",
            "p50",
            "p99",
            "p99.9",
            "cpu us/op",
            "client us/op",
            "wakeups/op",
            "flushes/op",
            "disk B/op",
            "rss MiB",
            "anon MiB",
            "threads",
            "errors",
        ];
        let compared = self.rows.iter().any(|row| row.to_reference.is_some());
        if compared {
            heads.extend(["x records", "x p50", "x cpu"]);
        }
        let mut table = Table::new(&heads);
        for row in &self.rows {
            let case = &row.case;
            let mut cells = vec![
                row.label(),
                case.flush.to_string(),
                case.clients.to_string(),
                case.size.to_string(),
                case.logs.to_string(),
                case.batch.to_string(),
                case.rate.map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
                format!("{:.0}", row.ops_s),
                micros(row.p50_us),
                micros(row.p99_us),
                micros(row.p999_us),
                number(row.cpu_us_per_op, 1),
                format!("{:.1}", row.client_cpu_us_per_op),
                number(row.wakeups_per_op, 2),
                number(row.flushes_per_op, 3),
                number(row.disk_bytes_per_op, 0),
                number(row.node_rss_mib, 1),
                number(row.node_rss_anon_mib, 1),
                row.threads.map_or_else(|| "-".to_owned(), |threads| threads.to_string()),
                row.errors.to_string(),
            ];
            if compared {
                let ratios = row.to_reference;
                cells.push(number(ratios.map(|ratios| ratios.ops), 2));
                cells.push(number(ratios.map(|ratios| ratios.p50), 2));
                cells.push(number(ratios.and_then(|ratios| ratios.cpu), 1));
            }
            table.row(cells);
        }
        table
    }

    /// What each node cost; none if no process was sampled.
    pub(super) fn node_table(&self) -> Option<Table> {
        let mut table = Table::new(&[
            "system",
            "flush",
            "clients",
            "node",
            "cpu us/op",
            "cpu cores",
            "wakeups/op",
            "flushes/op",
            "disk B/op",
            "rss MiB",
            "anon MiB",
            "threads",
        ]);
        for row in &self.rows {
            for node in &row.nodes {
                table.row(vec![
                    row.label(),
                    row.case.flush.to_string(),
                    row.case.clients.to_string(),
                    node.node.to_string(),
                    format!("{:.1}", node.cpu_us_per_op),
                    format!("{:.2}", node.cpu_cores),
                    format!("{:.2}", node.wakeups_per_op),
                    number(node.flushes_per_op, 3),
                    format!("{:.0}", node.disk_bytes_per_op),
                    format!("{:.1}", node.rss_mib),
                    format!("{:.1}", node.rss_anon_mib),
                    node.threads.to_string(),
                ]);
            }
        }
        self.rows.iter().any(|row| !row.nodes.is_empty()).then_some(table)
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::super::row::Measured;
    use super::super::row::tests::{case, measured, row};
    use super::*;

    #[test]
    fn rows_are_compared_with_the_reference_of_their_case() {
        let mut report = Report::new();
        assert!(report.add(vec![row()])[0].to_reference.is_none());
        let reference = Row { system: "reference", ops_s: 40_000.0, ..row() };
        let embedded = Row { client: ClientKind::Embedded, ..row() };
        let rows = report.add(vec![reference, row(), embedded]);
        let ratios: Vec<_> = rows.iter().map(|row| row.to_reference.map(|r| r.ops)).collect();
        assert_eq!(ratios, [None, Some(0.5), None]);
        let table = report.table().to_string();
        assert_eq!(table.lines().count(), 5, "{table}");
        assert!(table.contains("X RECORDS") && table.contains("quorumlog embedded"), "{table}");
    }

    #[test]
    fn what_is_not_known_is_shown_as_such() {
        let mut report = Report::new();
        let measured = Measured { before: Vec::new(), ..measured() };
        report.add(vec![Row::new("quorumlog", ClientKind::Remote, case(), &measured)]);
        assert!(report.node_table().is_none());
        assert!(report.table().to_string().contains(" - "));
    }
}

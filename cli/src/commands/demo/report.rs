//! The demo's summary.

use std::fmt;
use std::time::Duration;

use quorumlog::NodeId;
use serde::Serialize;

use crate::latency::{Percentiles, micros};

use super::check::Findings;
use super::load::Counts;

/// What the summary is made from.
pub(super) struct Facts {
    pub(super) records: u64,
    pub(super) counts: Counts,
    pub(super) findings: Findings,
    pub(super) offline_problems: Vec<String>,
    pub(super) nodes: u64,
    pub(super) end: u64,
    pub(super) killed_node: NodeId,
    pub(super) failover: Duration,
    pub(super) new_term: u64,
    pub(super) latency: Percentiles,
    pub(super) load_took: Duration,
    pub(super) took: Duration,
}

/// The summary.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    records: u64,
    #[serde(flatten)]
    counts: Counts,
    /// Copies of records that were appended again after an unknown outcome.
    duplicates: u64,
    /// Acknowledged records found right, over all nodes; and how many that should be.
    verified: u64,
    verified_wanted: u64,
    nodes: u64,
    end: u64,
    killed_node: NodeId,
    failover_ms: f64,
    new_term: u64,
    latency: Percentiles,
    ops_s: f64,
    load_s: f64,
    total_s: f64,
    problems: Vec<String>,
    /// All problems, told or not. Above 0 the demo has failed.
    pub(super) problems_total: u64,
}

impl Report {
    pub(super) fn new(facts: Facts) -> Self {
        let Facts { counts, findings, latency, .. } = facts;
        let load_s = facts.load_took.as_secs_f64();
        let mut problems_total = findings.problems + facts.offline_problems.len() as u64;
        let mut problems: Vec<String> = findings.told.iter().map(ToString::to_string).collect();
        problems.extend(facts.offline_problems);
        if counts.acknowledged != facts.records {
            problems_total += 1;
            let Counts { acknowledged, .. } = counts;
            problems.push(format!("{acknowledged} of {} records acknowledged", facts.records));
        }
        Self {
            records: facts.records,
            counts,
            duplicates: findings.duplicates,
            verified: findings.verified,
            verified_wanted: counts.acknowledged * facts.nodes,
            nodes: facts.nodes,
            end: facts.end,
            killed_node: facts.killed_node,
            failover_ms: facts.failover.as_secs_f64() * 1e3,
            new_term: facts.new_term,
            latency,
            ops_s: counts.acknowledged as f64 / load_s.max(f64::MIN_POSITIVE),
            load_s,
            total_s: facts.took.as_secs_f64(),
            problems,
            problems_total,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counts, latency, .. } = self;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: fmt::Arguments<'_>| {
            writeln!(f, "{name:<14}{value}")
        };
        row(f, "records", format_args!("{}", self.records))?;
        row(f, "sent", format_args!("{} appends", counts.sent))?;
        row(f, "acknowledged", format_args!("{}", counts.acknowledged))?;
        row(f, "unknown", format_args!("{} appends, each sent again", counts.unknown))?;
        row(f, "refused", format_args!("{} appends, each sent again", counts.refused))?;
        row(f, "duplicates", format_args!("{} from unknown outcomes", self.duplicates))?;
        let Self { verified, verified_wanted, nodes, .. } = self;
        row(f, "verified", format_args!("{verified} of {verified_wanted} on {nodes} nodes"))?;
        let Self { failover_ms, killed_node, new_term, .. } = self;
        let what = format!("node {killed_node} killed, to the first ack in term {new_term}");
        row(f, "failover", format_args!("{failover_ms:.0} ms ({what})"))?;
        row(
            f,
            "latency",
            format_args!(
                "p50 {}, p99 {}, p99.9 {}, max {}",
                micros(latency.p50_us),
                micros(latency.p99_us),
                micros(latency.p999_us),
                micros(latency.max_us)
            ),
        )?;
        let Self { ops_s, load_s, total_s, .. } = self;
        row(
            f,
            "throughput",
            format_args!("{ops_s:.0} records/s over {load_s:.1} s, failover included"),
        )?;
        row(f, "took", format_args!("{total_s:.1} s"))?;
        for problem in &self.problems {
            row(f, "PROBLEM", format_args!("{problem}"))?;
        }
        match self.problems_total {
            0 => write!(f, "nothing acknowledged was lost"),
            n => write!(f, "FAILED with {n} problems"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            records: 100,
            counts: Counts { sent: 103, acknowledged: 100, unknown: 2, refused: 1 },
            findings: Findings { verified: 300, duplicates: 1, ..Findings::default() },
            offline_problems: Vec::new(),
            nodes: 3,
            end: 104,
            killed_node: 2,
            failover: Duration::from_millis(912),
            new_term: 2,
            latency: Percentiles::default(),
            load_took: Duration::from_secs(2),
            took: Duration::from_secs(4),
        }
    }

    #[test]
    fn the_summary_tells_the_counts_and_the_verdict() {
        let report = Report::new(facts());
        assert_eq!(report.problems_total, 0);
        let text = report.to_string();
        for wanted in ["103 appends", "300 of 300 on 3 nodes", "912 ms", "50 records/s"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(text.ends_with("nothing acknowledged was lost"), "{text}");
    }

    #[test]
    fn an_unacknowledged_record_or_a_damaged_directory_is_a_failure() {
        let counts = Counts { acknowledged: 99, ..facts().counts };
        assert_eq!(Report::new(Facts { counts, ..facts() }).problems_total, 1);
        let offline_problems = vec!["x is damaged".to_owned()];
        let report = Report::new(Facts { offline_problems, ..facts() });
        assert!(report.to_string().contains("x is damaged"));
        assert!(report.to_string().ends_with("FAILED with 1 problems"));
    }
}

//! `status`: role, term, leader, watermarks and lag, for each log on each node.

use std::collections::BTreeMap;

use quorumlog::{AdminError, Member, NodeStatus, Problem, Role, Status, with_sources};
use serde::Serialize;

use crate::client::ClientArgs;
use crate::commands::log::OutputKind;
use crate::failure::{Failure, Result};
use crate::output::{Output, Table, note};

const AFTER_HELP: &str = "\
Examples:
  quorumlog status
  quorumlog status orders
  quorumlog status --output json | jq '.nodes[].logs[] | select(.role == \"leader\")'

LAG is the number of entries that a node lacks, as far as the leader knows; `?` if the leader does
not answer. Problems follow below the logs, each with the node that reports it.
Exit code 1: no node answers.";

/// Show role, term, leader, watermarks and lag, for each log on each node.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only this log.
    log: Option<String>,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputKind,
    #[command(flatten)]
    cluster: ClientArgs,
}

/// Everything that the nodes said.
#[derive(Debug, Serialize)]
struct Report {
    nodes: Vec<NodeReport>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    node: Member,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    logs: Vec<LogReport>,
    /// Its problems, and those of others as it sees them.
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct LogReport {
    #[serde(flatten)]
    status: Status,
    /// Entries that the leader knows this node to miss.
    lag: Option<u64>,
}

type Answer = (Member, std::result::Result<NodeStatus, AdminError>);

/// Runs the command.
///
/// # Errors
/// No node answers, or none knows the log.
pub(crate) async fn run(args: Args, out: &mut Output) -> Result {
    let answers = args.cluster.connect().await?.node_statuses().await;
    let report = Report::of(answers, args.log.as_deref());
    for node in &report.nodes {
        if let Some(error) = &node.error {
            note(format_args!("{} does not answer: {error}", node.node));
        }
    }
    if report.nodes.iter().all(|node| node.error.is_some()) {
        return Err(Failure::failed("no node answers"));
    }
    if let Some(log) = &args.log
        && report.nodes.iter().all(|node| node.logs.is_empty())
    {
        let error = AdminError::UnknownLog { name: log.clone() };
        return Err(error.into());
    }
    match args.output {
        OutputKind::Json => out.json(&report),
        OutputKind::Table => {
            out.line(report.table())?;
            if report.nodes.iter().any(|node| !node.problems.is_empty()) {
                out.line("")?;
                out.line(report.problems())?;
            }
            let losses = report.losses();
            if !losses.is_empty() {
                out.line("")?;
                losses.into_iter().try_for_each(|loss| out.line(loss))?;
            }
            Ok(())
        }
    }
}

impl Report {
    fn of(answers: Vec<Answer>, only: Option<&str>) -> Self {
        let leaders = leaders(&answers);
        let node = |(member, answer): Answer| match answer {
            Err(error) => {
                let error = Some(with_sources(&error));
                NodeReport { node: member, error, logs: vec![], problems: vec![] }
            }
            Ok(NodeStatus { logs, problems, .. }) => {
                let wanted = logs.into_iter().filter(|log| only.is_none_or(|n| n == log.log));
                let logs = wanted
                    .map(|status| {
                        let leader = leaders.get(&status.log_id);
                        let lag = leader.and_then(|leader| lag(leader, &status));
                        LogReport { status, lag }
                    })
                    .collect();
                let about = |log: &str| only.is_none_or(|only| only == log);
                let problems = problems.into_iter();
                let problems =
                    problems.filter(|problem| problem.log.as_deref().is_none_or(about)).collect();
                NodeReport { node: member, error: None, logs, problems }
            }
        };
        let mut nodes: Vec<NodeReport> = answers.into_iter().map(node).collect();
        nodes.sort_by_key(|node| node.node.id);
        Self { nodes }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "log",
            "node",
            "role",
            "term",
            "leader",
            "begin",
            "stable",
            "committed",
            "end",
            "applied",
            "lag",
            "disk",
        ]);
        let mut logs: Vec<&LogReport> = self.nodes.iter().flat_map(|node| &node.logs).collect();
        logs.sort_by_key(|log| (log.status.log_id, log.status.node_id));
        for LogReport { status, lag } in logs {
            let leader = status.leader.as_ref().map(|leader| leader.id.to_string());
            table.row(vec![
                status.log.clone(),
                status.node_id.to_string(),
                status.role.to_string(),
                status.term.to_string(),
                leader.unwrap_or_else(|| "?".to_owned()),
                status.begin.to_string(),
                status.stable.to_string(),
                status.committed.to_string(),
                status.end.to_string(),
                status.applied.to_string(),
                lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string()),
                indicatif::BinaryBytes(status.disk_bytes).to_string(),
            ]);
        }
        table
    }

    /// What nodes know to be lost, or not, since their processes started.
    fn losses(&self) -> Vec<String> {
        let logs = self.nodes.iter().flat_map(|node| &node.logs).map(|log| &log.status);
        let mut told = Vec::new();
        for Status { log, node_id, suspect_elections, rewinds, lost_records_max, .. } in logs {
            if *suspect_elections > 0 {
                told.push(format!(
                    "{log}: node {node_id} was elected {suspect_elections} times with votes of nodes that lost their page \
                     caches, since there were too few others: records that were acknowledged shortly before may be lost"
                ));
            }
            if *rewinds > 0 {
                told.push(format!(
                    "{log}: node {node_id} went back {rewinds} times, over {lost_records_max} committed entries: of those that \
                     it had shown, at most so many are lost"
                ));
            }
        }
        told
    }

    fn problems(&self) -> Table {
        let mut table = Table::new(&["problem", "node", "about", "for", "what"]);
        for node in &self.nodes {
            for problem in &node.problems {
                let about = match (&problem.log, problem.peer) {
                    (Some(log), _) => log.clone(),
                    (None, Some(peer)) => format!("node {peer}"),
                    (None, None) => String::new(),
                };
                let lasting = match problem.for_ms {
                    0 => String::new(),
                    ms => format!("{} s", ms / 1000),
                };
                table.row(vec![
                    problem.kind.to_string(),
                    node.node.id.to_string(),
                    about,
                    lasting,
                    problem.reason.clone(),
                ]);
            }
        }
        table
    }
}

/// Of each log, the newest leader that answered.
fn leaders(answers: &[Answer]) -> BTreeMap<u64, Status> {
    let mut leaders: BTreeMap<u64, Status> = BTreeMap::new();
    let answered = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let statuses = answered.flat_map(|node| &node.logs);
    for status in statuses.filter(|status| status.role == Role::Leader) {
        let newer = leaders.get(&status.log_id).is_none_or(|known| known.term < status.term);
        if newer {
            leaders.insert(status.log_id, status.clone());
        }
    }
    leaders
}

/// Entries that `leader` knows a node to miss. A copy that has stopped may have told this leader nothing; what it has
/// committed it holds.
fn lag(leader: &Status, of: &Status) -> Option<u64> {
    if leader.node_id == of.node_id {
        return Some(0);
    }
    let member = leader.members.iter().find(|member| member.member.id == of.node_id)?;
    let held = if of.role == Role::Stopped { of.committed } else { 0 };
    Some(leader.end.saturating_sub(member.matched?.max(held)))
}

#[cfg(test)]
mod tests {
    use quorumlog::{MemberStatus, NodeId, ProblemKind};

    use super::*;

    fn status(node_id: NodeId, role: Role, term: u64) -> Status {
        let member = |id, matched| {
            let mut member = MemberStatus::new(Member::new(id, format!("n{id}:1")), true);
            member.matched = matched;
            member
        };
        let mut status = Status::new("orders", 1, node_id, role);
        (status.term, status.leader) = (term, Some(Member::new(1, "n1:1")));
        (status.begin, status.committed, status.end, status.applied) = (1, 100, 100, 100);
        status.members = vec![member(1, None), member(2, Some(90)), member(3, None)];
        (status.disk_bytes, status.stable) = (2048, 90);
        status
    }

    fn problem() -> Problem {
        let mut problem = Problem::new(ProblemKind::PeerUnreachable, "n3:1: connection refused");
        (problem.peer, problem.for_ms) = (Some(3), 12_345);
        problem
    }

    fn node(id: NodeId, role: Role, term: u64) -> Answer {
        let member = Member::new(id, format!("n{id}:1"));
        let mut node = NodeStatus::new(member.clone());
        (node.logs, node.problems) = (vec![status(id, role, term)], vec![problem()]);
        (member, Ok(node))
    }

    #[test]
    fn the_lag_is_what_the_newest_leader_knows() {
        let report = Report::of(
            vec![node(3, Role::Follower, 5), node(2, Role::Leader, 4), node(1, Role::Leader, 5)],
            None,
        );
        let lags: Vec<_> = report.nodes.iter().map(|node| node.logs[0].lag).collect();
        assert_eq!(lags, [Some(0), Some(10), None]);
    }

    #[test]
    fn without_a_leader_the_lag_is_not_known_and_silent_nodes_are_told() {
        let silent = AdminError::Unreachable { detail: "refused".to_owned() };
        let answers = vec![(Member::new(1, "n1:1"), Err(silent)), node(2, Role::Follower, 5)];
        let report = Report::of(answers, Some("orders"));
        assert!(report.nodes[0].error.as_deref().expect("error").contains("refused"));
        let table = report.table().to_string();
        let row = table.lines().nth(1).expect("row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "orders", "2", "follower", "5", "1", "1", "90", "100", "100", "100", "?", "2.00",
                "KiB"
            ]
        );
        assert!(Report::of(vec![node(2, Role::Follower, 5)], Some("x")).nodes[0].logs.is_empty());
    }

    #[test]
    fn what_a_cluster_may_have_lost_is_told_of_each_node_that_knows() {
        let (member, answer) = node(2, Role::Leader, 5);
        let mut told = answer.expect("a status");
        assert!(Report::of(vec![(member.clone(), Ok(told.clone()))], None).losses().is_empty());
        told.logs[0].suspect_elections = 1;
        (told.logs[0].rewinds, told.logs[0].lost_records_max) = (2, 17);
        let losses = Report::of(vec![(member, Ok(told))], None).losses();
        assert_eq!(losses.len(), 2);
        assert!(
            losses[0]
                .starts_with("orders: node 2 was elected 1 times with votes of nodes that lost")
        );
        assert!(losses[1].contains("over 17 committed entries"), "{}", losses[1]);
    }

    #[test]
    fn json_carries_every_field_of_the_status_and_the_lag() {
        let report = Report::of(vec![node(1, Role::Leader, 5)], None);
        let json = serde_json::to_value(&report).expect("json");
        let log = &json["nodes"][0]["logs"][0];
        assert_eq!(log["role"], "leader");
        assert_eq!(log["lag"], 0);
        assert_eq!(log["members"][1]["matched"], 90);
        assert_eq!(json["nodes"][0]["problems"][0]["kind"], "peer-unreachable");
    }

    #[test]
    fn what_is_wrong_has_rows_that_name_the_node_the_time_and_the_reason() {
        let table = Report::of(vec![node(1, Role::Leader, 5)], None).problems().to_string();
        let row = table.lines().nth(1).expect("row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        let wanted = "peer-unreachable 1 node 3 12 s n3:1: connection refused";
        assert_eq!(cells, wanted.split(' ').collect::<Vec<_>>());
    }
}

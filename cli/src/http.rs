//! Health, metrics and status of a node over HTTP. Health is answered whatever else is asked (`door`).
//!
//! | path | 200 means | else |
//! |---|---|---|
//! | `/livez` | a restart would not help | 503 and what a restart would fix: storage that failed, a task that panicked |
//! | `/readyz` | no own problem, all logs run, the system log has a leader, few records wait to be applied | 503 and why |
//! | `/metrics` | Prometheus text | |
//! | `/v1/status` | JSON: the node, every log on it, and what is wrong | |

mod door;
mod limited;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use quorumlog::{Node, NodeStatus, Problem, Role};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use door::Probe;
use limited::Limited;
use shared::Shared;

/// How long requests that run may still run once the node stops.
const DRAIN: Duration = Duration::from_secs(1);

/// How old the text of `/metrics` may be, and the status behind `/readyz` and `/v1/status`: however many ask, each is
/// made a few times a second.
const METRICS_AGE: Duration = Duration::from_millis(250);
const STATUS_AGE: Duration = Duration::from_millis(100);

/// Connections on their way from the door to their places.
const OTHERS_MAX: usize = 64;

/// What the handlers look at.
pub(crate) struct Health {
    pub(crate) node: Node,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) ready_lag_max: u64,
}

/// Body of `/v1/status`.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    #[serde(flatten)]
    status: NodeStatus,
}

/// Serves until `stop` becomes true.
pub(crate) async fn serve(
    listener: TcpListener,
    connections_max: u32,
    health: Health,
    stop: watch::Receiver<bool>,
) {
    let service =
        Service { health, metrics: Shared::new(METRICS_AGE), status: Shared::new(STATUS_AGE) };
    let service = Arc::new(service);
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .with_state(Arc::clone(&service));
    let examine = move |probe| service.clone().examine(probe);
    let (decided, others) = mpsc::channel(OTHERS_MAX);
    let mut stopped = stop.clone();
    let mut graceful = stop;
    let serving = axum::serve(Limited::new(others, connections_max), router)
        .with_graceful_shutdown(async move { drop(graceful.wait_for(|stop| *stop).await) });
    tokio::select! {
        () = door::keep(listener, Arc::new(examine), decided) => {}
        served = async { serving.await } => {
            if let Err(error) = served {
                tracing::error!(%error, "http stopped");
            }
        }
        () = async {
            let _ = stopped.wait_for(|stop| *stop).await;
            tokio::time::sleep(DRAIN).await;
        } => {}
    }
}

/// A check that did not come first on its connection, or is a HEAD request.
async fn livez(State(service): State<Arc<Service>>) -> Response {
    checked(service.examine(Probe::Live).await)
}

async fn readyz(State(service): State<Arc<Service>>) -> Response {
    checked(service.examine(Probe::Ready).await)
}

fn checked(health: Result<(), String>) -> Response {
    match health {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let text = service.metrics.get(|| service.health.metrics.render().into()).await;
    (kind, text).into_response()
}

async fn status(State(service): State<Arc<Service>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, service.status().await.report).into_response()
}

/// What the handlers share.
struct Service {
    health: Health,
    metrics: Shared<Bytes>,
    status: Shared<Told>,
}

/// The node's status, as clients are told.
#[derive(Clone)]
struct Told {
    report: Bytes,
    ready: Result<(), String>,
}

impl Service {
    async fn status(&self) -> Told {
        let look = || {
            let status = self.health.node.node_status();
            let ready = readiness(&status, self.health.ready_lag_max);
            let report = Report { version: env!("CARGO_PKG_VERSION"), status };
            Told { report: serde_json::to_vec(&report).unwrap_or_default().into(), ready }
        };
        self.status.get(look).await
    }

    fn examine(self: Arc<Self>, probe: Probe) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            match probe {
                Probe::Live => liveness(&self.health.node.problems()),
                Probe::Ready => self.status().await.ready,
            }
        })
    }
}

fn listed<'a>(problems: impl Iterator<Item = &'a Problem>) -> Result<(), String> {
    let lines: Vec<String> = problems.map(ToString::to_string).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
}

/// Fails with the problems that a restart would fix.
fn liveness(problems: &[Problem]) -> Result<(), String> {
    listed(problems.iter().filter(|problem| problem.needs_restart))
}

/// Whether a node should get requests, or why not. Problems of other nodes do not count.
fn readiness(node: &NodeStatus, lag_max: u64) -> Result<(), String> {
    listed(node.problems.iter().filter(|problem| problem.kind.is_own()))?;
    for (at, log) in node.logs.iter().enumerate() {
        let name = &log.log;
        if log.role == Role::Stopped {
            return Err(format!("{name}: {}", log.failure.as_deref().unwrap_or("stopped")));
        }
        if at == 0 && log.leader.is_none() {
            return Err(format!("{name}: no leader is known"));
        }
        let lag = log.committed.saturating_sub(log.applied);
        if lag > lag_max {
            return Err(format!("{name}: {lag} committed entries are not applied yet"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorumlog::{Member, ProblemKind, Status};

    use super::*;

    fn healthy(log: &str) -> Status {
        let mut status = Status::new(log, 0, 1, Role::Follower);
        (status.term, status.leader) = (3, Some(Member::new(2, "b:1")));
        (status.begin, status.committed, status.end, status.applied) = (1, 100, 120, 100);
        status
    }

    fn changed(log: &str, change: impl FnOnce(&mut Status)) -> Status {
        let mut status = healthy(log);
        change(&mut status);
        status
    }

    fn node<const N: usize>(logs: [Status; N], problems: &[Problem]) -> NodeStatus {
        let mut node = NodeStatus::new(Member::new(1, "a:1"));
        (node.logs, node.problems) = (logs.into(), problems.to_vec());
        node
    }

    fn problem(kind: ProblemKind, needs_restart: bool) -> Problem {
        let mut problem = Problem::new(kind, "why");
        (problem.log, problem.needs_restart) = (Some("orders".to_owned()), needs_restart);
        problem
    }

    #[test]
    fn a_node_is_ready_when_a_leader_is_known_and_the_lag_is_bounded() {
        let logs = [healthy("_system"), changed("orders", |status| status.leader = None)];
        assert_eq!(readiness(&node(logs, &[]), 0), Ok(()), "only the system log needs a leader");
        let why = |log: Status| {
            readiness(&node([healthy("_system"), log], &[]), 9).expect_err("not ready")
        };
        let lagging = why(changed("orders", |status| status.applied = 90));
        assert!(lagging.contains("orders: 10 "), "{lagging}");
        assert!(why(changed("x", |status| status.role = Role::Stopped)).contains("stopped"));
        let alone = readiness(&node([changed("_system", |status| status.leader = None)], &[]), 9);
        assert!(alone.expect_err("no leader").contains("no leader"));
    }

    #[test]
    fn what_is_wrong_with_the_node_keeps_it_from_being_ready_and_what_a_restart_helps_with_from_being_alive()
     {
        let ready = |problem: Problem| readiness(&node([healthy("_system")], &[problem]), 0);
        assert_eq!(ready(problem(ProblemKind::LogNotOpen, false)), Err("orders: why".to_owned()));
        assert_eq!(ready(problem(ProblemKind::DataLost, false)), Err("orders: why".to_owned()));
        assert_eq!(ready(problem(ProblemKind::PeerUnreachable, false)), Ok(()));
        assert_eq!(liveness(&[problem(ProblemKind::LogNotOpen, false)]), Ok(()));
        let both =
            [problem(ProblemKind::LogStopped, true), problem(ProblemKind::TaskPanicked, true)];
        assert_eq!(liveness(&both), Err("orders: why\norders: why".to_owned()));
    }
}

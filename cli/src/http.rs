//! Health, metrics and status of a node over HTTP.
//!
//! | path | 200 means | else |
//! |---|---|---|
//! | `/livez` | storage works | 503 and the failure: restart the node after checking the disk |
//! | `/readyz` | leaders are known, and what is committed is applied | 503 and the reason |
//! | `/metrics` | Prometheus text | |
//! | `/v1/status` | JSON: the node and every log on it | |

mod limited;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use quorumlog::{Member, Node, Role, Status};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::failure::chain;
use limited::Limited;

/// How long requests that run may still run once the node stops.
const DRAIN: Duration = Duration::from_secs(1);

/// What the handlers look at.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) node: Node,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) ready_lag_max: u64,
}

/// Body of `/v1/status`.
#[derive(Debug, Serialize)]
struct NodeStatus {
    version: &'static str,
    node: Member,
    /// The system log first.
    logs: Vec<Status>,
}

/// Serves until `stop` becomes true.
pub(crate) async fn serve(
    listener: TcpListener,
    connections_max: u32,
    health: Health,
    stop: watch::Receiver<bool>,
) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .with_state(Arc::new(health));
    let mut stopped = stop.clone();
    let mut graceful = stop;
    let serving = axum::serve(Limited::new(listener, connections_max), router)
        .with_graceful_shutdown(async move { drop(graceful.wait_for(|stop| *stop).await) });
    tokio::select! {
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

async fn livez(State(health): State<Arc<Health>>) -> Response {
    match health.node.failure() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(failure) => unavailable(&chain(&*failure)),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    match readiness(&statuses(&health.node), health.ready_lag_max) {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => unavailable(&reason),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, health.metrics.render()).into_response()
}

async fn status(State(health): State<Arc<Health>>) -> Response {
    Json(NodeStatus {
        version: env!("CARGO_PKG_VERSION"),
        node: health.node.member(),
        logs: statuses(&health.node),
    })
    .into_response()
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

/// Status of the system log, then of every other log.
fn statuses(node: &Node) -> Vec<Status> {
    let system = node.status();
    let logs = node.logs().into_iter().filter(|info| info.id.0 != system.log_id);
    let others: Vec<Status> =
        logs.filter_map(|info| Some(node.log(info.name.as_str())?.status())).collect();
    std::iter::once(system).chain(others).collect()
}

/// Whether a node with these logs should get requests, or why not.
fn readiness(logs: &[Status], lag_max: u64) -> Result<(), String> {
    for (at, log) in logs.iter().enumerate() {
        let name = &log.log;
        if let Some(failure) = &log.failure {
            return Err(format!("{name}: {failure}"));
        }
        if log.role == Role::Stopped {
            return Err(format!("{name}: stopped"));
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
    use super::*;

    fn healthy(log: &str) -> Status {
        Status {
            log: log.to_owned(),
            log_id: 0,
            node_id: 1,
            role: Role::Follower,
            term: 3,
            leader: Some(Member::new(2, "b:1")),
            begin: 1,
            committed: 100,
            end: 120,
            applied: 100,
            members: Vec::new(),
            disk_bytes: 0,
            failure: None,
        }
    }

    #[test]
    fn a_node_is_ready_when_a_leader_is_known_and_the_lag_is_bounded() {
        let logs = [healthy("_system"), Status { leader: None, ..healthy("orders") }];
        assert_eq!(readiness(&logs, 0), Ok(()), "only the system log needs a leader");
        let why = |log: Status| readiness(&[healthy("_system"), log], 9).expect_err("not ready");
        let lagging = why(Status { applied: 90, ..healthy("orders") });
        assert!(lagging.contains("orders: 10 "), "{lagging}");
        let failed = why(Status { failure: Some("disk".to_owned()), ..healthy("orders") });
        assert!(failed.contains("disk"), "{failed}");
        assert!(why(Status { role: Role::Stopped, ..healthy("x") }).contains("stopped"));
        let alone = readiness(&[Status { leader: None, ..healthy("_system") }], 9);
        assert!(alone.expect_err("no leader").contains("no leader"));
    }
}

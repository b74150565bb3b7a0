//! Problems of a node, collected from the parts that notice them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inner::NodeInner;
use crate::error::{OpenError, StorageError, with_sources};
use crate::member::{Role, Status};
use crate::problem::{NodeStatus, Problem, ProblemKind};
use crate::raft::Group;
use crate::record::{LogId, LogName};

/// Pause before the node tries again to open a log that it could not open; it doubles each time. A try may have to
/// read all of the log.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(256);

/// A log of the list that could not be opened.
#[derive(Debug)]
pub(super) struct NotOpen {
    pub(super) name: LogName,
    error: OpenError,
    since: Instant,
    pause: Duration,
    /// It is not tried again before.
    pub(super) next: Instant,
}

impl NotOpen {
    pub(super) fn new(name: LogName, error: OpenError) -> Self {
        let now = Instant::now();
        Self { name, error, since: now, pause: PAUSE_MIN, next: now + PAUSE_MIN }
    }

    /// Notes another failure.
    pub(super) fn failed_again(&mut self, error: OpenError) {
        self.error = error;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.next = Instant::now() + self.pause;
    }

    fn reason(&self) -> String {
        with_sources(&self.error)
    }

    /// Its row among the logs, so that it is not missed there.
    fn status(&self, id: LogId, node: &NodeInner) -> Status {
        Status {
            failure: Some(format!("it could not be opened: {}", self.reason())),
            ..Status::new(self.name.as_str(), id.0, node.config.node_id, Role::Stopped)
        }
    }
}

impl NodeInner {
    /// Status of every log that the node should hold, by number.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let groups = self.groups();
        let mut all: Vec<_> = groups.iter().map(|group| self.status_of(group)).collect();
        {
            let not_open = self.not_open();
            let statuses = not_open.iter().map(|(id, not_open)| not_open.status(*id, self));
            all.extend(statuses.map(|status| self.elsewhere.complete(status)));
        }
        all.sort_by_key(|status| status.log_id);
        all
    }

    /// Status of a log, with its leader elsewhere if this node's copy has stopped.
    pub(super) fn status_of(&self, group: &Group) -> Status {
        self.elsewhere.complete(group.status())
    }

    pub(super) fn status(&self) -> NodeStatus {
        NodeStatus { node: self.member.clone(), logs: self.statuses(), problems: self.problems() }
    }

    /// What is wrong with this node, its own problems first.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut all: Vec<Problem> =
            self.groups().iter().filter_map(|group| of_group(group)).collect();
        {
            let not_open = self.not_open();
            all.extend(not_open.values().map(|not_open| Problem {
                log: Some(not_open.name.to_string()),
                for_ms: super::supervise::millis(not_open.since.elapsed()),
                ..Problem::new(ProblemKind::LogNotOpen, not_open.reason())
            }));
        }
        all.extend(self.panics.problems());
        // What has stopped all logs is said once, of the node.
        let standing = self.peers.standing.problems();
        let is_said = |reason: &str| standing.iter().any(|problem| problem.reason == reason);
        all.retain(|problem| problem.kind != ProblemKind::LogStopped || !is_said(&problem.reason));
        all.extend(standing);
        all.extend(self.peer_problems());
        all.sort_by_key(|problem| problem.kind);
        all
    }

    /// The storage failure that keeps a log of this node from being open.
    pub(super) fn not_open_failure(&self) -> Option<Arc<StorageError>> {
        self.not_open().values().find_map(|not_open| match &not_open.error {
            OpenError::Storage(error) => Some(Arc::new(error.poisoned_by())),
            _ => None,
        })
    }
}

/// A restart helps if disk and memory may differ, and if consensus hit a bug. It does not help a state machine, which
/// gets the same records again.
fn of_group(group: &Group) -> Option<Problem> {
    let log = Some(group.name.to_string());
    let Some(reason) = group.stop_reason() else {
        if let Some(reason) = group.unfit.damage() {
            return Some(Problem { log, ..Problem::new(ProblemKind::LogDamaged, reason) });
        }
        if let Some((reason, lasts)) = group.waiting_for_space() {
            let for_ms = super::supervise::millis(lasts);
            let waits = Problem::new(ProblemKind::CheckpointWaits, reason);
            return Some(Problem { log, for_ms, ..waits });
        }
        let since = group.trust.suspect_since()?;
        let for_ms = super::supervise::millis(since.elapsed());
        let reason = "this copy may lack records that it had acknowledged before the machine lost its power, or a flush \
                      failed; it asks the leader for them, and its vote elects nobody until then";
        return Some(Problem { log, for_ms, ..Problem::new(ProblemKind::LogSuspect, reason) });
    };
    Some(Problem {
        log,
        needs_restart: group.restart_helps(),
        ..Problem::new(ProblemKind::LogStopped, reason)
    })
}

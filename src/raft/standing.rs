//! How the other members see this node, as far as they tell it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::problem::{Problem, ProblemKind};

/// A statement that was not repeated for this long no longer holds. Others dial, and so repeat it, every two seconds.
const HOLDS: Duration = Duration::from_secs(20);
/// The same for a removal, which a leader repeats every second: a node may be added again.
const REMOVAL_HOLDS: Duration = Duration::from_secs(5);
/// Pause between two messages in the log about the same.
const PAUSE: Duration = Duration::from_secs(60);

/// The start of a refusal because another process has the same data. Part of the protocol between nodes.
pub(super) const TWIN: &str = "another process has this node's data";
/// How a member begins to tell a node that it was removed. Part of the protocol between nodes.
const REMOVED: &str = "this node is no member of the cluster any more";

/// What a member tells a node that was removed.
pub(super) fn removed() -> String {
    format!("{REMOVED}: it was removed. Stop it, or add it again")
}

/// True if a member says so that this node was removed.
pub(crate) fn tells_removal(reason: &str) -> bool {
    reason.starts_with(REMOVED)
}

/// How the other members see this node.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Some member has talked to this process.
    accepted: AtomicBool,
    is_outdated: AtomicBool,
    /// Something was said after which this process may have to stop.
    pub(crate) news: Notify,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    data_lost: Option<Saying>,
    /// Stays: no other data comes to this process.
    outdated: Option<Saying>,
    twin: Option<Saying>,
    not_reached: Option<Saying>,
    removed: Option<Saying>,
}

#[derive(Debug)]
struct Saying {
    reason: String,
    since: Instant,
    last: Instant,
    logged: Instant,
}

fn say(saying: &mut Option<Saying>, reason: &str) {
    let now = Instant::now();
    let held = saying.take().filter(|saying| saying.last.elapsed() < HOLDS);
    let logged = held.as_ref().map(|saying| saying.logged).filter(|at| at.elapsed() < PAUSE);
    if logged.is_none() {
        tracing::error!(reason, "this node does not do its part in the cluster");
    }
    let since = held.map_or(now, |saying| saying.since);
    let logged = logged.unwrap_or(now);
    *saying = Some(Saying { reason: reason.to_owned(), since, last: now, logged });
}

impl Standing {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member talks to this process.
    pub(super) fn accepted(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// True if some member has talked to this process.
    pub(super) fn took_part(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A member says that this node has other data than it expects.
    pub(super) fn data_lost(&self, reason: &str) {
        say(&mut self.said().data_lost, reason);
    }

    /// Some member has heard of newer data of this node than it has.
    pub(crate) fn outdated(&self, reason: &str) {
        say(&mut self.said().outdated, reason);
        self.is_outdated.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Why this node must not take part with the data that it has.
    pub(crate) fn is_outdated(&self) -> Option<String> {
        if !self.is_outdated.load(Ordering::Acquire) {
            return None;
        }
        self.said().outdated.as_ref().map(|saying| saying.reason.clone())
    }

    /// This node has been added with the data that it has.
    pub(crate) fn is_member(&self) {
        self.said().data_lost = None;
    }

    /// A member talks to another process with the same data.
    pub(super) fn twin(&self, reason: &str) {
        say(&mut self.said().twin, reason);
    }

    /// The leader of the system log says that this node is no member.
    pub(crate) fn removed(&self, reason: &str) {
        say(&mut self.said().removed, reason);
    }

    /// Why this node has no part in the cluster any more, if it was removed.
    pub(crate) fn is_removed(&self) -> Option<String> {
        let said = self.said();
        let held = said.removed.as_ref().filter(|saying| saying.last.elapsed() < REMOVAL_HOLDS);
        held.map(|saying| saying.reason.clone())
    }

    /// Too few members reach this node for it to lead; none if enough do.
    pub(crate) fn not_reached(&self, reason: Option<&str>) {
        match reason {
            Some(reason) => say(&mut self.said().not_reached, reason),
            None => self.said().not_reached = None,
        }
    }

    /// Why this process must not go on, if it must not: another one with the same data has its place, and no member
    /// has ever talked to this one. A process that has taken part goes on: the other one is the copy.
    pub(crate) fn superseded(&self) -> Option<String> {
        if self.took_part() {
            return None;
        }
        self.said().twin.as_ref().map(|saying| saying.reason.clone())
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let said = self.said();
        let all = [
            (ProblemKind::DataLost, &said.outdated, Duration::MAX),
            (ProblemKind::DataLost, &said.data_lost, HOLDS),
            (ProblemKind::Duplicate, &said.twin, HOLDS),
            (ProblemKind::NotReachedBack, &said.not_reached, HOLDS),
            (ProblemKind::Removed, &said.removed, REMOVAL_HOLDS),
        ];
        let holds = |(kind, saying, holds): (ProblemKind, &Option<Saying>, Duration)| {
            let saying = saying.as_ref().filter(|saying| saying.last.elapsed() < holds)?;
            let for_ms = u64::try_from(saying.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            Some(Problem { for_ms, ..Problem::new(kind, saying.reason.clone()) })
        };
        all.into_iter().filter_map(holds).collect()
    }
}

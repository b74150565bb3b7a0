//! The node's own tasks, and what happens if one panics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::inner::NodeInner;
use crate::panics;
use crate::problem::{Problem, ProblemKind};

/// Pause before a task that panicked begins again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long a panic is shown after its task has begun again.
const SHOWN: Duration = Duration::from_secs(60);

/// Panics of the node's tasks, by the task's name.
#[derive(Debug, Default)]
pub(super) struct Panics(Mutex<BTreeMap<&'static str, Panicked>>);

#[derive(Debug)]
struct Panicked {
    at: Instant,
    reason: String,
    /// The task does not begin again.
    ended: bool,
}

impl Panics {
    pub(super) fn note(&self, task: &'static str, panic: &str, ended: bool) {
        let what = if ended { "it has ended; restart the node" } else { "it begins again" };
        let reason = format!("the task \"{task}\" panicked: {panic}; {what}");
        tracing::error!(task, panic, "a task of the node panicked; {what}");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(task, Panicked { at: Instant::now(), reason, ended });
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, panicked| panicked.ended || panicked.at.elapsed() < SHOWN);
        let problem = |panicked: &Panicked| Problem {
            for_ms: millis(panicked.at.elapsed()),
            needs_restart: panicked.ended,
            ..Problem::new(ProblemKind::TaskPanicked, panicked.reason.clone())
        };
        all.values().map(problem).collect()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl NodeInner {
    /// Runs a task until it ends, or the node stops. One that panics begins again after a pause: it holds nothing that
    /// a panic could leave half done.
    pub(crate) async fn keep<F: Future<Output = ()>>(
        self: Arc<Self>,
        name: &'static str,
        task: impl Fn() -> F,
    ) {
        let mut stopping = self.stopping.subscribe();
        while let Err(panic) = panics::catching(task()).await {
            self.panics.note(name, &panic, false);
            tokio::select! {
                () = tokio::time::sleep(RESTART_PAUSE) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    /// Runs a task that cannot begin again.
    pub(crate) async fn run_once(
        self: Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()>,
    ) {
        panics::or_else(task, |panic| self.panics.note(name, &panic, true)).await;
    }
}

//! Logs that have something for their writers to do, and when they want to be driven again.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
#[cfg(any(test, feature = "simulation"))]
use std::time::Duration;
use std::time::Instant;

use crate::error::StorageError;
use crate::panics;

/// A log whose writer is driven.
pub(in crate::log) trait Drive: Send + Sync {
    /// Where it lies.
    fn dir(&self) -> &Path;

    /// Does up to `jobs_max` of the jobs that are queued, and what is due. Says when to call again even if nothing is
    /// submitted.
    fn drive(self: Arc<Self>, now: Instant, jobs_max: usize) -> Option<Instant>;

    /// The writer panicked: what it was doing is not known.
    fn poison(&self, error: StorageError);

    /// The last call: flushes what is written, and fails what waits.
    fn abandon(&self);
}

/// The logs that one thread drives next.
#[derive(Default)]
pub(in crate::log) struct WriterQueue {
    queued: Mutex<Queued>,
    pub(super) sleeper: Sleeper,
}

/// Who waits for the queue.
pub(super) enum Sleeper {
    Thread(Condvar),
    /// Nobody: who made the queue drives its logs, by this clock.
    #[cfg(any(test, feature = "simulation"))]
    Owner(Mutex<Instant>),
    #[cfg(feature = "simulation")]
    Task(tokio::sync::Notify),
}

impl Default for Sleeper {
    fn default() -> Self {
        Self::Thread(Condvar::new())
    }
}

#[derive(Default)]
pub(in crate::log) struct Queued {
    pub(in crate::log) ready: Vec<Arc<dyn Drive>>,
    sleeping: bool,
    pub(in crate::log) stopping: bool,
    pub(in crate::log) stopped: bool,
}

impl Queued {
    /// Moves the queued logs to `ready`. True at the end: nothing will be queued any more.
    pub(in crate::log) fn take(&mut self, ready: &mut Vec<Arc<dyn Drive>>) -> bool {
        std::mem::swap(&mut self.ready, ready);
        self.stopped = self.stopping && ready.is_empty();
        self.stopped
    }
}

impl WriterQueue {
    /// A queue that a task drains.
    #[cfg(feature = "simulation")]
    pub(super) fn for_task() -> Self {
        let sleeper = Sleeper::Task(tokio::sync::Notify::new());
        Self { queued: Mutex::default(), sleeper }
    }

    /// A queue whose logs its owner drives. Its clock stands until it is set.
    #[cfg(any(test, feature = "simulation"))]
    pub(in crate::log) fn for_owner() -> Self {
        let sleeper = Sleeper::Owner(Mutex::new(Instant::now()));
        Self { queued: Mutex::default(), sleeper }
    }

    /// Lets time pass for who drives the logs itself.
    #[cfg(any(test, feature = "simulation"))]
    pub(in crate::log) fn pass(&self, time: Duration) {
        if let Sleeper::Owner(now) = &self.sleeper {
            *now.lock().unwrap_or_else(PoisonError::into_inner) += time;
        }
    }

    /// The time by the clock of whoever drives the writers.
    pub(in crate::log) fn now(&self) -> Instant {
        match &self.sleeper {
            Sleeper::Thread(_) => Instant::now(),
            #[cfg(any(test, feature = "simulation"))]
            Sleeper::Owner(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(feature = "simulation")]
            Sleeper::Task(_) => tokio::time::Instant::now().into_std(),
        }
    }

    /// Resolves once something was queued, or was before.
    #[cfg(feature = "simulation")]
    pub(in crate::log) async fn woken(&self) {
        match &self.sleeper {
            Sleeper::Thread(_) | Sleeper::Owner(_) => {}
            Sleeper::Task(notify) => notify.notified().await,
        }
    }

    fn wake(&self) {
        match &self.sleeper {
            Sleeper::Thread(condvar) => condvar.notify_one(),
            #[cfg(any(test, feature = "simulation"))]
            Sleeper::Owner(_) => {}
            #[cfg(feature = "simulation")]
            Sleeper::Task(notify) => notify.notify_one(),
        }
    }

    /// Queues a log. False if the thread is gone.
    pub(in crate::log) fn push(&self, log: Arc<dyn Drive>) -> bool {
        let mut queued = self.queued();
        if queued.stopped {
            return false;
        }
        queued.ready.push(log);
        // A task keeps its wake-up until it waits, so it need not say that it sleeps.
        let wake = std::mem::take(&mut queued.sleeping)
            || !matches!(self.sleeper, Sleeper::Thread(_)) && queued.ready.len() == 1;
        drop(queued);
        if wake {
            self.wake();
        }
        true
    }

    /// What is queued, for who drives the logs itself.
    #[cfg(any(test, feature = "simulation"))]
    pub(in crate::log) fn take(&self) -> Vec<Arc<dyn Drive>> {
        std::mem::take(&mut self.queued().ready)
    }

    pub(super) fn stop(&self) {
        self.queued().stopping = true;
        self.wake();
    }

    /// Moves the queued logs to `ready`; waits for one, at most until `deadline`. False at the end.
    pub(super) fn drain(
        &self,
        condvar: &Condvar,
        ready: &mut Vec<Arc<dyn Drive>>,
        deadline: Option<Instant>,
    ) -> bool {
        let mut queued = self.queued();
        while queued.ready.is_empty() && !queued.stopping {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            queued.sleeping = true;
            queued = match left {
                Some(left) => {
                    let waited = condvar.wait_timeout(queued, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => condvar.wait(queued).unwrap_or_else(PoisonError::into_inner),
            };
            queued.sleeping = false;
        }
        !queued.take(ready)
    }

    pub(in crate::log) fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs that want to be driven at a time.
#[derive(Default)]
pub(in crate::log) struct Timers(Vec<(Instant, Arc<dyn Drive>)>);

impl Timers {
    /// When the first is due.
    pub(in crate::log) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(at, _)| *at).min()
    }

    /// Those that are due.
    pub(in crate::log) fn due(&mut self, now: Instant) -> Vec<Arc<dyn Drive>> {
        self.0.extract_if(.., |(at, _)| *at <= now).map(|(_, log)| log).collect()
    }

    /// At the end: does now what was due later, or fails it.
    pub(in crate::log) fn abandon(&mut self) {
        self.0.drain(..).for_each(|(_, log)| drop(panics::catch(|| log.abandon())));
    }

    /// Drives a log through up to `jobs_max` jobs, and notes when it wants to be driven again.
    pub(in crate::log) fn drive(&mut self, log: Arc<dyn Drive>, now: Instant, jobs_max: usize) {
        let drive = || Arc::clone(&log).drive(now, jobs_max);
        let next = panics::catch(drive).unwrap_or_else(|panic| {
            // The log cannot go on, but the others of this thread can.
            let failing = || {
                log.poison(writer_panicked(log.dir(), &panic));
                drive()
            };
            panics::catch(failing).unwrap_or_else(|again| {
                let dir = log.dir().display();
                tracing::error!(%dir, panic, again, "a log's writer panicked, and again while it was stopped");
                let _ = panics::catch(|| log.abandon());
                None
            })
        });
        self.0.retain(|(_, other)| !Arc::ptr_eq(other, &log));
        if let Some(at) = next {
            self.0.push((at, log));
        }
    }
}

/// What a log whose writer panicked is poisoned by.
pub(in crate::log) fn writer_panicked(dir: &Path, panic: &str) -> StorageError {
    StorageError::io("write", dir, io::Error::other(format!("the writer panicked: {panic}")))
}

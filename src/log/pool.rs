//! The threads that drive the writers of all logs of a node; in a simulation, tasks.
//!
//! Each thread has one queue of logs that have something to do, drained whole per wake-up. It waits
//! on a timer only when a marker, a background flush or a retry is due; never for an append.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
#[cfg(any(test, feature = "simulation"))]
use std::time::Duration;
use std::time::Instant;

use tokio::sync::watch;

use crate::error::StorageError;
use crate::panics;

use super::core::Core;
use super::saver::SaverQueue;
#[cfg(feature = "simulation")]
use super::writer_task::{Pace, WriterTask};

/// Threads that write and flush for all logs of a node. Cheap to clone; dropping the last clone
/// stops them as `shutdown` does, without waiting.
#[derive(Clone)]
pub(crate) struct WriterPool {
    inner: Arc<PoolInner>,
}

struct PoolInner {
    queues: Vec<Arc<WriterQueue>>,
    next: AtomicUsize,
    saver: SaverQueue,
    /// Threads that run.
    live: watch::Receiver<usize>,
}

impl WriterPool {
    /// Starts the threads.
    pub(crate) fn start(threads: u32) -> io::Result<Self> {
        let (live, live_seen) = watch::channel(0);
        let live = Arc::new(live);
        let mut inner = PoolInner::new(SaverQueue::start(&live)?, live_seen);
        for number in 0..threads.max(1) {
            let queue = Arc::new(WriterQueue::default());
            let (driven, live) = (Arc::clone(&queue), Arc::clone(&live));
            live.send_modify(|count| *count += 1);
            let begin = move || {
                // However the thread ends, those who wait for its end hear of it.
                let _running = Running { queue: Arc::clone(&driven), live };
                WriterThread { queue: driven, timers: Timers::default() }.run();
            };
            // A thread that cannot start fails the call; `inner` then stops the others.
            thread::Builder::new().name(format!("quorumlog-writer-{number}")).spawn(begin)?;
            inner.queues.push(queue);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts tasks on the present runtime instead of threads. They wait for `pace` before each run of
    /// a writer: it stands for the time that the disk takes.
    #[cfg(feature = "simulation")]
    pub(crate) fn start_tasks(count: u32, pace: &Pace) -> Self {
        let (live, live_seen) = watch::channel(0);
        let live = Arc::new(live);
        let mut inner = PoolInner::new(SaverQueue::start_task(&live, pace), live_seen);
        for _ in 0..count.max(1) {
            let queue = Arc::new(WriterQueue::for_task());
            let (task, live) =
                (WriterTask::new(Arc::clone(&queue), Arc::clone(pace)), live.clone());
            live.send_modify(|count| *count += 1);
            tokio::spawn(async move {
                task.run().await;
                live.send_modify(|count| *count -= 1);
            });
            inner.queues.push(queue);
        }
        Self { inner: Arc::new(inner) }
    }

    /// Waits for everything submitted, then stops the threads. Logs that are still open are closed:
    /// what they wrote is flushed, and what waits for disk space fails.
    ///
    /// Cancel safety: once polled, the threads stop in any case.
    pub(crate) async fn shutdown(&self) {
        self.inner.stop();
        let mut live = self.inner.live.clone();
        // An error means that the sender is gone, and so are the threads.
        let _ = live.wait_for(|count| *count == 0).await;
    }

    /// The queue for a new log; round robin.
    pub(super) fn assign(&self) -> Arc<WriterQueue> {
        let next = self.inner.next.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.inner.queues[next % self.inner.queues.len()])
    }

    /// The queue of the thread that saves checkpoints.
    pub(super) fn saver(&self) -> SaverQueue {
        self.inner.saver.clone()
    }
}

impl PoolInner {
    fn new(saver: SaverQueue, live: watch::Receiver<usize>) -> Self {
        Self { queues: Vec::new(), next: AtomicUsize::new(0), saver, live }
    }

    fn stop(&self) {
        self.saver.stop();
        self.queues.iter().for_each(|queue| queue.stop());
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The logs that one thread is to drive.
#[derive(Default)]
pub(super) struct WriterQueue {
    queued: Mutex<Queued>,
    sleeper: Sleeper,
}

/// Who waits for the queue.
enum Sleeper {
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
pub(super) struct Queued {
    pub(super) ready: Vec<Arc<Core>>,
    sleeping: bool,
    pub(super) stopping: bool,
    pub(super) stopped: bool,
}

impl Queued {
    /// Moves the queued logs to `ready`. True at the end: nothing will be queued any more.
    pub(super) fn take(&mut self, ready: &mut Vec<Arc<Core>>) -> bool {
        std::mem::swap(&mut self.ready, ready);
        self.stopped = self.stopping && ready.is_empty();
        self.stopped
    }
}

impl WriterQueue {
    /// A queue that a task drains.
    #[cfg(feature = "simulation")]
    fn for_task() -> Self {
        let sleeper = Sleeper::Task(tokio::sync::Notify::new());
        Self { queued: Mutex::default(), sleeper }
    }

    /// A queue whose logs its owner drives. Its clock stands until it is set.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn for_owner() -> Self {
        let sleeper = Sleeper::Owner(Mutex::new(Instant::now()));
        Self { queued: Mutex::default(), sleeper }
    }

    /// Lets time pass for who drives the logs itself.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn pass(&self, time: Duration) {
        if let Sleeper::Owner(now) = &self.sleeper {
            *now.lock().unwrap_or_else(PoisonError::into_inner) += time;
        }
    }

    /// The time by the clock of whoever drives the writers.
    pub(super) fn now(&self) -> Instant {
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
    pub(super) async fn woken(&self) {
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
    pub(super) fn push(&self, core: &Arc<Core>) -> bool {
        let mut queued = self.queued();
        if queued.stopped {
            return false;
        }
        queued.ready.push(Arc::clone(core));
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
    pub(super) fn take(&self) -> Vec<Arc<Core>> {
        std::mem::take(&mut self.queued().ready)
    }

    fn stop(&self) {
        self.queued().stopping = true;
        self.wake();
    }

    /// Moves the queued logs to `ready`; waits for one, at most until `deadline`. False at the end.
    fn drain(
        &self,
        condvar: &Condvar,
        ready: &mut Vec<Arc<Core>>,
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

    pub(super) fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a thread runs, until it is dropped. What is still queued then, after a panic, fails.
struct Running {
    queue: Arc<WriterQueue>,
    live: Arc<watch::Sender<usize>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let left = {
            let mut queued = self.queue.queued();
            queued.stopped = true;
            std::mem::take(&mut queued.ready)
        };
        for core in left {
            // The thread panicked, and this may too: the others are still to be told.
            let _ = panics::catch(|| core.abandon());
        }
        self.live.send_modify(|count| *count -= 1);
    }
}

struct WriterThread {
    queue: Arc<WriterQueue>,
    timers: Timers,
}

impl WriterThread {
    fn run(&mut self) {
        // A task drains the other kind of queue.
        #[cfg_attr(not(any(test, feature = "simulation")), expect(irrefutable_let_patterns))]
        let Sleeper::Thread(condvar) = &self.queue.sleeper else { return };
        let mut ready = Vec::new();
        while self.queue.drain(condvar, &mut ready, self.timers.next()) {
            ready.drain(..).for_each(|core| self.timers.drive(core, Instant::now(), usize::MAX));
            let now = Instant::now();
            let due = self.timers.due(now);
            due.into_iter().for_each(|core| self.timers.drive(core, now, usize::MAX));
        }
        self.timers.abandon();
    }
}

/// Logs that want to be driven at a time.
#[derive(Default)]
pub(super) struct Timers(Vec<(Instant, Arc<Core>)>);

impl Timers {
    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(at, _)| *at).min()
    }

    /// Those that are due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Arc<Core>> {
        self.0.extract_if(.., |(at, _)| *at <= now).map(|(_, core)| core).collect()
    }

    /// The end: what was to be done later is done or fails now.
    pub(super) fn abandon(&mut self) {
        self.0.drain(..).for_each(|(_, core)| drop(panics::catch(|| core.abandon())));
    }

    /// Drives a log through up to `jobs_max` jobs, and notes when it wants to be driven again.
    pub(super) fn drive(&mut self, core: Arc<Core>, now: Instant, jobs_max: usize) {
        let next = panics::catch(|| core.drive(now, jobs_max)).unwrap_or_else(|panic| {
            // The log cannot go on, but the others of this thread can.
            let failing = || {
                core.poison(writer_panicked(core.shared.dir(), &panic));
                core.drive(now, jobs_max)
            };
            panics::catch(failing).unwrap_or_else(|again| {
                let dir = core.shared.dir().display();
                tracing::error!(%dir, panic, again, "a log's writer panicked, and again while it was stopped");
                let _ = panics::catch(|| core.abandon());
                None
            })
        });
        self.0.retain(|(_, other)| !Arc::ptr_eq(other, &core));
        if let Some(at) = next {
            self.0.push((at, core));
        }
    }
}

/// What a log whose writer panicked is poisoned by.
pub(super) fn writer_panicked(dir: &Path, panic: &str) -> StorageError {
    StorageError::io("write", dir, io::Error::other(format!("the writer panicked: {panic}")))
}

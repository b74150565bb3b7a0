//! The threads that drive the writers of all logs of a node.
//!
//! Each thread has one queue of logs that have something to do, drained whole per wake-up. It waits
//! on a timer only when a marker, a background flush or a retry is due; never for an append.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use tokio::sync::watch;

use crate::error::StorageError;

use super::core::Core;

/// Threads that write and flush for all logs of a node. Cheap to clone; dropping the last clone
/// stops them as `shutdown` does, without waiting.
#[derive(Clone)]
pub(crate) struct WriterPool {
    inner: Arc<PoolInner>,
}

struct PoolInner {
    queues: Vec<Arc<WriterQueue>>,
    next: AtomicUsize,
    /// Threads that run.
    live: watch::Receiver<usize>,
}

impl WriterPool {
    /// Starts the threads.
    pub(crate) fn start(threads: u32) -> io::Result<Self> {
        let (live, live_seen) = watch::channel(0);
        let mut inner =
            PoolInner { queues: Vec::new(), next: AtomicUsize::new(0), live: live_seen };
        let live = Arc::new(live);
        for number in 0..threads.max(1) {
            let queue = Arc::new(WriterQueue::default());
            let (driven, live) = (Arc::clone(&queue), Arc::clone(&live));
            live.send_modify(|count| *count += 1);
            let begin = move || {
                WriterThread { queue: driven, timers: Vec::new() }.run();
                live.send_modify(|count| *count -= 1);
            };
            // A thread that cannot start fails the call; `inner` then stops the others.
            thread::Builder::new().name(format!("quorumlog-writer-{number}")).spawn(begin)?;
            inner.queues.push(queue);
        }
        Ok(Self { inner: Arc::new(inner) })
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
}

impl PoolInner {
    fn stop(&self) {
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
    wake: Condvar,
}

#[derive(Default)]
struct Queued {
    ready: Vec<Arc<Core>>,
    sleeping: bool,
    stopping: bool,
    stopped: bool,
}

impl WriterQueue {
    /// Queues a log. False if the thread is gone.
    pub(super) fn push(&self, core: &Arc<Core>) -> bool {
        let mut queued = self.queued();
        if queued.stopped {
            return false;
        }
        queued.ready.push(Arc::clone(core));
        let wake = std::mem::take(&mut queued.sleeping);
        drop(queued);
        if wake {
            self.wake.notify_one();
        }
        true
    }

    /// What is queued, for a test that drives the logs itself.
    #[cfg(test)]
    pub(super) fn take(&self) -> Vec<Arc<Core>> {
        std::mem::take(&mut self.queued().ready)
    }

    fn stop(&self) {
        self.queued().stopping = true;
        self.wake.notify_one();
    }

    /// Moves the queued logs to `ready`; waits for one, at most until `deadline`. False at the end.
    fn drain(&self, ready: &mut Vec<Arc<Core>>, deadline: Option<Instant>) -> bool {
        let mut queued = self.queued();
        while queued.ready.is_empty() && !queued.stopping {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            queued.sleeping = true;
            queued = match left {
                Some(left) => {
                    let waited = self.wake.wait_timeout(queued, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(queued).unwrap_or_else(PoisonError::into_inner),
            };
            queued.sleeping = false;
        }
        std::mem::swap(&mut queued.ready, ready);
        let ended = queued.stopping && ready.is_empty();
        queued.stopped = ended;
        !ended
    }

    fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct WriterThread {
    queue: Arc<WriterQueue>,
    /// Logs that want to be driven at a time.
    timers: Vec<(Instant, Arc<Core>)>,
}

impl WriterThread {
    fn run(&mut self) {
        let mut ready = Vec::new();
        let mut due = Vec::new();
        while self.queue.drain(&mut ready, self.timers.iter().map(|(at, _)| *at).min()) {
            for core in ready.drain(..) {
                self.drive(core);
            }
            let now = Instant::now();
            due.extend(self.timers.extract_if(.., |(at, _)| *at <= now).map(|(_, core)| core));
            for core in due.drain(..) {
                self.drive(core);
            }
        }
        for (_, core) in self.timers.drain(..) {
            core.abandon();
        }
    }

    fn drive(&mut self, core: Arc<Core>) {
        let next = catch_unwind(AssertUnwindSafe(|| core.drive(Instant::now())));
        let next = next.unwrap_or_else(|_| {
            // The log cannot go on, but the others of this thread can.
            let error = io::Error::other("the writer panicked");
            core.poison(StorageError::io("write", core.shared.dir(), error));
            core.drive(Instant::now())
        });
        self.timers.retain(|(_, other)| !Arc::ptr_eq(other, &core));
        if let Some(at) = next {
            self.timers.push((at, core));
        }
    }
}

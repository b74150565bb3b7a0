//! The threads that drive the writers of all logs of a node; in a simulation, tasks.
//!
//! Each thread has one queue of logs that have something to do, drained whole per wake-up. It waits
//! on a timer only when a marker, a background flush or a retry is due; never for an append.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::queue::WriterQueue;
use super::saving::SavingQueue;
use super::thread;
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
    saver: SavingQueue,
    /// Threads that run.
    live: watch::Receiver<usize>,
}

impl WriterPool {
    /// Starts the threads.
    pub(crate) fn start(threads: u32) -> io::Result<Self> {
        let (live, live_seen) = watch::channel(0);
        let live = Arc::new(live);
        let mut inner = PoolInner::new(SavingQueue::start(&live)?, live_seen);
        for number in 0..threads.max(1) {
            let queue = Arc::new(WriterQueue::default());
            // A thread that cannot start fails the call; `inner` then stops the others.
            thread::start(number, &queue, &live)?;
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
        let mut inner = PoolInner::new(SavingQueue::start_task(&live, pace), live_seen);
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
    pub(in crate::log) fn assign(&self) -> Arc<WriterQueue> {
        let next = self.inner.next.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.inner.queues[next % self.inner.queues.len()])
    }

    /// The queue of the thread that saves checkpoints.
    pub(in crate::log) fn saver(&self) -> SavingQueue {
        self.inner.saver.clone()
    }
}

impl PoolInner {
    fn new(saver: SavingQueue, live: watch::Receiver<usize>) -> Self {
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

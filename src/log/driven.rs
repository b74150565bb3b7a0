//! A log whose writer its owner drives: no threads, no waiting, the same each time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::StorageError;
use crate::format::entry::Entry;
use crate::seam::Disk;

use super::drive::queue::WriterQueue;
use super::{Log, LogOptions};

/// The result of a call that waits for the writer.
pub(crate) type Done = Result<(), Arc<StorageError>>;

/// See the module.
pub(crate) struct DrivenLog {
    pub(crate) log: Log,
    queue: Arc<WriterQueue>,
}

impl Drop for DrivenLog {
    fn drop(&mut self) {
        // A log in the queue and the queue in the log would keep each other.
        self.queue.take();
    }
}

impl DrivenLog {
    /// See [`Log::open`].
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<Self, StorageError> {
        let queue = Arc::new(WriterQueue::for_owner());
        let log = Log::open_on(disk, dir, options, Arc::clone(&queue))?;
        Ok(Self { log, queue })
    }

    /// Lets the writer do what is queued. Gives the time that it wants to be called again.
    pub(crate) fn settle(&mut self) -> Option<Instant> {
        let mut next = None;
        loop {
            let ready = self.queue.take();
            if ready.is_empty() {
                return next;
            }
            for core in ready {
                next = core.drive(self.queue.now(), usize::MAX);
            }
        }
    }

    /// The clock of the writer, to let time pass meanwhile.
    #[cfg(test)]
    pub(super) fn clock(&self) -> impl Fn(Duration) + Send + Sync + 'static {
        let queue = Arc::downgrade(&self.queue);
        move |time| {
            if let Some(queue) = queue.upgrade() {
                queue.pass(time);
            }
        }
    }

    /// Lets time pass, and the writer do what is due then.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.queue.pass(time);
        self.log.wake();
        self.settle();
    }

    /// Starts something, and lets the writer finish it; none if it waits for space.
    #[cfg(test)]
    pub(crate) fn run<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        let first = futures_util::FutureExt::now_or_never(&mut future);
        first.or_else(|| {
            self.settle();
            futures_util::FutureExt::now_or_never(future)
        })
    }

    /// Submits an append; the result comes once the writer has settled.
    pub(crate) fn submit(&self, entries: Vec<Entry>) -> oneshot::Receiver<Done> {
        let (sender, receiver) = oneshot::channel();
        // Who submitted it may have given up; it is appended all the same.
        self.log.append(entries, Box::new(move |result| drop(sender.send(result))));
        receiver
    }

    /// Appends; none if it waits for space.
    #[cfg(test)]
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> Option<Done> {
        let mut done = self.submit(entries);
        self.settle();
        done.try_recv().ok()
    }

    /// Closes the log; none if it waits for space.
    #[cfg(test)]
    pub(crate) fn close(&mut self) -> Option<Done> {
        let log = self.log.clone();
        self.run(async move { log.close().await })
    }
}

//! A log on a disk in memory, driven by the test itself: no threads, no clock, the same each time.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::super::pool::WriterQueue;
use super::*;
use crate::segment::test_disk::TestDisk;

pub(super) const DIR: &str = "/logs/0000000000000007";

/// See the module.
pub(super) struct Driven {
    pub(super) disk: TestDisk,
    pub(super) log: Log,
    queue: Arc<WriterQueue>,
    now: Instant,
}

impl Drop for Driven {
    fn drop(&mut self) {
        // A log in the queue and the queue in the log would keep each other.
        self.queue.take();
    }
}

impl Driven {
    pub(super) fn open(disk: &TestDisk, options: &LogOptions) -> Result<Self, StorageError> {
        let queue = Arc::new(WriterQueue::default());
        let opened =
            Log::open_on(disk.shared(), Path::new(DIR), options.clone(), Arc::clone(&queue));
        opened.map(|log| Self { disk: disk.clone(), log, queue, now: Instant::now() })
    }

    /// Lets the writer do what is queued. Gives the time that it wants to be called again.
    pub(super) fn settle(&mut self) -> Option<Instant> {
        let mut next = None;
        loop {
            let ready = self.queue.take();
            if ready.is_empty() {
                return next;
            }
            for core in ready {
                next = core.drive(self.now);
            }
        }
    }

    /// Lets time pass, and the writer do what is due then.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.log.wake();
        self.settle();
    }

    /// Starts something and lets the writer finish it; none if it waits for space.
    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Some(result);
        }
        self.settle();
        match future.as_mut().poll(&mut context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) -> Option<Done> {
        let mut done = submit(&self.log, entries);
        self.settle();
        done.try_recv().ok()
    }

    pub(super) fn close(&mut self) -> Option<Done> {
        let log = self.log.clone();
        self.run(async move { log.close().await })
    }
}

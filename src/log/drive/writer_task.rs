//! Writers driven by a task instead of a thread: what a simulation needs, where one thread runs
//! everything and time is not real.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use super::queue::{Drive, Timers, WriterQueue};

/// Awaited before each run of the writer of the log in this directory: the time that the disk takes. Gives how
/// many jobs the run may do, at least one: beside a thread, others go on and see what it has done so far.
pub(crate) type Pace =
    Arc<dyn Fn(&Path) -> Pin<Box<dyn Future<Output = usize> + Send>> + Send + Sync>;

/// Drives the logs of one queue.
pub(in crate::log) struct WriterTask {
    queue: Arc<WriterQueue>,
    pace: Pace,
    timers: Timers,
}

impl WriterTask {
    pub(in crate::log) fn new(queue: Arc<WriterQueue>, pace: Pace) -> Self {
        Self { queue, pace, timers: Timers::default() }
    }

    /// Runs until the pool stops.
    pub(in crate::log) async fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            self.wait().await;
            if self.queue.queued().take(&mut ready) {
                break;
            }
            for log in ready.drain(..) {
                Self::drive(&self.pace, &mut self.timers, &self.queue, log).await;
            }
            for log in self.timers.due(self.queue.now()) {
                Self::drive(&self.pace, &mut self.timers, &self.queue, log).await;
            }
        }
        self.timers.abandon();
    }

    /// Waits until a log is queued or due, or the pool stops.
    async fn wait(&self) {
        let idle = {
            let queued = self.queue.queued();
            queued.ready.is_empty() && !queued.stopping
        };
        match self.timers.next() {
            _ if !idle => {}
            None => self.queue.woken().await,
            Some(at) => {
                // Either is a reason to go on.
                let _ = tokio::time::timeout_at(at.into(), self.queue.woken()).await;
            }
        }
    }

    async fn drive(pace: &Pace, timers: &mut Timers, queue: &WriterQueue, log: Arc<dyn Drive>) {
        let jobs_max = pace(log.dir()).await.max(1);
        timers.drive(log, queue.now(), jobs_max);
    }
}

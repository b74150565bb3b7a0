//! Threads that drive writers.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::watch;

use super::queue::{Sleeper, Timers, WriterQueue};
use crate::panics;

/// Starts a thread for the logs of a queue. `live` counts it.
pub(super) fn start(
    number: u32,
    queue: &Arc<WriterQueue>,
    live: &Arc<watch::Sender<usize>>,
) -> io::Result<()> {
    let (queue, live) = (Arc::clone(queue), Arc::clone(live));
    live.send_modify(|count| *count += 1);
    let begin = move || {
        // However the thread ends, those who wait for its end hear of it.
        let _running = Running { queue: Arc::clone(&queue), live };
        WriterThread { queue, timers: Timers::default() }.run();
    };
    thread::Builder::new().name(format!("quorumlog-writer-{number}")).spawn(begin).map(drop)
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
        for log in left {
            // The thread panicked, and this may too: the others are still to be told.
            let _ = panics::catch(|| log.abandon());
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
            ready.drain(..).for_each(|log| self.timers.drive(log, Instant::now(), usize::MAX));
            let now = Instant::now();
            let due = self.timers.due(now);
            due.into_iter().for_each(|log| self.timers.drive(log, now, usize::MAX));
        }
        self.timers.abandon();
    }
}

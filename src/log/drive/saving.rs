//! The queue of what blocks on a log's checkpoints. All logs of a node share one thread for it, and writers have others, so
//! appends do not wait for it. In a simulation it is a task.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, watch};

#[cfg(feature = "simulation")]
use super::writer_task::Pace;
use crate::panics;

/// What waits for the thread. Each log has one checkpoint at most to save, one to read, and one for each connection from a
/// leader, which bounds the queue.
enum Job {
    Run {
        #[cfg_attr(
            not(feature = "simulation"),
            expect(dead_code, reason = "its time is simulated")
        )]
        dir: PathBuf,
        work: Box<dyn FnOnce() + Send>,
    },
    Stop,
}

/// The way to the thread.
#[derive(Clone)]
pub(in crate::log) struct SavingQueue(mpsc::UnboundedSender<Job>);

impl SavingQueue {
    /// Starts the thread; `live` counts it.
    pub(super) fn start(live: &Arc<watch::Sender<usize>>) -> io::Result<Self> {
        let (sender, mut jobs) = mpsc::unbounded_channel();
        let live = Arc::clone(live);
        live.send_modify(|count| *count += 1);
        let drain = move || {
            // What was queued before a stop is done, and nothing is taken after it.
            while let Some(Job::Run { work, .. }) = jobs.blocking_recv() {
                // If it panics, the caller that waits for it learns that it was not done.
                drop(panics::catch(work));
            }
            drop(jobs);
            live.send_modify(|count| *count -= 1);
        };
        thread::Builder::new().name("quorumlog-checkpoints".to_owned()).spawn(drain)?;
        Ok(Self(sender))
    }

    /// Starts a task instead of the thread. The task waits for `pace` before each job.
    #[cfg(feature = "simulation")]
    pub(super) fn start_task(live: &Arc<watch::Sender<usize>>, pace: &Pace) -> Self {
        let (sender, mut jobs) = mpsc::unbounded_channel();
        let (live, pace) = (Arc::clone(live), Arc::clone(pace));
        live.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            while let Some(Job::Run { dir, work }) = jobs.recv().await {
                pace(&dir).await;
                work();
            }
            drop(jobs);
            live.send_modify(|count| *count -= 1);
        });
        Self(sender)
    }

    /// Has something done about the checkpoints of the log in `dir`. Drops it if the thread has ended.
    pub(in crate::log) fn push(&self, dir: PathBuf, work: impl FnOnce() + Send + 'static) {
        // An error means that it has ended.
        let _ = self.0.send(Job::Run { dir, work: Box::new(work) });
    }

    /// Lets the thread end once it has done what is queued.
    pub(super) fn stop(&self) {
        // An error means that it has ended.
        let _ = self.0.send(Job::Stop);
    }
}

//! The runtime that openraft's tasks run on: tokio's, and a panic in a task stops the task's group.
//!
//! openraft drops the handles of most of its tasks. If one panics, its group goes on and looks well: a core that is gone
//! keeps showing its last state, and a follower whose replication task is gone gets nothing any more.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::TokioRuntime;
use openraft::async_runtime::AsyncRuntime;

use crate::mutant::Mutant;
use crate::panics;

tokio::task_local! {
    /// The group that a task works for. The tasks that it starts inherit it.
    static GROUP: Arc<Crash>;
}

#[derive(Debug)]
struct Reason {
    text: String,
    /// A restart would hit the same again.
    lasting: bool,
}

/// Whether a group has crashed, and why.
#[derive(Debug, Default)]
pub(crate) struct Crash {
    reason: OnceLock<Reason>,
    noted: tokio::sync::Notify,
}

impl Crash {
    /// A task of the group panicked. The first reason stays: what fails after it follows from it.
    fn task_panicked(&self, panic: &str) {
        self.note(Reason { text: format!("consensus panicked: {panic}"), lasting: false });
    }

    /// The group has stopped, and would again after a restart: its state machine gets the same records, a leader
    /// contradicts it again. Whether a restart helps against a failed disk, the log knows.
    pub(super) fn stopped_for_good(&self, text: String) {
        self.note(Reason { text, lasting: true });
    }

    fn note(&self, reason: Reason) {
        // Fails if there is a reason already.
        let _ = self.reason.set(reason);
        self.noted.notify_waiters();
    }

    /// Why the group has crashed, if it has.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(|reason| reason.text.as_str())
    }

    /// True if the group has crashed and would again after a restart.
    pub(super) fn is_lasting(&self) -> bool {
        self.reason.get().is_some_and(|reason| reason.lasting)
    }

    /// Waits for the crash.
    pub(super) async fn noted(&self) {
        let mut noted = std::pin::pin!(self.noted.notified());
        // Registered before the look, or a crash in between would be missed.
        noted.as_mut().enable();
        if self.reason().is_none() {
            noted.await;
        }
    }
}

/// Starts openraft's tasks for a group: `start`, and the tasks that it starts.
pub(super) fn start_for(group: &Arc<Crash>, start: impl FnOnce()) {
    GROUP.sync_scope(Arc::clone(group), start);
}

/// A task of a group. A panic in it is noted before the task is dropped, since others see it go.
struct Watched<F> {
    task: Pin<Box<F>>,
    group: Arc<Crash>,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.task.as_mut().poll(cx)));
        polled.unwrap_or_else(|payload| {
            if !Mutant::CrashNotNoticed.is_active() {
                self.group.task_panicked(&panics::caught(&*payload));
            }
            resume_unwind(payload)
        })
    }
}

/// tokio's runtime. See the module.
#[derive(Debug)]
pub(crate) struct WatchedRuntime(TokioRuntime);

type Tokio = TokioRuntime;

impl AsyncRuntime for WatchedRuntime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: openraft::OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + openraft::OptionalSend> =
        <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Tokio as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: openraft::OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + openraft::OptionalSend + 'static,
        T::Output: openraft::OptionalSend + 'static,
    {
        match GROUP.try_with(Arc::clone) {
            Ok(group) => {
                let task = Watched { task: Box::pin(future), group: Arc::clone(&group) };
                Tokio::spawn(GROUP.scope(group, task))
            }
            // Of no group: a caller of openraft's that is a task of ours.
            Err(_) => Tokio::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + openraft::OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + openraft::OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Tokio::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Tokio::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

//! A log, its writer, and the queue in between.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::StorageError;
use crate::mutant::Mutant;
use crate::panics;
use crate::record::Flush;

use super::queue::{Drive, WriterQueue, writer_panicked};
use crate::log::memory::job::Job;
use crate::log::memory::shared::Shared;
use crate::log::memory::state::State;
use crate::log::writer::LogWriter;

/// A write into the page cache that takes longer was held up by the system, which has too much to write itself.
const AT_ONCE_MAX: Duration = Duration::from_millis(2);
/// How long such writes are then left to the writer's thread.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// What a handle points to.
pub(in crate::log) struct Core {
    pub(in crate::log) shared: Shared,
    /// Locked by whoever drives the writer: one thread at a time. None once the log is closed.
    writer: Mutex<Driven>,
    queue: Arc<WriterQueue>,
}

struct Driven {
    writer: Option<LogWriter>,
    /// Swapped with the inbox, so that neither is allocated again.
    jobs: Vec<Job>,
    /// When the thread drives the writer next, even if nothing is submitted.
    due: Option<Instant>,
    /// Until when nobody else writes.
    left_until: Option<Instant>,
}

/// The result of a job that was submitted.
pub(in crate::log) type Waiter = oneshot::Receiver<Result<(), Arc<StorageError>>>;

impl Core {
    pub(in crate::log) fn new(shared: Shared, writer: LogWriter, queue: Arc<WriterQueue>) -> Self {
        let driven = Driven { writer: Some(writer), jobs: Vec::new(), due: None, left_until: None };
        Self { shared, writer: Mutex::new(driven), queue }
    }

    /// Queues a job. `state` is the lock under which the job's effect on memory was made, so that
    /// the writer sees jobs in the order of their effects.
    pub(in crate::log) fn submit(self: &Arc<Self>, mut state: MutexGuard<'_, State>, job: Job) {
        let first = Mutant::VoteOvertakesAppends.is_active() && job.saves_vote();
        let at = if first { 0 } else { state.inbox.len() };
        state.inbox.insert(at, job);
        self.schedule_once(state);
    }

    /// Has the writer driven, unless it will be.
    fn schedule_once(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let wake = !std::mem::replace(&mut state.scheduled, true);
        drop(state);
        if wake {
            self.schedule();
        }
    }

    /// Has the writer driven soon.
    pub(in crate::log) fn schedule(self: &Arc<Self>) {
        if !self.queue.push(Arc::clone(self) as Arc<dyn Drive>) {
            // No writer thread is left: nothing can be in order any more but failing.
            self.abandon();
        }
    }

    /// True if whoever submits `job` may try to write it: it waits for no flush, and no other job waits for the writer.
    pub(in crate::log) fn may_write_at_once(&self, state: &State, job: &Job) -> bool {
        self.shared.options().flush == Flush::Async
            && (Mutant::AppendOvertakesWriter.is_active()
                || !state.scheduled && state.inbox.is_empty())
            && job.is_small_async_append()
    }

    /// Writes the append in the inbox into the page cache on the caller's thread, which saves two wake-ups; leaves it
    /// to the writer's thread where that is at work, or where there is more to do than to write.
    pub(in crate::log) fn write_at_once(self: &Arc<Self>) {
        // A writer that panicked is for its thread, which poisons it.
        let driven = self.writer.try_lock().ok();
        let wrote = driven.is_some_and(|mut driven| self.try_write(&mut driven));
        if !wrote {
            self.schedule_once(self.shared.state());
        }
    }

    /// False if the writer's thread must be told.
    fn try_write(&self, driven: &mut Driven) -> bool {
        let Driven { writer: Some(writer), jobs, due, left_until } = driven else { return false };
        let now = self.queue.now();
        if left_until.is_some_and(|until| now < until) {
            return false;
        }
        {
            let mut state = self.shared.state();
            if Mutant::AppendOvertakesWriter.is_active()
                && let Some(job) = state.inbox.pop_if(|job| writer.writes_at_once(job))
            {
                jobs.push(job);
                drop(state);
                writer.write_at_once(&self.shared, jobs, now);
                return false;
            }
            let [job] = state.inbox.as_slice() else { return state.inbox.is_empty() };
            if state.scheduled || !writer.writes_at_once(job) {
                return state.scheduled;
            }
            std::mem::swap(&mut state.inbox, jobs);
        }
        let written = panics::catch(|| writer.write_at_once(&self.shared, jobs, now));
        let ended = self.queue.now();
        *left_until = (ended.duration_since(now) > AT_ONCE_MAX).then(|| ended + LEFT_ALONE);
        match written {
            Ok(_) if Mutant::BackgroundFlushForgotten.is_active() => true,
            Ok(next) => next.is_none_or(|next| due.is_some_and(|due| due <= next)),
            Err(panic) => {
                writer.poison(&self.shared, writer_panicked(self.shared.dir(), &panic));
                false
            }
        }
    }

    fn run(&self, driven: &mut Driven, now: Instant) -> Option<Instant> {
        let Driven { writer: Some(writer), jobs, .. } = driven else {
            self.fail_jobs(&mut driven.jobs);
            return None;
        };
        let ran = writer.run(&self.shared, jobs, now);
        if ran.closed {
            self.shared.let_go();
            driven.writer = None;
        }
        ran.next
    }

    /// True if there are more jobs than `jobs_max`: the log then stays scheduled.
    fn take_inbox(&self, driven: &mut Driven, jobs_max: usize) -> bool {
        let mut state = self.shared.state();
        if state.inbox.len() > jobs_max {
            driven.jobs.extend(state.inbox.drain(..jobs_max));
            return true;
        }
        std::mem::swap(&mut state.inbox, &mut driven.jobs);
        state.scheduled = false;
        false
    }

    fn fail_jobs(&self, jobs: &mut Vec<Job>) {
        if !jobs.is_empty() {
            let error = Arc::new(self.shared.closed_error());
            jobs.drain(..).for_each(|job| job.fail(&error));
        }
    }
}

impl Drive for Core {
    fn dir(&self) -> &Path {
        self.shared.dir()
    }

    fn drive(self: Arc<Self>, now: Instant, jobs_max: usize) -> Option<Instant> {
        self.shared.woken();
        let mut driven = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.take_inbox(&mut driven, jobs_max);
        let next = self.run(&mut driven, now);
        driven.due = next;
        drop(driven);
        if left {
            self.schedule();
        }
        next
    }

    fn poison(&self, error: StorageError) {
        let mut driven = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = &mut driven.writer {
            writer.poison(&self.shared, error);
        }
    }

    fn abandon(&self) {
        let mut driven = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_inbox(&mut driven, usize::MAX);
        if let Some(mut writer) = driven.writer.take() {
            writer.finish(&self.shared);
            self.shared.let_go();
        }
        self.fail_jobs(&mut driven.jobs);
    }
}

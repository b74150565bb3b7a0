//! Work that comes up for many logs in rounds: one piece at a time for each log, so many logs at once, and nobody waits for
//! the slowest.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use crate::record::LogId;

/// Logs that are worked on at once.
const AT_ONCE: usize = 64;

/// What is under way. Dropped, all of it ends.
#[derive(Debug, Default)]
pub(super) struct PerLog {
    busy: BTreeSet<LogId>,
    tasks: JoinSet<LogId>,
    /// The last log that work was begun on: the next round begins behind it.
    last: Option<LogId>,
}

impl PerLog {
    /// A round: begins `work` on each of these logs that is not still busy with that of an earlier round. Without a place
    /// for all, the rest come first in the next round. What is done at once costs no task.
    ///
    /// # Panics
    /// If work of an earlier round has.
    pub(super) fn round<T, F>(&mut self, mut logs: Vec<(LogId, T)>, work: impl Fn(T) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.note_ended();
        logs.sort_unstable_by_key(|(id, _)| *id);
        let first = logs.partition_point(|(id, _)| Some(*id) <= self.last);
        logs.rotate_left(first);
        for (id, log) in logs {
            if self.busy.len() >= AT_ONCE {
                return;
            }
            if self.busy.contains(&id) {
                continue;
            }
            self.last = Some(id);
            let mut work = Box::pin(work(log));
            if work.as_mut().now_or_never().is_none() {
                self.busy.insert(id);
                self.tasks.spawn(work.map(move |()| id));
            }
        }
    }

    fn note_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(id) => drop(self.busy.remove(&id)),
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(Err(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn logs(ids: std::ops::Range<u64>) -> Vec<(LogId, u64)> {
        ids.map(|id| (LogId(id), id)).collect()
    }

    async fn all_ended(per_log: &mut PerLog) {
        while !per_log.busy.is_empty() {
            tokio::task::yield_now().await;
            per_log.note_ended();
        }
    }

    #[tokio::test]
    async fn a_log_that_is_slow_delays_no_other_and_is_not_begun_twice() {
        let mut per_log = PerLog::default();
        let (begun, slow) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        for _ in 0..3 {
            per_log.round(logs(0..4), |id| {
                let (begun, slow) = (Arc::clone(&begun), Arc::clone(&slow));
                async move {
                    begun.add_permits(1);
                    if id == 0 {
                        slow.acquire().await.expect("it is open").forget();
                    }
                }
            });
        }
        assert_eq!(begun.available_permits(), 1 + 3 * 3);
        slow.add_permits(1);
        all_ended(&mut per_log).await;
        per_log.round(logs(0..1), |_| std::future::pending());
        assert_eq!(per_log.busy.len(), 1, "it is begun again once it has ended");
    }

    #[tokio::test]
    async fn so_many_are_worked_on_at_once_and_the_rest_come_next() {
        let mut per_log = PerLog::default();
        let done = Arc::new(Semaphore::new(0));
        let work = |_| {
            let done = Arc::clone(&done);
            async move { done.acquire().await.expect("it is open").forget() }
        };
        per_log.round(logs(0..100), work);
        assert_eq!(per_log.busy, (0..64).map(LogId).collect());
        done.add_permits(64);
        all_ended(&mut per_log).await;
        per_log.round(logs(0..100), work);
        assert_eq!(per_log.busy, (0..28).chain(64..100).map(LogId).collect());
    }

    #[tokio::test]
    #[should_panic(expected = "a bug")]
    async fn a_panic_is_passed_on() {
        let mut per_log = PerLog::default();
        per_log.round(logs(0..1), |_| async {
            tokio::task::yield_now().await;
            panic!("a bug");
        });
        all_ended(&mut per_log).await;
    }
}

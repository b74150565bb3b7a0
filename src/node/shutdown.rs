//! Stopping a node without losing or blocking anything.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::inner::NodeInner;
use crate::error::{StorageError, with_sources};
use crate::mutant::Mutant;
use crate::raft::Group;

/// How long leadership may take to be handed over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long appends in flight may take to be committed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl NodeInner {
    /// Hands leadership over, drains, flushes and stops. Safe to call more than once.
    pub(super) async fn shut_down(&self) -> Result<(), Arc<StorageError>> {
        // Who comes second waits for the first, and finds nothing left to do.
        let _alone = self.shutting_down.lock().await;
        let groups = self.groups();
        for group in &groups {
            group.refuse_appends();
        }
        futures_util::future::join_all(groups.iter().map(|group| drain(group))).await;
        self.stopping.send_replace(true);
        self.peers.close();
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, ended).await.is_err() {
            tasks.shutdown().await;
        }
        // The list of logs was followed until now, and may have opened another.
        let groups = self.groups();
        if Mutant::RunEndedEarly.is_active() {
            // What fails here fails below.
            let _ = self.dir.end_run();
        }
        let stopped = futures_util::future::join_all(groups.iter().map(|group| group.stop())).await;
        self.writers.shutdown().await;
        self.save_log_clock();
        self.groups.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.end_places();
        let stopped: Result<(), _> = stopped.into_iter().collect();
        if stopped.is_ok()
            && let Err(error) = self.dir.end_run()
        {
            tracing::warn!(error = %with_sources(&error), "cannot record the clean shutdown");
        }
        self.dir.unlock();
        stopped
    }
}

/// Waits for what is in flight, then hands leadership to the best successor.
async fn drain(group: &Group) {
    if group.is_leader() {
        // Without a majority it never drains; those who wait are told `Interrupted`.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, group.inflight.drained()).await;
    }
    if let Some(to) = group.successors().into_iter().next()
        && let Err(error) = group.transfer_leadership(to, HANDOVER_TIMEOUT).await
    {
        tracing::info!(log = %group.name, to, %error, "leadership was not handed over");
    }
}

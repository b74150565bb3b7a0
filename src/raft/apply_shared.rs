//! How far the entries of a log are applied, for the rest of the node; and where it wants the next boundary.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::format::entry::EntryId;

/// What the rest of the node sees and sets.
#[derive(Debug, Default)]
pub(crate) struct ApplyShared {
    /// One past the last applied index.
    applied_end: AtomicU64,
    /// One past the last index that a leader has told to be committed, whether this node has it or not.
    told_end: AtomicU64,
    /// Told after each run; for those who wait for `applied_end`.
    moved: tokio::sync::Notify,
    /// Where the next snapshot is to lie: the new boundary that retention chose.
    target: Mutex<Option<EntryId>>,
    /// True while the embedder's state machine may be called.
    in_use: tokio::sync::watch::Sender<bool>,
}

/// Tells when the embedder's state machine is gone.
pub(super) struct InUse(Arc<ApplyShared>);

impl InUse {
    pub(super) fn new(shared: &Arc<ApplyShared>) -> Self {
        shared.in_use.send_replace(true);
        Self(Arc::clone(shared))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.send_replace(false);
    }
}

impl ApplyShared {
    pub(crate) fn applied_end(&self) -> u64 {
        self.applied_end.load(Ordering::Acquire)
    }

    pub(crate) fn told_end(&self) -> u64 {
        self.told_end.load(Ordering::Acquire)
    }

    /// Notes what a leader has told to be committed.
    pub(super) fn note_told(&self, committed: Option<EntryId>) {
        let end = committed.map_or(0, |id| id.index + 1);
        self.told_end.fetch_max(end, Ordering::AcqRel);
    }

    pub(super) fn set_applied(&self, id: EntryId) {
        self.applied_end.store(id.index + 1, Ordering::Release);
        self.moved.notify_waiters();
    }

    pub(crate) fn set_target(&self, id: EntryId) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    pub(super) fn target(&self) -> Option<EntryId> {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody calls the embedder's state machine any more.
    pub(crate) async fn let_go(&self) {
        // An error means that it is gone as well.
        let _ = self.in_use.subscribe().wait_for(|in_use| !in_use).await;
    }

    /// Waits until everything below `end` is applied.
    pub(crate) async fn applied_below(&self, end: u64) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // Registered before the look, or a change in between would be missed.
            moved.as_mut().enable();
            if self.applied_end() >= end {
                return;
            }
            moved.await;
        }
    }
}

//! Taking a log back to what a majority has flushed, on a node that holds what the cluster has lost.
//!
//! When so many nodes lost their page caches at once that a leader was elected without some of the acknowledged records,
//! a node that was not among them may show those still. Once it hears of that leader, the log's group is closed here
//! and opened again: what is stable counts as committed, the state machine is made again and restored from a checkpoint at
//! or below that, and the rest comes from the leader. A crash on the way leaves a log that is contradicted again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::inner::NodeInner;
use crate::error::with_sources;
use crate::mutant::Mutant;
use crate::panics;
use crate::raft::{Conflict, Group};

/// Pause before a log that could not be opened again is tried once more.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

impl NodeInner {
    /// Begins to open the log of `group` again as of what is stable, and takes the group out at once: whatever asks for
    /// it from now on has to ask again.
    pub(super) fn begin_rewind(self: Arc<Self>, group: Arc<Group>, conflict: &Conflict) {
        if self.is_stopping() || !self.take_out(&group) {
            return;
        }
        let to = conflict.stable + u64::from(Mutant::RewoundTooLittle.is_active());
        group.rewinds_to(to);
        let lost = (conflict.committed.index + 1).saturating_sub(to);
        group.losses.rewound(lost);
        tracing::error!(
            log = %group.name, to, lost, %conflict,
            "the cluster has lost records that this node holds: the log goes back to what a majority had flushed, \
             and at most so many of its records may be lost"
        );
        self.groups_changed.send_modify(|count| *count += 1);
        let node = Arc::clone(&self);
        self.spawn(async move {
            if let Err(panic) = panics::catching(Box::pin(Arc::clone(&node).rewind(group))).await {
                node.panics.note("rewind", &panic, true);
            }
        });
    }

    /// False if the log has another group, or is being opened again already.
    fn take_out(&self, group: &Arc<Group>) -> bool {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let is_in_force = groups.get(&group.id).is_some_and(|held| Arc::ptr_eq(held, group));
        if is_in_force {
            groups.remove(&group.id);
        }
        is_in_force
    }

    async fn rewind(self: Arc<Self>, old: Arc<Group>) {
        let (name, id) = (old.name.clone(), old.id);
        {
            let _alone = self.opening.lock().await;
            if old.stop().await.is_err() {
                // What the disk holds is not known. Its status says so, and a restart finds out.
                self.put_back(old);
                return;
            }
            old.apply.let_go().await;
            drop(old);
            if self.is_stopping() || !self.catalog.lists(id) {
                return;
            }
            let machine = self.machine(&name, id);
            match self.open_group(name.clone(), id, machine, None, true).await {
                Ok(group) => {
                    let end = group.log.watermarks().end;
                    tracing::info!(log = %name, end, "the log is open again, and follows the leader");
                    return;
                }
                Err(error) => self.note_not_open(&name, id, error),
            }
            if let Some(place) = self.place(id) {
                place.not_open();
            }
        }
        // Opened in the usual way it is contradicted again, and goes back then.
        while !self.is_stopping() && self.catalog.lists(id) && self.group(id).is_none() {
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = self.stopped() => return,
            }
            self.reconcile(&self.catalog.state()).await;
        }
    }

    fn put_back(&self, group: Arc<Group>) {
        let reason = group.log.failure().map(|failure| with_sources(&*failure));
        tracing::error!(log = %group.name, reason, "the log could not be closed, and does not go back");
        if let Some(place) = self.place(group.id) {
            place.end();
        }
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(group.id, group);
        self.groups_changed.send_modify(|count| *count += 1);
    }
}

#[cfg(any(test, feature = "simulation"))]
impl super::Node {
    /// As if a leader had another entry at a log's last index, of which what lies below `stable` is flushed on a majority:
    /// the log goes back. For tests.
    ///
    /// # Panics
    /// The log is not open on this node, or empty.
    pub fn contradict(&self, log: crate::record::LogId, stable: u64) {
        let group = self.inner.group(log).expect("it is open");
        let held = group.log.last_id().expect("it holds entries");
        let leaders = crate::format::entry::EntryId { term: held.term + 1, ..held };
        let conflict = Conflict { held, leaders, committed: held, stable };
        self.inner.clone().begin_rewind(group, &conflict);
    }
}

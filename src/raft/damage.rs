//! Damage that a reader finds in this node's copy of a log. Others hold the same record whole, so the node notes it and
//! does not lead any more (`unfit`). It goes on as a follower: what it writes now counts as before.
//!
//! What consensus itself reads is another matter: without it the group stops (`log_store`).

use std::sync::Arc;
use std::time::Duration;

use super::group::Group;
use crate::error::{StorageError, with_sources};
use crate::log::DamageFound;
use crate::mutant::Mutant;

/// Pause before a damaged node looks again whether others hold the record.
const PAUSE: Duration = Duration::from_millis(100);

impl Group {
    /// A reader got this error. If it tells of damage, the node notes it, durably, and gives up the lead.
    pub(crate) fn reader_failed(self: &Arc<Self>, error: &StorageError) {
        let Some(found) = DamageFound::of(error) else { return };
        if Mutant::DamagedLeaderStays.is_active() || !self.unfit.note_damage(with_sources(error)) {
            return;
        }
        tracing::error!(log = %self.name, error = with_sources(error), "this node's copy is damaged");
        tokio::spawn(Arc::clone(self).note_durably(found));
        self.leave_lead();
    }

    /// Notes what is damaged, once others may hold it whole.
    async fn note_durably(self: Arc<Self>, found: DamageFound) {
        while !self.has_others() {
            if self.is_closed() || self.log.failure().is_some() {
                return;
            }
            // paced: voters come late or never.
            tokio::time::sleep(PAUSE).await;
        }
        // Where the disk may block. None: the node is stopping, and damage is found again.
        let _ = self.saver.run(move |log| log.note_found(&found)).await;
    }
}

//! What is looked at once in a while: silent clients, trimmed messages, and logs that another node should lead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::log_broker::{LogBroker, Opened, Part};
use crate::member::Role;

const INTERVAL: Duration = Duration::from_millis(250);
/// A leader leads for so long before it hands over to the node that should, so that one that comes and goes does not
/// take the lead each time. One that has never led takes it at once: a new cluster's first clients find leaders that are spread.
const SETTLED: Duration = Duration::from_secs(2);
/// Pause after a part of the index could not be made again, as on a full disk.
const MEND_PAUSE: Duration = Duration::from_secs(10);
/// A node that is behind by more records does not take over.
const BEHIND_MAX: u64 = 1024;

impl LogBroker {
    /// Keeps house for as long as the broker lives. `number` is the log's among those of the cluster.
    pub(super) async fn keep_house(self: Arc<Self>, number: usize) {
        let mut leads_since = None;
        let mut begin = 0;
        let mut mend_at = Instant::now();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(opened) = self.opened.get() else { continue };
            self.clients.forget_silent();
            let held_from = opened.log.watermarks().begin;
            if held_from != begin {
                begin = held_from;
                opened.shared.prune(begin);
            }
            if Instant::now() >= mend_at && !self.mend_index().await {
                mend_at = Instant::now() + MEND_PAUSE;
            }
            if *self.part.borrow() != Part::Leads {
                leads_since = None;
                continue;
            }
            let since = *leads_since.get_or_insert_with(Instant::now);
            self.spread(opened, number, since.elapsed() >= SETTLED).await;
        }
    }

    /// Log n is led by the n-th voter, if that is there and has everything: so the logs' leaders are spread.
    async fn spread(&self, opened: &Opened, number: usize, settled: bool) {
        let status = opened.log.status();
        let mut voters: Vec<_> = status.members.iter().filter(|member| member.voter).collect();
        voters.sort_by_key(|member| member.member.id);
        let Some(wanted) = voters.get(number % voters.len().max(1)) else { return };
        let holds = wanted.matched.is_some_and(|matched| matched + BEHIND_MAX >= status.end);
        let is_new = opened.shared.state().address(wanted.member.id).is_none();
        if wanted.member.id == status.node_id || status.role != Role::Leader {
            return;
        }
        if !holds || !(settled || is_new) {
            return;
        }
        if let Err(error) = opened.log.admin().transfer_leadership(wanted.member.id).await {
            tracing::debug!(log = self.name, %error, "the lead was not handed over");
        }
    }
}

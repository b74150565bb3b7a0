//! What is looked at once in a while: silent clients, trimmed messages, and logs that another node should lead.

use std::sync::Arc;
use std::time::Duration;

use quorumlog::{MemberStatus, NodeId, Role, Status};
use tokio::time::Instant;

use crate::log::{LogBroker, Opened, Part, messages};

const INTERVAL: Duration = Duration::from_millis(250);
/// A leader leads for so long before it hands over to the node that should, so that one that comes and goes does not
/// take the lead each time. One that has never led takes it at once: a new cluster's first clients find leaders that are spread.
const SETTLED: Duration = Duration::from_secs(2);
/// A node that has just started does not wait for that: its cluster may have started with it, and clients are to find
/// leaders that are spread then, too.
const STARTING: Duration = Duration::from_secs(10);
/// Pause after a part of the index could not be made again, as on a full disk.
const REPAIR_PAUSE: Duration = Duration::from_secs(10);
/// A node that is behind by more records does not take over.
const BEHIND_MAX: u64 = 1024;

impl LogBroker {
    /// Keeps house for as long as the broker lives.
    pub(crate) async fn keep_house(self: Arc<Self>) {
        let number = self.replica.number as usize;
        let started = Instant::now();
        let mut parts = self.replica.part.subscribe();
        let mut leads_since = None;
        let mut begin = 0;
        let mut repair_at = Instant::now();
        loop {
            // At once where the lead changes.
            let _ = tokio::time::timeout(INTERVAL, parts.changed()).await;
            let starting = started.elapsed() < STARTING;
            self.note_settled(number, starting);
            self.replica.note_led();
            let Some(opened) = self.replica.opened.get() else { continue };
            self.topics.leaves();
            self.clients.forget_silent();
            if self.throughput.is_due(Instant::now()) {
                let put = messages(&opened.shared).await;
                self.throughput.note(Instant::now(), put);
            }
            let held_from = opened.log.watermarks().begin;
            if held_from != begin {
                begin = held_from;
                opened.shared.prune_once(begin);
            }
            if Instant::now() >= repair_at && !self.replica.repair_index().await {
                repair_at = Instant::now() + REPAIR_PAUSE;
            }
            if *self.replica.part.borrow() != Part::Leads {
                leads_since = None;
                continue;
            }
            let since = *leads_since.get_or_insert_with(Instant::now);
            self.spread(opened, number, starting || since.elapsed() >= SETTLED).await;
        }
    }

    /// Notes once the log is led by the node that it is to be led by, or this one has waited for that long enough.
    fn note_settled(&self, number: usize, starting: bool) {
        let led_as_wanted = || {
            let log = &self.replica.opened.get()?.log;
            let status = log.status();
            let leader = status.leader.as_ref()?;
            // A node that was just started names the last leader that it knew.
            let is_there = status.role == Role::Leader || log.hears_leader();
            (is_there && leader.id == wanted(&status, number)?.member.id).then_some(())
        };
        let settled = *self.replica.part.borrow() != Part::Unknown && led_as_wanted().is_some();
        if settled || !starting {
            self.replica.settled.send_if_modified(|held| !std::mem::replace(held, true));
        }
    }

    /// Log n is led by the n-th voter, if that is there and has everything: so the logs' leaders are spread. One whose
    /// disk is full, or whose copy is damaged, leads only where all are.
    async fn spread(&self, opened: &Opened, number: usize, settled: bool) {
        let status = opened.log.status();
        let has_space = |node| opened.log.has_ample_space(node) && !opened.log.is_unfit(node);
        let is_full = !has_space(status.node_id);
        let Some(wanted) = wanted_with_space(&status, number, has_space) else { return };
        let holds = wanted.matched.is_some_and(|matched| matched + BEHIND_MAX >= status.end);
        let is_new = opened.shared.state().address(wanted.member.id).is_none();
        if wanted.member.id == status.node_id || status.role != Role::Leader {
            return;
        }
        if !holds || !(settled || is_new || is_full) {
            return;
        }
        if let Err(error) = opened.log.admin().transfer_leadership(wanted.member.id).await {
            tracing::debug!(log = self.replica.name, %error, "the lead was not handed over");
        }
    }
}

/// The voter that should lead log `number`.
fn wanted(status: &Status, number: usize) -> Option<&MemberStatus> {
    in_turn(status, number).first().copied()
}

/// The same where disks may be full: the leader itself goes before others that stand in for the one that is wanted.
fn wanted_with_space(
    status: &Status,
    number: usize,
    has_space: impl Fn(NodeId) -> bool,
) -> Option<&MemberStatus> {
    let voters = in_turn(status, number);
    let wanted = voters.first().copied()?;
    let with_space: Vec<_> =
        voters.into_iter().filter(|voter| has_space(voter.member.id)).collect();
    let find = |node| with_space.iter().find(|voter| voter.member.id == node);
    let stands_in = || find(status.node_id).or(with_space.first());
    Some(find(wanted.member.id).or_else(stands_in).map_or(wanted, |voter| *voter))
}

/// The voters; first the one that should lead log `number`.
fn in_turn(status: &Status, number: usize) -> Vec<&MemberStatus> {
    let mut voters: Vec<_> = status.members.iter().filter(|member| member.voter).collect();
    voters.sort_by_key(|member| member.member.id);
    let first = number % voters.len().max(1);
    voters.rotate_left(first);
    voters
}

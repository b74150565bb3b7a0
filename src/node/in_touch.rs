//! Keeping in touch with the other members: the node dials each, so that it knows which it reaches and where, and acts
//! on that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::inner::{NodeInner, Retired};
use super::per_log::PerLog;
use crate::error::with_sources;
use crate::member::Replica;
use crate::problem::{Problem, ProblemKind};
use crate::raft::messages::Reached;
use crate::raft::{Cause, Group, Lane, messages, tells_removal};
use crate::record::LogId;

/// How often the node checks on the members.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a member may take to say whether it reaches this node.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds in a row in which too few members reach a leader, before it hands over.
const ROUNDS: u32 = 3;
/// How long a leader that is not reached may take to hand over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until the node stops.
pub(super) async fn keep_in_touch(node: Arc<NodeInner>) {
    let mut stopping = node.stopping.subscribe();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let looking = async {
        let mut not_reached = 0;
        let mut led = PerLog::default();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = node.peers.standing.news.notified() => {}
            }
            if let Some(reason) = node.peers.standing.is_outdated() {
                node.leave_out(reason);
            }
            node.look_after_members();
            node.peers.let_in_found().await;
            if let Some(reason) = node.peers.standing.superseded() {
                node.retire(Retired::Replaced(reason));
            }
            let proven = node.ask_whether_reached(&mut not_reached).await;
            let own = proven.then(|| node.member.clone());
            let leaves = not_reached >= ROUNDS;
            let groups = node.groups().into_iter().filter(|group| group.is_leader());
            led.round(groups.map(|group| (group.id, group)).collect(), |group| {
                let (own, member) = (own.clone(), node.member.clone());
                async move {
                    if leaves {
                        return hand_over(&group).await;
                    }
                    group.write_own_place(&member).await;
                    group.write_moves(own.as_ref()).await;
                }
            });
        }
    };
    tokio::select! {
        () = looking => {}
        // An error means that the node is gone, which is the same.
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// Hands a log's lead to the best successor.
async fn hand_over(group: &Group) {
    let Some(to) = group.successors().into_iter().next() else { return };
    match group.transfer_leadership(to, HAND_OVER_TIMEOUT).await {
        Ok(()) => {
            tracing::warn!(log = %group.name, to, "handed the lead over: the members do not reach this node")
        }
        Err(error) => {
            tracing::debug!(log = %group.name, to, %error, "the lead was not handed over")
        }
    }
}

impl NodeInner {
    /// The other members of any log: one that leaves the cluster goes from log to log, and may lead some until then.
    pub(super) fn other_members(&self) -> Vec<Replica> {
        let mut members = BTreeMap::new();
        for member in self.groups().iter().flat_map(|group| group.replicas()) {
            if member.id.node != self.config.node_id {
                members.entry(member.id).or_insert(member);
            }
        }
        members.into_values().collect()
    }

    /// Dials members that are not connected, warns of those that it cannot reach, and forgets those that were removed.
    fn look_after_members(&self) {
        let replicas = self.system().map(|system| system.replicas()).unwrap_or_default();
        if replicas.iter().any(|member| member.id == self.identity.replica()) {
            self.peers.standing.is_member();
        }
        let members = self.other_members();
        for member in &members {
            self.peers.poke(member.id, &member.member.peer_addr);
        }
        self.peers.keep(&members.iter().map(|member| member.id).collect());
        self.peers.contacts.warn();
    }

    /// Asks the members whether they reach this node, and where others are. True if those that do reach it at the address that it
    /// tells.
    /// `rounds` counts how often too few did: a leader that nobody can ask is of no use to them.
    async fn ask_whether_reached(&self, rounds: &mut u32) -> bool {
        let Some(system) = self.system() else { return false };
        let voters = system.voters();
        let members = self.other_members().into_iter();
        let members = members.filter(|member| self.peers.contacts.session(member.id).is_some());
        let generation = self.dir.generation();
        let asking = members.map(async |member| {
            let frame = messages::frame(messages::REACHED, LogId::SYSTEM, &generation);
            let link = self.peers.link(member.id, &member.member.peer_addr, Lane::Control);
            let answer = link.request(frame, ASK_TIMEOUT).await.ok()?;
            let Reached { at, failing, others, newest } = messages::accepted(&answer).ok()?;
            if let Some(reason) = failing.as_deref().filter(|reason| tells_removal(reason)) {
                self.peers.standing.removed(reason);
                return None;
            }
            // Two that have moved may know each other through the third only.
            self.peers.contacts.hint(others);
            self.peers.hear_newest(self.identity.replica(), newest);
            voters.contains(&member.id).then_some((at, failing))
        });
        let answers = futures_util::future::join_all(asking).await;
        let places: BTreeSet<&str> =
            answers.iter().flatten().filter_map(|(at, _)| at.as_deref()).collect();
        let proven = places == BTreeSet::from([self.member.peer_addr.as_str()]);
        let reasons: BTreeSet<&String> =
            answers.iter().flatten().filter_map(|(_, reason)| reason.as_ref()).collect();
        let unable = answers.iter().flatten().filter(|(_, reason)| reason.is_some()).count();
        let enough = unable == 0 || voters.len().saturating_sub(unable) > voters.len() / 2;
        *rounds = if enough { 0 } else { rounds.saturating_add(1) };
        if *rounds >= ROUNDS {
            let reasons: Vec<&str> = reasons.into_iter().map(String::as_str).collect();
            let reason = format!(
                "{unable} of {} voters cannot reach this node, which tells them {}: {}; check its `advertise` and the \
                 way there. It leads no log until they can",
                voters.len(),
                self.member.peer_addr,
                reasons.join("; ")
            );
            self.peers.standing.not_reached(Some(&reason));
        } else if enough {
            self.peers.standing.not_reached(None);
        }
        proven
    }

    /// Stops all logs for good.
    fn retire(&self, retired: Retired) {
        if self.retired.borrow().is_none() {
            let reason = retired.reason().to_owned();
            tracing::error!(
                reason,
                "this process takes no part in the cluster; its logs are stopped"
            );
            // In this order: a group that is opened meanwhile is stopped by one of the two.
            self.retired.send_replace(Some(retired));
            self.groups().iter().for_each(|group| group.retire(&reason));
        }
    }

    /// Stops all logs for good: another member has heard of newer data of this node.
    fn leave_out(&self, reason: String) {
        self.retire(Retired::Outdated(reason));
        if !self.dir.is_outdated()
            && let Err(error) = self.dir.set_outdated()
        {
            let error = with_sources(&error);
            tracing::warn!(error, "cannot note that this node's data is older than it was");
        }
    }

    /// Problems of the other members, as far as they concern this node.
    pub(super) fn peer_problems(&self) -> Vec<Problem> {
        let members: BTreeSet<_> =
            self.other_members().into_iter().map(|member| member.id).collect();
        let mut problems = Vec::new();
        for (replica, failing, twin) in self.peers.contacts.troubled() {
            if !members.contains(&replica) {
                continue;
            }
            let about = |kind, reason: &str, since: tokio::time::Instant| Problem {
                peer: Some(replica.node),
                for_ms: super::supervise::millis(since.elapsed()),
                ..Problem::new(kind, reason)
            };
            // Of a member that refuses this process, the node itself says so.
            let failing = failing.filter(|failing| failing.cause != Cause::RefusesThis);
            if let Some(failing) = failing {
                let kind = match failing.cause {
                    Cause::LostData => ProblemKind::PeerLostData,
                    Cause::OtherVersion => ProblemKind::OtherVersion,
                    Cause::Unreachable | Cause::RefusesThis => ProblemKind::PeerUnreachable,
                };
                problems.push(about(kind, &failing.reason, failing.since));
            }
            if let Some(twin) = twin {
                problems.push(about(ProblemKind::PeerDuplicate, &twin.reason, twin.since));
            }
        }
        problems
    }

    /// Why the leader of a log cannot be asked, for a caller that waited for it.
    pub(super) fn why_no_leader(&self, log: LogId) -> Option<String> {
        let group = self.group(log)?;
        if let Some(missing) = group.missing_voters().filter(|_| !group.is_leader()) {
            return Some(missing);
        }
        let leader = group.leading().filter(|leader| leader.id != group.replica)?;
        let failing = self.peers.contacts.failing(leader.id)?;
        Some(format!("node {} leads {}: {}", leader.id.node, group.name, failing.reason))
    }
}

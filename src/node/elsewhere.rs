//! Who leads the logs whose copy on this node has stopped, or all if the node was removed from the cluster. Such a copy
//! hears no leader, so the node asks the other members, and sends its clients where they say. It also asks of logs whose
//! copy hears its leader and lags (`lagging.rs`): that does not know where the leader serves clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::forward::{AdminReply, AdminRequest};
use super::inner::NodeInner;
use super::lagging::Lags;
use crate::member::{Member, NodeId, Role, Status};
use crate::mutant::Mutant;
use crate::raft::Group;
use crate::record::LogId;

/// How often the other members are asked.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a member may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Logs in one request.
const LOGS_MAX: usize = 1024;

/// Who leads a log, as one node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Led {
    term: u64,
    #[serde(with = "crate::member::as_form")]
    leader: Member,
    /// Where the leader's broker serves the log, if it is known.
    broker: Option<SocketAddr>,
}

/// What one node knows of the logs that it is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Leaders {
    logs: Vec<(LogId, Led)>,
    /// Its name server, if all its copies run and none lags.
    name_server: Option<SocketAddr>,
}

/// What the other members say of the logs whose copy here has stopped, or lags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedElsewhere {
    logs: BTreeMap<LogId, Led>,
    /// Those of them whose copy here runs, and lags.
    lagging: BTreeSet<LogId>,
    name_servers: Vec<SocketAddr>,
    /// Why this node has no part in the cluster any more, if it was removed.
    removed: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// Some copy has stopped. Each append asks for this first.
    any: AtomicBool,
    found: watch::Sender<LedElsewhere>,
    /// Which node leads a log, and where its broker serves it, as this node's broker knows.
    /// None for a log that it serves, and whose leader's address it does not know.
    brokers: Mutex<BTreeMap<LogId, Option<(NodeId, SocketAddr)>>>,
    name_server: OnceLock<SocketAddr>,
}

impl LedElsewhere {
    /// Keeps the newest leader of each log. This node leads none of them, whatever others have not noticed yet.
    fn learn(&mut self, said: Leaders, asked: &[LogId], own: NodeId) {
        for (log, led) in said.logs {
            let newer = |known: &Led| {
                (led.term, led.broker.is_some()) > (known.term, known.broker.is_some())
            };
            let believed = asked.contains(&log) && led.leader.id != own;
            if believed && self.logs.get(&log).is_none_or(newer) {
                self.logs.insert(log, led);
            }
        }
        self.name_servers.extend(said.name_server);
    }

    /// Where the leader's broker serves a log.
    pub fn service(&self, log: LogId) -> Option<SocketAddr> {
        self.logs.get(&log)?.broker
    }

    /// The same by a leader of `term` at least: this node knows of that term.
    pub fn service_since(&self, log: LogId, term: u64) -> Option<SocketAddr> {
        self.logs.get(&log).filter(|led| led.term >= term)?.broker
    }

    /// True if a leader of a later term than `term` is known: who led then does not any more.
    pub fn is_led_after(&self, log: LogId, term: u64) -> bool {
        self.logs.get(&log).is_some_and(|led| led.term > term)
    }

    /// Why this node has no part in the cluster any more, if it was removed: what it knows is out of date.
    pub fn removed(&self) -> Option<&str> {
        self.removed.as_deref()
    }

    /// Name servers of nodes on which no log has stopped or lags.
    pub fn name_servers(&self) -> &[SocketAddr] {
        &self.name_servers
    }
}

impl Elsewhere {
    /// The leader of a log whose copy here has stopped, if another member knows it.
    pub(super) fn leader(&self, log: LogId) -> Option<Member> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let found = self.found.borrow();
        let led = found.logs.get(&log).filter(|_| !found.lagging.contains(&log));
        led.map(|led| led.leader.clone())
    }

    /// Completes the status of a copy that has stopped.
    pub(super) fn complete(&self, mut status: Status) -> Status {
        let found = self.found.borrow();
        if status.role == Role::Stopped
            && let Some(led) = found.logs.get(&LogId(status.log_id))
        {
            status.leader = Some(led.leader.clone());
            status.term = status.term.max(led.term);
        }
        status
    }
}

impl Elsewhere {
    /// Tells what is found, and each change of it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<LedElsewhere> {
        self.found.subscribe()
    }

    /// The logs that this node's broker serves, and the leader whose broker's address that knows.
    pub(super) fn served(&self) -> BTreeMap<LogId, Option<NodeId>> {
        let brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.iter().map(|(log, served)| (*log, served.map(|(node, _)| node))).collect()
    }

    /// Notes who leads a log and where its broker serves it; none if that is not known.
    pub(crate) fn note_service(&self, log: LogId, served: Option<(NodeId, SocketAddr)>) {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.insert(log, served);
    }

    /// Notes where this node's name server is.
    pub(crate) fn note_name_server(&self, addr: SocketAddr) {
        // A node has one broker.
        let _ = self.name_server.set(addr);
    }
}

impl NodeInner {
    /// The logs whose copy here has stopped, or could not be opened; all if this node was removed.
    fn stopped_logs(&self) -> Vec<LogId> {
        let removed = self.peers.standing.is_removed().is_some();
        let mut logs: Vec<_> = self.not_open().keys().copied().collect();
        self.each_group(|group| {
            if removed || group.stop_reason().is_some() {
                logs.push(group.id);
            }
        });
        logs
    }

    /// Looks who leads the logs whose copy here has stopped or lags, as long as the node runs.
    pub(super) async fn look_elsewhere(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lags = Lags::default();
        let looking = async {
            loop {
                ticks.tick().await;
                let mut asked = self.stopped_logs();
                if Mutant::StoppedLogLeadsNowhere.is_active() {
                    asked.clear();
                }
                let mut lagging = self.lagging_logs(&mut lags);
                lagging.retain(|log| !asked.contains(log));
                let any_stopped = !asked.is_empty();
                asked.extend_from_slice(&lagging);
                let mut found = match asked.is_empty() {
                    true => LedElsewhere::default(),
                    false => self.ask_members(&asked).await,
                };
                found.lagging = lagging.into_iter().collect();
                found.removed = self.peers.standing.is_removed();
                self.elsewhere.any.store(any_stopped, Ordering::Release);
                self.elsewhere.found.send_if_modified(|held| {
                    let differs = *held != found;
                    *held = found;
                    differs
                });
            }
        };
        tokio::select! {
            () = looking => {}
            () = self.stopped() => {}
        }
    }

    async fn ask_members(&self, logs: &[LogId]) -> LedElsewhere {
        let members = self.other_members();
        let mut found = LedElsewhere::default();
        for some in logs.chunks(LOGS_MAX) {
            let request = AdminRequest::Leaders(some.to_vec());
            // Without a connection an answer would come too late.
            let connected = members.iter();
            let connected =
                connected.filter(|member| self.peers.contacts.session(member.id).is_some());
            let asking = connected.map(|member| {
                let deadline = tokio::time::Instant::now() + ASK_TIMEOUT;
                self.ask(member, LogId::SYSTEM, &request, deadline)
            });
            for answer in futures_util::future::join_all(asking).await {
                if let Ok(AdminReply::Leaders(said)) = answer {
                    found.learn(said, some, self.config.node_id);
                }
            }
        }
        found.name_servers.sort_unstable();
        found.name_servers.dedup();
        found
    }

    /// Answers another node that looks for leaders.
    pub(super) fn leaders(&self, logs: &[LogId]) -> Leaders {
        let logs = logs.iter().take(LOGS_MAX);
        let led = logs.filter_map(|log| Some((*log, self.led(&*self.group(*log)?)?)));
        let name_server = self.elsewhere.name_server.get().copied();
        let lags = !self.elsewhere.found.borrow().lagging.is_empty();
        let name_server = name_server.filter(|_| !lags && self.stopped_logs().is_empty());
        Leaders { logs: led.collect(), name_server }
    }

    /// Who leads a log, if this node leads it with a majority, or hears its leader.
    fn led(&self, group: &Group) -> Option<Led> {
        if group.stop_reason().is_some() || !(group.hears_majority() || group.hears_leader()) {
            return None;
        }
        let status = group.status();
        let leader = status.leader?;
        // What a copy that lags has applied of that may be out of date.
        let lags = self.elsewhere.found.borrow().lagging.contains(&group.id);
        let broker = {
            let brokers = self.elsewhere.brokers.lock().unwrap_or_else(PoisonError::into_inner);
            let served = brokers.get(&group.id).copied().flatten().filter(|_| !lags);
            served.filter(|(node, _)| *node == leader.id).map(|(_, addr)| addr)
        };
        Some(Led { term: status.term, leader, broker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(7);

    fn said(term: u64, leader: NodeId, port: Option<u16>) -> Leaders {
        let broker = port.map(|port| ([127, 0, 0, 1], port).into());
        let leader = Member::new(leader, "a:1");
        Leaders { logs: vec![(LOG, Led { term, leader, broker })], name_server: None }
    }

    fn leader_of(said: &[Leaders]) -> Option<NodeId> {
        let mut found = LedElsewhere::default();
        said.iter().for_each(|one| found.learn(one.clone(), &[LOG], 1));
        found.logs.get(&LOG).map(|led| led.leader.id)
    }

    #[test]
    fn the_newest_leader_counts_and_never_this_node() {
        assert_eq!(leader_of(&[said(4, 2, Some(1)), said(5, 3, None)]), Some(3));
        assert_eq!(leader_of(&[said(5, 3, None), said(4, 2, Some(1))]), Some(3));
        assert_eq!(leader_of(&[said(6, 1, None), said(5, 3, None)]), Some(3));
        assert_eq!(leader_of(&[said(6, 1, None)]), None);
    }

    #[test]
    fn of_one_leader_the_answer_counts_that_knows_its_broker() {
        for answers in
            [[said(4, 2, None), said(4, 2, Some(9))], [said(4, 2, Some(9)), said(4, 2, None)]]
        {
            let mut found = LedElsewhere::default();
            answers.into_iter().for_each(|one| found.learn(one, &[LOG], 1));
            assert!(found.logs[&LOG].broker.is_some());
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_kept() {
        let mut found = LedElsewhere::default();
        found.learn(said(4, 2, None), &[LogId(8)], 1);
        assert_eq!(found, LedElsewhere::default());
    }
}

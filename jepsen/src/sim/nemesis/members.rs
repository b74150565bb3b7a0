//! Changes of members, step by step, one at a time, through the public API of a client.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorumlog::{AdminError, LogId};

use super::Nemesis;
use crate::sim::clients;
use crate::sim::cluster::Cluster;
use crate::sim::fault::Fault;
use crate::sim::node::host_of;
use crate::world::Death;

/// The host that the operator works on.
const OPERATOR: &str = "operator";
/// Pause before a step that failed is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing happens until then.
    Wait(u64),
    /// The node is removed from all logs.
    Remove(u64),
    /// Its disk is lost, and it starts with an empty one.
    Wipe(u64),
    /// It must not be taken for its old self.
    Refused(u64),
    /// It becomes a learner.
    Add(u64),
    /// It becomes a voter.
    Promote(u64),
}

/// How a call ended; none while it is under way.
type Answer = Option<Result<(), AdminError>>;

/// Steps that are left.
#[derive(Debug)]
pub(super) struct Plan {
    /// What it counts as.
    fault: Option<Fault>,
    steps: VecDeque<Step>,
    /// A call that is under way, and where its answer comes.
    call: Option<Arc<Mutex<Answer>>>,
    /// Voters afterwards.
    node: u64,
}

impl Plan {
    fn new(fault: Option<Fault>, node: u64, steps: impl IntoIterator<Item = Step>) -> Self {
        Self { fault, steps: steps.into_iter().collect(), call: None, node }
    }

    /// Replaces a node whose disk is damaged.
    pub(super) fn replace(node: u64, at_ms: u64) -> Self {
        let steps = [Step::Wait(at_ms), Step::Remove(node), Step::Wipe(node)];
        Self::new(None, node, steps.into_iter().chain([Step::Add(node), Step::Promote(node)]))
    }
}

impl Nemesis {
    /// True while members change, or a node has to be replaced.
    pub(crate) fn changes_members(&self) -> bool {
        self.plan.is_some()
    }

    /// Begins to replace a node, which is not let in with the data that it has.
    pub(crate) fn replace(&mut self, cluster: &Cluster, node: u64) {
        self.plan = Some(Plan::replace(node, cluster.shared.now_ms()));
    }

    /// True if the cluster keeps a quorum of good copies when this node loses its data: all founding voters vote,
    /// it is one of them, and no other node is being replaced.
    pub(super) fn may_lose(&self, cluster: &Cluster, node: u64) -> bool {
        let voters = voters(cluster);
        self.plan.is_none()
            && voters.len() >= 3
            && voters.contains(&node)
            && cluster.machines.values().all(|machine| !machine.damaged && !machine.wiped)
    }

    /// Begins a change, unless one is under way.
    pub(super) fn change_members(&mut self, cluster: &Cluster, fault: Fault, target: u64) {
        let voters = voters(cluster);
        if self.plan.is_some() || voters.is_empty() {
            return;
        }
        let spare = cluster.machines.keys().copied().find(|id| !voters.contains(id));
        let now_ms = cluster.shared.now_ms();
        let again = [Step::Wait(now_ms + 200), Step::Add(target), Step::Promote(target)];
        let lossy = matches!(fault, Fault::Replace | Fault::WipedReturn);
        if lossy && !self.may_lose(cluster, target) {
            return;
        }
        let steps: Vec<Step> = match (fault, spare) {
            (Fault::Join, Some(spare)) => vec![Step::Add(spare), Step::Promote(spare)],
            (Fault::Leave, _) if voters.len() >= 3 && voters.contains(&target) => {
                [Step::Remove(target)].into_iter().chain(again).collect()
            }
            (Fault::Replace, _) => {
                let lose = [Step::Remove(target), Step::Wipe(target)];
                lose.into_iter().chain(again).collect()
            }
            (Fault::WipedReturn, _) => {
                let lose = [Step::Wipe(target), Step::Wait(now_ms + 400), Step::Refused(target)];
                lose.into_iter().chain([Step::Remove(target)]).chain(again).collect()
            }
            _ => return,
        };
        let node = match steps.first() {
            Some(Step::Add(spare)) => *spare,
            _ => target,
        };
        self.plan = Some(Plan::new(Some(fault), node, steps));
    }

    /// Does the next step, if its time has come.
    pub(super) fn go_on(&mut self, cluster: &mut Cluster) {
        let Some(mut plan) = self.plan.take() else { return };
        let mut done = false;
        match plan.steps.front().copied() {
            None => {
                let machine = cluster.machine(plan.node);
                machine.wiped = false;
                if let Some(fault) = plan.fault {
                    cluster.bit(fault.name(), 1);
                }
                cluster.shared.event("cluster", format!("members: node {} done", plan.node));
                return;
            }
            Some(Step::Wait(at)) => done = cluster.shared.now_ms() >= at,
            Some(Step::Wipe(id)) => {
                cluster.shared.event(&host_of(id), "loses its disk".to_owned());
                cluster.wipe(id, 20);
                cluster.machine(id).wiped =
                    plan.steps.iter().any(|s| matches!(s, Step::Refused(_)));
                done = true;
            }
            Some(Step::Refused(id)) => {
                check_refused(cluster, id);
                done = true;
            }
            Some(step) => {
                if let Some(result) = call(cluster, &mut plan, step) {
                    let text = result.as_ref().map_or_else(ToString::to_string, |()| "ok".into());
                    cluster.shared.event("cluster", format!("{step:?}: {text}"));
                    done = result.is_ok()
                        || matches!((step, &result), (Step::Remove(_), Err(error)) if is_gone(error));
                    if let (Step::Promote(id), Err(AdminError::Invalid { .. })) = (step, result) {
                        // A log was made meanwhile: it is added to that one, too.
                        plan.steps.push_front(Step::Add(id));
                    }
                }
            }
        }
        if done {
            plan.steps.pop_front();
        }
        self.plan = Some(plan);
    }
}

/// True if the node was removed by an earlier call, whose answer was lost.
fn is_gone(error: &AdminError) -> bool {
    matches!(error, AdminError::Invalid { reason } if reason.contains("is no member of"))
}

/// Has the operator make the call; gives its answer once there is one.
fn call(cluster: &mut Cluster, plan: &mut Plan, step: Step) -> Option<Result<(), AdminError>> {
    if let Some(answer) = &plan.call {
        if cluster.world.is_running(OPERATOR) {
            return None;
        }
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        plan.call = None;
        let closed = Err(AdminError::Closed);
        return Some(answer.unwrap_or(closed));
    }
    let answer = Arc::new(Mutex::new(None));
    plan.call = Some(Arc::clone(&answer));
    let (shared, network) = (Arc::clone(&cluster.shared), cluster.network.clone());
    let added = match step {
        Step::Add(id) => Some(cluster.machine(id).member(id)),
        _ => None,
    };
    if cluster.world.is_running(OPERATOR) {
        cluster.world.kill(OPERATOR, Death::Process);
    }
    // Not to a node that is no member: it would look for a leader that it never hears of.
    // Nor to the one that is removed: it may be refused by all others, and hear of none.
    let mut members = voters(cluster);
    members.retain(|id| *id != plan.node || !matches!(step, Step::Remove(_)));
    cluster.world.start(OPERATOR, move || async move {
        let transport = network.transport(OPERATOR);
        let Some(client) = clients::connect_operator(&shared, &transport, members).await else {
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        };
        let result = match (step, added) {
            (_, Some(member)) => client.add_learner(member).await,
            (Step::Remove(id), _) => client.remove(id).await,
            (Step::Promote(id), _) => client.promote(id).await,
            _ => Ok(()),
        };
        if result.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        Ok(())
    });
    None
}

/// The voters of the system log, as its leader has them.
pub(crate) fn voters(cluster: &Cluster) -> Vec<u64> {
    let statuses = cluster.statuses(LogId::SYSTEM);
    let leaders = statuses.into_iter().filter(|s| s.role == quorumlog::Role::Leader);
    let Some(leader) = leaders.max_by_key(|status| status.term) else { return Vec::new() };
    let voters = leader.members.into_iter().filter(|member| member.voter);
    voters.map(|member| member.member.id).collect()
}

/// A node that came back without its data must not have been given any part in the cluster.
fn check_refused(cluster: &Cluster, id: u64) {
    let Some(node) = cluster.shared.node(id) else { return };
    let vote = cluster.shared.auditor().vote(id, LogId::SYSTEM);
    if node.is_bootstrapped() || vote.is_some() {
        let status = node.status();
        let detail =
            format!("node {id} lost its data, came back and was taken in: {vote:?}, {status:?}");
        cluster.shared.breach("wiped-node-accepted", detail);
    }
}

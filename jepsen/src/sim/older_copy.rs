//! Once all is calm again, a node is restarted from an older copy of its data: the members must tell it from the node and
//! leave it out. Then the node comes back with its own data, or is replaced.
//!
//! In calm, since a copy passes if those who heard of the newer data are gone or cut off (docs/network.md 9).

use quorumlog::simulation::{CrashPolicy, SimDisk};
use quorumlog::{ProblemKind, Role};

use super::cluster::{Cluster, Crash};
use super::heal::wait;
use super::nemesis::{Nemesis, voters};
use super::node::host_of;
use super::random::Random;

/// How long calm may be waited for. Without it no copy is put back.
const CALM_MS: u64 = 8_000;
/// How much less than the leader a member may hold in calm.
const BEHIND_MAX: u64 = 64;
/// For so long a node runs on after the copy was made, before it is restarted.
const OLDER_MS: u64 = 300;
/// Members tell each other once a second what they have heard. After that all know of the newer data.
const HEARD_MS: u64 = 3_000;
/// How long a copy may take to hear that it is one, and for how long it is looked at then.
const TOLD_MS: u64 = 5_000;
const STAYS_MS: u64 = 1_000;
const DOWN_MS: u64 = 20;

/// Puts back an older copy of some node's data. True if the node has to be replaced after that.
pub(super) fn put_back(cluster: &mut Cluster, nemesis: &mut Nemesis) -> bool {
    let mut random = Random::of(cluster.shared.profile.seed, "which older copy");
    if !wait(cluster, CALM_MS, |cluster| is_calm(cluster)) {
        return false;
    }
    let id = random.pick(&voters(cluster));
    let copy = cluster.machine(id).disk.after_crash(&CrashPolicy::KeepAll);
    copy.set_seed(random.next());
    cluster.shared.event(&host_of(id), "its data is copied".to_owned());
    wait(cluster, OLDER_MS, |_| false);
    cluster.crash(id, Crash::Process, DOWN_MS);
    wait(cluster, HEARD_MS, |_| false);
    if !wait(cluster, CALM_MS, |cluster| is_calm(cluster)) {
        return false;
    }
    cluster.shared.event(&host_of(id), "an older copy of its data is put back".to_owned());
    cluster.start_copy(id, copy, DOWN_MS);
    if !wait(cluster, TOLD_MS, |cluster| is_left_out(cluster, id)) {
        let statuses = cluster.shared.node(id).map(|node| (node.problems(), node.statuses()));
        let detail = format!("node {id} takes part with older data: {statuses:?}");
        cluster.shared.breach("older-copy-let-in", detail);
    }
    // Nor later.
    wait(cluster, STAYS_MS, |cluster| !is_left_out(cluster, id));
    if !is_left_out(cluster, id) {
        let detail = format!("node {id} was left out with older data, and then not");
        cluster.shared.breach("older-copy-let-in", detail);
    }
    cluster.bit("older-copy", 1);
    if random.percent(50) {
        nemesis.replace(cluster, id);
        return true;
    }
    cluster.shared.event(&host_of(id), "its own data is put back".to_owned());
    cluster.crash(id, Crash::Process, DOWN_MS);
    false
}

/// True if all nodes run, and all members of all logs follow a leader closely.
fn is_calm(cluster: &Cluster) -> bool {
    let logs = cluster.shared.logs();
    let voters = voters(cluster);
    let follows = |log| {
        let statuses = cluster.statuses(log);
        let leader = statuses.iter().filter(|status| status.role == Role::Leader);
        let Some(leader) = leader.max_by_key(|status| status.term) else { return false };
        let near = |id: u64| {
            statuses.iter().any(|status| {
                status.node_id == id
                    && status.term == leader.term
                    && status.end + BEHIND_MAX >= leader.end
            })
        };
        leader.members.iter().all(|member| near(member.member.id))
    };
    voters.len() >= 3
        && cluster.running().len() == cluster.machines.len()
        && logs.iter().all(|log| follows(log.id))
}

/// True if the node says that its data is older than the cluster knows, and does nothing more.
fn is_left_out(cluster: &Cluster, id: u64) -> bool {
    let Some(node) = cluster.shared.node(id) else { return false };
    let told = node.problems().iter().any(|problem| problem.kind == ProblemKind::DataLost);
    told && node.statuses().iter().all(|status| status.role == Role::Stopped)
}

impl Cluster {
    /// Ends a node and starts it on a copy of its disk. It has its own disk back once that process ends: the auditor goes
    /// by it.
    fn start_copy(&mut self, id: u64, copy: SimDisk, down_ms: u64) {
        self.crash(id, Crash::Process, down_ms);
        let machine = self.machine(id);
        machine.original = Some(std::mem::replace(&mut machine.disk, copy));
    }

    /// True if the node runs on a copy of its disk. It must not lead.
    pub(super) fn check_copy(&self, id: u64) -> bool {
        if self.machines[&id].original.is_none() {
            return false;
        }
        let statuses = self.shared.node(id).map(|node| node.statuses()).unwrap_or_default();
        if let Some(led) = statuses.iter().find(|status| status.role == Role::Leader) {
            let detail = format!("node {id} leads {} with older data", led.log);
            self.shared.breach("older-copy-leads", detail);
        }
        true
    }
}

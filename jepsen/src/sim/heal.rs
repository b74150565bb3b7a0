//! After the faults: the cluster must be well soon, serve, and hold the same everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorumlog::simulation::{DurableKind, may_lack_records};
use quorumlog::{LogId, Role, Status};

use super::broker;
use super::cluster::Cluster;
use super::locals::{numbered, read_range};
use super::machine::States;
use super::nemesis::Nemesis;
use super::node::data_dir;
use super::older_copy;
use super::shared::{LogState, Shared};
use crate::cluster::{Entry, EntryKind, Replica};
use crate::{Action, value_of};

/// How long the replacing of a node may take when all else is well.
const MEMBERS_MS: u64 = 15_000;
/// After which clients append less, so that a copy that is sent one entry at a time can catch up with them.
const SPARED_MS: u64 = MEMBERS_MS / 2;
/// How long clients may take to end.
const STOP_MS: u64 = 5_000;
/// How long a scan of everything may take.
const SCAN_MS: u64 = 5_000;

/// Waits until changes of members are done. Clients append less if it takes long.
fn have_members(cluster: &mut Cluster, nemesis: &mut Nemesis) -> bool {
    if wait_for_members(cluster, nemesis, SPARED_MS) {
        return true;
    }
    cluster.shared.event("cluster", "clients append less".to_owned());
    cluster.shared.spare();
    wait_for_members(cluster, nemesis, MEMBERS_MS - SPARED_MS)
}

/// Ends the faults, and waits until all is well or time is over. Gives how long that took.
pub(crate) fn heal(cluster: &mut Cluster, nemesis: &mut Nemesis) -> u64 {
    cluster.shared.event("cluster", "all faults end".to_owned());
    nemesis.heal(cluster);
    let mut changed = have_members(cluster, nemesis);
    if changed && cluster.shared.profile.older_copy && older_copy::put_back(cluster, nemesis) {
        changed = have_members(cluster, nemesis);
    }
    if !changed {
        let detail =
            format!("a change of members was not done within {MEMBERS_MS} ms: {nemesis:?}");
        cluster.shared.breach("members-stuck", detail);
    }
    let logs = cluster.shared.logs();
    logs.iter().for_each(|log| log.recorder.healed());
    cluster.shared.set_healed();
    cluster.shared.event("cluster", "healed".to_owned());
    cluster.note_all_kept();
    let begun = cluster.shared.now_ms();
    let limit = cluster.shared.profile.heal_ms;
    if !wait(cluster, limit, |cluster| cluster.shared.all_served(&logs)) {
        let detail =
            format!("not every client was served by every log within {limit} ms{}", tell(cluster));
        cluster.shared.breach("not-serving", detail);
    }
    cluster.shared.stop();
    if !wait(cluster, STOP_MS, |cluster| cluster.shared.busy() == 0) {
        let busy = cluster.shared.busy();
        cluster.shared.breach("hung", format!("{busy} calls did not end within {STOP_MS} ms"));
    }
    let left = (begun + limit).saturating_sub(cluster.shared.now_ms()).max(1_000);
    let mut why = String::new();
    let converged = wait(cluster, left, |cluster| match converged(cluster, &logs) {
        Ok(()) => true,
        Err(reason) => {
            why = reason;
            false
        }
    });
    if converged {
        logs.iter().for_each(|log| log.recorder.converged());
        cluster.shared.event("cluster", "converged".to_owned());
    } else {
        let detail = format!("not within {limit} ms: {why}{}", tell(cluster));
        cluster.shared.breach("not-converged", detail);
    }
    let took = cluster.shared.now_ms() - begun;
    scan(cluster, &logs);
    if cluster.shared.is_of_brokers() {
        broker::scan(cluster);
    }
    took
}

/// Goes on with a change of members that is under way. False if it was not done in time.
fn wait_for_members(cluster: &mut Cluster, nemesis: &mut Nemesis, limit_ms: u64) -> bool {
    wait(cluster, limit_ms, |cluster| {
        nemesis.act(cluster);
        !nemesis.changes_members()
    })
}

/// Lets time pass until `done`; false if `limit_ms` pass first.
pub(crate) fn wait(
    cluster: &mut Cluster,
    limit_ms: u64,
    mut done: impl FnMut(&mut Cluster) -> bool,
) -> bool {
    for _ in 0..limit_ms {
        if done(cluster) {
            return true;
        }
        cluster.tick();
    }
    done(cluster)
}

/// What the nodes say, for a report.
fn tell(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (id, node) in cluster.shared.nodes() {
        for status in node.statuses() {
            let Status { log, role, term, begin, committed, end, applied, .. } = &status;
            let leader = status.leader.as_ref().map(|leader| leader.id);
            let voters: Vec<_> =
                status.members.iter().filter(|m| m.voter).map(|m| m.member.id).collect();
            text += &format!(
                "\n      node {id} {log}: {role}, term {term}, leader {leader:?}, voters {voters:?}, \
                 {begin} <= {committed} <= {end}, applied {applied}"
            );
        }
    }
    text
}

/// The status of the leader of a log, of the latest term.
fn leader(statuses: &[Status]) -> Option<&Status> {
    statuses.iter().filter(|status| status.role == Role::Leader).max_by_key(|status| status.term)
}

/// The members of a log, as its leader has them.
fn members(cluster: &Cluster, log: LogId) -> Vec<u64> {
    let statuses = cluster.statuses(log);
    let Some(leader) = leader(&statuses) else { return Vec::new() };
    leader.members.iter().map(|member| member.member.id).collect()
}

/// All members hold the same, durably, and all of it is committed and applied; or why not.
fn converged(cluster: &Cluster, logs: &[Arc<LogState>]) -> Result<(), String> {
    for log in logs {
        let statuses = cluster.statuses(log.id);
        let leader = leader(&statuses).ok_or_else(|| format!("{} has no leader", log.name))?;
        for member in &leader.members {
            let id = member.member.id;
            let status = statuses.iter().find(|status| status.node_id == id);
            let status = status.ok_or_else(|| format!("node {id} does not serve {}", log.name))?;
            let (listed, at) =
                (&member.member.peer_addr, cluster.machines[&id].member(id).peer_addr);
            if *listed != at {
                return Err(format!("{} lists node {id} at {listed}, and it is at {at}", log.name));
            }
            let all = (status.committed, status.end) == (leader.end, leader.end);
            if !all || status.applied < leader.end {
                return Err(format!("node {id} is behind in {}", log.name));
            }
            let mut auditor = cluster.shared.auditor();
            let durable = auditor.durable(id, log.id).map_err(|error| error.to_string())?;
            if durable.end() != leader.end {
                return Err(format!("node {id} has not stored all of {}", log.name));
            }
            if may_lack_records(&cluster.machines[&id].disk, data_dir()) {
                return Err(format!("node {id} is not known to have all that it acknowledged"));
            }
        }
    }
    Ok(())
}

/// Reads everything again, through the nodes and from the disks, and compares the states.
fn scan(cluster: &mut Cluster, logs: &[Arc<LogState>]) {
    let left = Arc::new(AtomicU64::new(0));
    for log in logs {
        log.scanned.store(true, Ordering::Relaxed);
        // What a broker appended, its clients read.
        let readers =
            if cluster.shared.is_of_brokers() { vec![] } else { members(cluster, log.id) };
        for id in readers {
            left.fetch_add(1, Ordering::Relaxed);
            let (shared, log, left) =
                (Arc::clone(&cluster.shared), Arc::clone(log), Arc::clone(&left));
            let states = cluster.states.clone();
            cluster.shared.run_on_node(
                id,
                Box::new(move |node| {
                    Box::pin(async move {
                        final_read(&shared, &node, id, &log, &states).await;
                        left.fetch_sub(1, Ordering::Relaxed);
                    })
                }),
            );
        }
    }
    if !wait(cluster, SCAN_MS, |_| left.load(Ordering::Relaxed) == 0) {
        cluster.shared.breach("scan", "not all could be read again in time".to_owned());
    }
    let mut states = Vec::new();
    for log in logs {
        for id in members(cluster, log.id) {
            match replica(cluster, id, log.id) {
                Ok(replica) => {
                    cluster.note_begin(log, id, replica.begin);
                    cluster.check_kept(log, &replica);
                    cluster.check_checkpoints(log, &replica);
                    log.recorder.replica(replica);
                }
                Err(reason) => cluster.shared.breach("scan", format!("node {id}: {reason}")),
            }
            if log.name.as_str() == "log-1" {
                states.push((id, cluster.states.of(id)));
            }
        }
    }
    if cluster.shared.profile.machine && states.windows(2).any(|pair| pair[0].1 != pair[1].1) {
        cluster.shared.breach("states-differ", format!("{states:?}"));
    }
}

async fn final_read(
    shared: &Shared,
    node: &quorumlog::Node,
    id: u64,
    log: &LogState,
    states: &States,
) {
    let Some(handle) = node.log(&log.name) else {
        return shared.breach("scan", format!("node {id} does not hold {}", log.name));
    };
    let watermarks = handle.watermarks();
    let (from, to) = (watermarks.begin, watermarks.committed);
    match read_range(&handle, from, to).await {
        Ok(records) => {
            let records = numbered(&records);
            if shared.profile.machine && log.name.as_str() == "log-1" {
                let read: Vec<u64> = records.iter().map(|(index, _)| *index).collect();
                if let Err(reason) = states.compare(id, from..to, &read) {
                    shared.breach("applied-differs", format!("node {id}: {reason}"));
                }
            }
            log.recorder.instant(shared.process(), Action::FinalRead { from, to, records });
        }
        Err(error) => shared.breach("scan", format!("node {id}, {}: {error}", log.name)),
    }
}

/// What a node's disk holds of a log.
fn replica(cluster: &Cluster, id: u64, log: LogId) -> Result<Replica, String> {
    let statuses = cluster.statuses(log);
    let status = statuses.iter().find(|status| status.node_id == id).ok_or("it does not run")?;
    let mut auditor = cluster.shared.auditor();
    let durable = auditor.durable(id, log).map_err(|error| error.to_string())?;
    let entries = durable.entries().map(|entry| Entry {
        index: entry.index,
        term: entry.term,
        kind: match entry.kind {
            DurableKind::Record => EntryKind::Record,
            DurableKind::Blank => EntryKind::Blank,
            DurableKind::Membership => EntryKind::Membership,
        },
        value: value_of(&entry.payload),
    });
    Ok(Replica {
        time: 0,
        node: id,
        boundary: durable.boundary(),
        begin: durable.begin(),
        committed: status.committed,
        entries: entries.collect(),
    })
}

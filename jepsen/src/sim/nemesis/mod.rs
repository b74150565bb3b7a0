//! The nemesis: does what the schedule says, and undoes it when its time is over.

mod damage;
mod disk;
mod members;
mod network;
mod survivor;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorumlog::seam::BoxFuture;
use quorumlog::{LogName, Member, Node};

use self::members::Plan;
pub(crate) use self::members::voters;
use super::broker;
use super::cluster::{Cluster, Crash};
use super::fault::Fault;
use super::node::host_of;
use super::random::Random;
use super::schedule::{Planned, Schedule, Target};
use super::shared::{LogState, Shared};

/// What ends a fault.
enum Undo {
    /// Resumes a node.
    Resume(u64),
    /// Sets a node's clock right.
    Drift(u64),
    /// Heals links, each as often as it was cut.
    Heal(Vec<(String, String)>),
    /// Gives links their latency back.
    Latency(Vec<(String, String)>),
    /// Ends the corruption of links.
    Corruption(Vec<(String, String)>),
    /// Ends a fault of the bus.
    Bus,
    /// Takes the faults of a disk back.
    Rules(u64),
    /// Gives a disk its space back.
    Space(u64),
    /// A disk is as fast as before.
    Fast(u64, u64),
    /// A disk is no longer stuck.
    Unstick(u64),
    /// Heals links, as above: a survivor can be reached again.
    Survivor { links: Vec<(String, String)>, survivor: u64 },
    /// Its node has saved a state, and loses its power; the number says what is left.
    Cut(u64, u64),
}

/// A fault that lasts.
struct Lasting {
    until_ms: u64,
    fault: Fault,
    /// What counted its bites when it began.
    before: u64,
    undo: Undo,
}

/// Does the faults of a schedule.
pub(crate) struct Nemesis {
    schedule: VecDeque<Planned>,
    begun_ms: u64,
    lasting: Vec<Lasting>,
    /// How often each link is cut.
    cuts: BTreeMap<(String, String), u64>,
    bus: BTreeMap<usize, Fault>,
    /// A change of members, one at a time.
    plan: Option<Plan>,
    /// Numbers for new logs.
    made: u64,
}

impl fmt::Debug for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nemesis").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Nemesis {
    /// A nemesis that begins now.
    pub(crate) fn new(schedule: Schedule, now_ms: u64) -> Self {
        Self {
            schedule: schedule.faults.into(),
            begun_ms: now_ms,
            lasting: Vec::new(),
            cuts: BTreeMap::new(),
            bus: BTreeMap::new(),
            plan: None,
            made: 0,
        }
    }

    /// Does what is due.
    pub(crate) fn act(&mut self, cluster: &mut Cluster) {
        let now_ms = cluster.shared.now_ms();
        let due = self.lasting.extract_if(.., |lasting| lasting.until_ms <= now_ms);
        for lasting in due.collect::<Vec<_>>() {
            self.end(cluster, lasting);
        }
        while self.schedule.front().is_some_and(|next| self.begun_ms + next.at_ms <= now_ms) {
            if let Some(planned) = self.schedule.pop_front() {
                self.begin(cluster, planned);
            }
        }
        self.go_on(cluster);
    }

    /// Ends all faults but the change of members that is under way.
    pub(crate) fn heal(&mut self, cluster: &mut Cluster) {
        self.schedule.clear();
        for lasting in std::mem::take(&mut self.lasting) {
            self.end(cluster, lasting);
        }
        cluster.network.heal_all();
        network::break_what_lost_frames(cluster);
        for id in cluster.machines.keys().copied().collect::<Vec<_>>() {
            let machine = cluster.machine(id);
            machine.disk.clear_rules();
            machine.disk.set_space(None);
            machine.halts_as = None;
            let now_ms = cluster.shared.now_ms();
            let machine = cluster.machine(id);
            machine.restart_at = machine.restart_at.map(|at| at.min(now_ms));
        }
    }

    fn begin(&mut self, cluster: &mut Cluster, planned: Planned) {
        let Planned { fault, salt, for_ms, .. } = planned;
        let mut random = Random::new(salt);
        let Some(target) = target(cluster, planned.target, &mut random) else { return };
        // One member moves at a time, as docs/operations.md asks of operators: the next one only restarts.
        let fault = match fault {
            Fault::Move if !addresses_are_known(cluster, target) => Fault::Kill,
            fault => fault,
        };
        if let Some(log) = cluster.shared.first_log() {
            log.recorder.fault(fault.name(), 0);
        }
        let lane = host_of(target);
        cluster.shared.lasting_event(&lane, format!("#{} {fault}", planned.id), for_ms);
        match fault {
            Fault::Kill => cluster.crash(target, Crash::Process, for_ms),
            Fault::Move => cluster.relocate(target, for_ms),
            Fault::PowerCut => cluster.crash(target, Crash::Power(random.next()), for_ms),
            Fault::PowerCutAll => {
                for id in cluster.running() {
                    cluster.crash(id, Crash::Power(random.next()), for_ms + random.below(30));
                }
            }
            Fault::LoneSurvivor => self.leave_survivor(cluster, target, for_ms, &mut random),
            Fault::CheckpointCut => self.checkpoint_cut(cluster, target, for_ms, random.next()),
            Fault::Pause => self.pause(cluster, target, for_ms),
            Fault::Drift => {
                let rate = random.pick(&[0.9, 0.97, 1.03, 1.1]);
                cluster.world.drift(&lane, rate);
                self.last(cluster, fault, for_ms, 0, Undo::Drift(target));
            }
            Fault::ClockStep => {
                let step = random.pick(&[-3_600_000, -5_000, 5_000, 3_600_000]);
                cluster.step_clock(target, step);
            }
            Fault::CrashAtDiskOp
            | Fault::PowerCutAtDiskOp
            | Fault::DiskError
            | Fault::ReadError
            | Fault::FailedFlush
            | Fault::DiskFull
            | Fault::ShortWrite
            | Fault::SlowFlush
            | Fault::StuckFlush => self.break_disk(cluster, planned, target, &mut random),
            Fault::BitRot | Fault::ZeroedSector | Fault::StaleSector | Fault::SwappedSectors => {
                self.damage(cluster, fault, target, &mut random);
            }
            Fault::Transfer
            | Fault::Trim
            | Fault::Checkpoint
            | Fault::CreateLog
            | Fault::DeleteLog => self.administer(cluster, fault, target, &mut random),
            Fault::Join | Fault::Leave | Fault::Replace | Fault::WipedReturn => {
                self.change_members(cluster, fault, target);
            }
            _ => self.break_network(cluster, planned, target, &mut random),
        }
        if bites_at_once(fault) {
            cluster.bit(fault.name(), 1);
        }
    }

    /// What is committed meanwhile is applied here, and not flushed; then the state is saved, which is.
    fn checkpoint_cut(&mut self, cluster: &mut Cluster, target: u64, for_ms: u64, seed: u64) {
        cluster.machine(target).pace.stuck.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&cluster.shared);
        let after = Duration::from_millis(for_ms.saturating_sub(2));
        let saves = move |node| -> BoxFuture<()> {
            Box::pin(async move {
                tokio::time::sleep(after).await;
                checkpoint(shared, node).await;
            })
        };
        cluster.shared.run_on_node(target, Box::new(saves));
        self.last(cluster, Fault::CheckpointCut, for_ms, 0, Undo::Cut(target, seed));
    }

    fn pause(&mut self, cluster: &mut Cluster, target: u64, for_ms: u64) {
        cluster.world.pause(&host_of(target));
        cluster.bit(Fault::Pause.name(), 1);
        self.last(cluster, Fault::Pause, for_ms, 0, Undo::Resume(target));
    }

    /// Remembers to end a fault.
    fn last(&mut self, cluster: &Cluster, fault: Fault, for_ms: u64, before: u64, undo: Undo) {
        let until_ms = cluster.shared.now_ms() + for_ms;
        self.lasting.push(Lasting { until_ms, fault, before, undo });
    }

    fn end(&mut self, cluster: &mut Cluster, lasting: Lasting) {
        let Lasting { fault, before, undo, .. } = lasting;
        let count = count(cluster, fault, &undo);
        let counts = !matches!(fault, Fault::Pause | Fault::CheckpointCut | Fault::LoneSurvivor);
        if counts && !bites_at_once(fault) {
            cluster.bit(fault.name(), count.saturating_sub(before));
        }
        match undo {
            Undo::Resume(id) => {
                let host = host_of(id);
                if cluster.world.is_paused(&host) {
                    cluster.world.resume(&host);
                }
            }
            Undo::Drift(id) => cluster.world.drift(&host_of(id), 1.0),
            Undo::Heal(links) => self.heal_links(cluster, &links),
            Undo::Survivor { links, survivor } => self.return_survivor(cluster, survivor, &links),
            Undo::Latency(links) => network::usual_latency(cluster, &links),
            Undo::Corruption(links) => {
                for (from, to) in links {
                    cluster.network.set_corruption(&from, &to, 0.0);
                    // A length that was changed holds the connection up until its frame times out.
                    cluster.network.reset_connections(&from, &to);
                }
            }
            Undo::Bus => {
                self.bus.retain(|_, active| *active != fault);
                network::set_bus(cluster, &self.bus);
            }
            Undo::Rules(id) => {
                let machine = cluster.machine(id);
                machine.disk.clear_rules();
                machine.halts_as = None;
            }
            Undo::Space(id) => cluster.machine(id).disk.set_space(None),
            Undo::Fast(id, extra) => {
                cluster.machine(id).pace.extra_ms.fetch_sub(extra, Ordering::Relaxed);
            }
            Undo::Unstick(id) => {
                cluster.machine(id).pace.stuck.fetch_sub(1, Ordering::Relaxed);
            }
            Undo::Cut(id, seed) => {
                cluster.machine(id).pace.stuck.fetch_sub(1, Ordering::Relaxed);
                if cluster.is_running(id) {
                    cluster.crash(id, Crash::Power(seed), 1);
                    cluster.bit(fault.name(), 1);
                }
            }
        }
    }

    /// What an operator does.
    fn administer(
        &mut self,
        cluster: &mut Cluster,
        fault: Fault,
        target: u64,
        random: &mut Random,
    ) {
        let shared = Arc::clone(&cluster.shared);
        let logs = shared.logs();
        let Some(log) = logs.get(random.below(logs.len() as u64) as usize).cloned() else { return };
        let others: Vec<u64> = cluster.running().into_iter().filter(|id| *id != target).collect();
        let back = random.below(40);
        let job: Box<dyn FnOnce(Node) -> BoxFuture<()> + Send> = match fault {
            Fault::Transfer if others.is_empty() => return,
            Fault::Transfer => {
                let to = random.pick(&others);
                Box::new(move |node| Box::pin(transfer(shared, node, log, to)))
            }
            Fault::Trim => Box::new(move |node| Box::pin(trim(shared, node, log, back))),
            Fault::Checkpoint => Box::new(move |node| Box::pin(checkpoint(shared, node))),
            Fault::CreateLog => {
                self.made += 1;
                let name = LogName::new(format!("made-{}", self.made));
                let Ok(name) = name else { return };
                Box::new(move |node| Box::pin(create(shared, node, name)))
            }
            _ => {
                // Never the first: faults are aimed at it. Nor a broker's, which operators cannot delete.
                let others = logs.into_iter().skip(1);
                let mut others = others.filter(|log| !broker::is_broker(&log.name));
                let Some(doomed) = others.next_back() else { return };
                doomed.doomed.store(true, Ordering::Relaxed);
                Box::new(move |node| Box::pin(delete(shared, node, doomed)))
            }
        };
        cluster.shared.run_on_node(target, job);
    }
}

fn note(shared: &Shared, fault: Fault, what: &str, result: Result<(), quorumlog::AdminError>) {
    match result {
        Ok(()) => {
            if let Some(log) = shared.first_log() {
                log.recorder.bit(fault.name(), 1);
            }
            shared.event("cluster", format!("{fault} {what} done"));
        }
        Err(error) => shared.event("cluster", format!("{fault} {what}: {error}")),
    }
}

async fn transfer(shared: Arc<Shared>, node: Node, log: Arc<LogState>, to: u64) {
    let Some(handle) = node.log(&log.name) else { return };
    // Alone it cannot be elected, so that it would have been handed over.
    let lacks_alone = || {
        let mut lacking = shared.profile.nodes().filter(|id| shared.auditor().lacks(*id, log.id));
        lacking.next() == Some(to) && lacking.next().is_none()
    };
    let before = lacks_alone();
    let result = handle.admin().transfer_leadership(to).await;
    if before && result.is_ok() && lacks_alone() {
        shared.breach("handed-to-suspect", format!("{} to node {to}", log.name));
    }
    note(&shared, Fault::Transfer, &format!("of {} to {to}", log.name), result);
}

async fn trim(shared: Arc<Shared>, node: Node, log: Arc<LogState>, back: u64) {
    let Some(handle) = node.log(&log.name) else { return };
    let before = handle.watermarks().committed.saturating_sub(back);
    log.trims(before);
    let begin = handle.watermarks().begin;
    match handle.admin().trim(before).await {
        Ok(moved) if moved > begin => note(&shared, Fault::Trim, log.name.as_str(), Ok(())),
        Ok(_) => {}
        Err(error) => note(&shared, Fault::Trim, log.name.as_str(), Err(error)),
    }
}

async fn checkpoint(shared: Arc<Shared>, node: Node) {
    let Some(log) = shared.first_log() else { return };
    let Some(handle) = node.log(&log.name) else { return };
    let result = handle.admin().checkpoint().await.map(drop);
    if shared.profile.machine {
        note(&shared, Fault::Checkpoint, log.name.as_str(), result);
    }
}

async fn create(shared: Arc<Shared>, node: Node, name: LogName) {
    let result = node.create_log(&name).await;
    let result = result.map(|made| drop(shared.add_log(name.clone(), made.id())));
    note(&shared, Fault::CreateLog, name.as_str(), result);
}

async fn delete(shared: Arc<Shared>, node: Node, log: Arc<LogState>) {
    let result = node.delete_log(&log.name).await;
    note(&shared, Fault::DeleteLog, log.name.as_str(), result);
}

/// True for faults that have taken effect once they are there.
fn bites_at_once(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Kill
            | Fault::Move
            | Fault::PowerCut
            | Fault::PowerCutAll
            | Fault::Drift
            | Fault::ClockStep
    )
}

/// How often what a fault does has happened so far.
fn count(cluster: &Cluster, fault: Fault, undo: &Undo) -> u64 {
    match undo {
        Undo::Rules(id) | Undo::Space(id) | Undo::Fast(id, _) | Undo::Unstick(id) => {
            disk::count(cluster, fault, *id)
        }
        _ => network::count(cluster, fault),
    }
}

/// True if all members run, each of them has all of them where they are in all of its logs, and `id` knows them at all:
/// one that was only just added does not.
fn addresses_are_known(cluster: &Cluster, id: u64) -> bool {
    let running = cluster.running();
    let nodes = cluster.shared.nodes();
    let knows_members = |node: &Node| !node.status().members.is_empty();
    if !nodes.iter().any(|(other, node)| *other == id && knows_members(node)) {
        return false;
    }
    let mut members = nodes.iter().flat_map(|(_, node)| node.statuses()).flat_map(|s| s.members);
    members.all(|listed| {
        let Member { id, peer_addr, .. } = listed.member;
        let machine = cluster.machines.get(&id);
        running.contains(&id)
            && machine.is_some_and(|machine| machine.member(id).peer_addr == peer_addr)
    })
}

/// Who is hit, of those that run.
fn target(cluster: &Cluster, target: Target, random: &mut Random) -> Option<u64> {
    let running = cluster.running();
    let leader = cluster.shared.first_log().and_then(|log| cluster.leader(log.id));
    let leader = leader.filter(|leader| running.contains(leader));
    let candidates: Vec<u64> = match target {
        Target::Leader => leader.into_iter().collect(),
        Target::Follower => running.iter().copied().filter(|id| Some(*id) != leader).collect(),
        Target::Any => Vec::new(),
    };
    let candidates = if candidates.is_empty() { running } else { candidates };
    (!candidates.is_empty()).then(|| random.pick(&candidates))
}

//! The machines of a run: nodes on simulated disks, started, crashed, started again, and watched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorumlog::simulation::{CrashPolicy, FaultKind, SimDisk};
use quorumlog::{Flush, LogId, Member, Node, ProblemKind, Role, Status};

use super::broker;
use super::lost_pages::LostPages;
use super::machine::States;
use super::node::{self, NodeSetup, Pace, host_of};
use super::profile::Profile;
use super::random::Random;
use super::recovery::Recovery;
use super::shared::{LogState, Shared};
use crate::cluster::{Observation, Vote};
use crate::world::{Death, Latency, Mode, Network, NetworkConfig, Outcome, World, WorldConfig};

/// How often nodes are looked after, and looked at.
const CARE_MS: u64 = 10;
const OBSERVE_MS: u64 = 20;
/// Pause before a node that stopped itself is started again.
const RESTART_MS: u64 = 30;
/// How far behind a wall clock is that is wrong from the first start on.
const YEARS_MS: i64 = 20 * 365 * 86_400_000;
/// A node has saved the clock of its logs this long ago at most, unless its disk hangs.
const CLOCK_SAVED_MS: u64 = 3_000;

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process dies.
    Process,
    /// The power fails; the number says what is left of what was not flushed.
    Power(u64),
}

impl Crash {
    fn policy(self) -> CrashPolicy {
        match self {
            Self::Process => CrashPolicy::KeepAll,
            Self::Power(seed) if seed % 4 == 0 => CrashPolicy::LoseAll,
            Self::Power(seed) => CrashPolicy::Random(seed),
        }
    }

    fn death(self) -> Death {
        match self {
            Self::Process => Death::Process,
            Self::Power(_) => Death::Power,
        }
    }
}

/// One machine, whether its node runs or not.
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    pub(crate) pace: Arc<Pace>,
    /// Its own disk, while it runs on an older copy.
    pub(super) original: Option<SimDisk>,
    /// Counts data directories.
    pub(super) incarnation: u64,
    /// How often it came back at another address.
    pub(crate) moves: u64,
    /// Starts with this data directory.
    restarts: u64,
    /// All starts.
    pub(super) starts: u64,
    pub(crate) restart_at: Option<u64>,
    /// When its process ended, while it is down.
    down_since: Option<u64>,
    /// When its wall clock was set ahead, and by how much.
    steps_ahead: Vec<(u64, u64)>,
    /// What it may have taken for time that it was off.
    unsure_ms: u64,
    /// What a halt of the disk is, if one is due.
    pub(crate) halts_as: Option<Crash>,
    /// Faults of the disk before the last start, and how often it was full.
    faults_before: (u64, u64),
    /// Since the last start, an operation may have failed for want of space where there was some.
    pub(crate) lies_about_space: bool,
    /// Stored bytes were changed: the node may refuse to go on until it is replaced.
    pub(crate) damaged: bool,
    /// It lost its data and is to be refused until it is replaced.
    pub(crate) wiped: bool,
}

impl Machine {
    /// Its process ends.
    fn goes_down(&mut self, now_ms: u64) {
        if self.down_since.is_none() {
            let saved_ms = now_ms.saturating_sub(CLOCK_SAVED_MS);
            let recent = self.steps_ahead.iter().filter(|(at, _)| *at >= saved_ms);
            self.unsure_ms += CLOCK_SAVED_MS + recent.map(|(_, by)| by).sum::<u64>();
            self.down_since = Some(now_ms);
        }
    }

    /// Its process starts.
    fn comes_up(&mut self, now_ms: u64) {
        if let Some(since) = self.down_since.take() {
            let meanwhile = self.steps_ahead.iter().filter(|(at, _)| *at >= since);
            self.unsure_ms += now_ms - since + meanwhile.map(|(_, by)| by).sum::<u64>();
        }
    }

    /// How others reach its node.
    pub(crate) fn member(&self, id: u64) -> Member {
        node::member_after(id, self.moves)
    }

    /// Faults of the disk so far, and how often it was full.
    fn faults(&self) -> (u64, u64) {
        let counts = self.disk.counts();
        let kinds = [FaultKind::Eio, FaultKind::Short, FaultKind::Halt, FaultKind::TornFlush];
        let faults = kinds.into_iter().map(|kind| counts.faults(kind)).sum();
        (faults, counts.faults(FaultKind::NoSpace))
    }

    /// True if the node has a reason to stop. A full disk is one for a node that is being opened only: one that
    /// runs waits for space.
    fn may_stop(&self, runs: bool) -> bool {
        let ((faults, full), (faults_before, full_before)) = (self.faults(), self.faults_before);
        let waits = runs && !self.lies_about_space;
        self.damaged || faults > faults_before || full > full_before && !waits
    }
}

/// All machines, and the world that they are in.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) network: Network,
    pub(crate) shared: Arc<Shared>,
    pub(crate) states: States,
    pub(crate) machines: BTreeMap<u64, Machine>,
    lives: u64,
    /// Started nodes, the first time included.
    pub(crate) starts: u64,
    begins: BTreeMap<LogId, u64>,
    /// Where some node's log ended, and when that was seen first.
    ends: BTreeMap<LogId, Vec<(u64, u64)>>,
    pub(super) lost_pages: LostPages,
    pub(super) recovery: Recovery,
}

impl Cluster {
    /// Machines of this profile, switched off.
    pub(crate) fn new(profile: Profile, trace_bytes_max: usize) -> Self {
        let mut config = WorldConfig::new(profile.seed);
        config.trace_bytes_max = trace_bytes_max;
        let latency = Latency::millis(profile.latency_ms.start, profile.latency_ms.end - 1);
        config.network = NetworkConfig {
            mode: if profile.bus { Mode::Bus } else { Mode::Streams },
            latency,
            connect_retry: Duration::from_millis(40),
            give_up: Duration::from_millis(1_500),
            retransmit: Duration::from_millis(20),
            ..NetworkConfig::default()
        };
        let world = World::new(config);
        let shared = Arc::new(Shared::new(profile, world.trace()));
        let mut cluster = Self {
            network: world.network(),
            world,
            shared,
            states: States::default(),
            machines: BTreeMap::new(),
            lives: 0,
            starts: 0,
            begins: BTreeMap::new(),
            ends: BTreeMap::new(),
            lost_pages: LostPages::default(),
            recovery: Recovery::default(),
        };
        let nodes: Vec<u64> = cluster.shared.profile.nodes().collect();
        for id in nodes {
            cluster.add_machine(id);
        }
        cluster
    }

    fn add_machine(&mut self, id: u64) {
        let profile = &self.shared.profile;
        let random = Random::of(profile.seed, &format!("pace {id}"));
        let pace = Arc::new(Pace::new(profile, random));
        let machine = Machine {
            disk: self.new_disk(id, 0),
            pace,
            original: None,
            incarnation: 0,
            moves: 0,
            restarts: 0,
            starts: 0,
            restart_at: Some(0),
            down_since: None,
            steps_ahead: Vec::new(),
            unsure_ms: 0,
            halts_as: None,
            faults_before: (0, 0),
            lies_about_space: false,
            damaged: false,
            wiped: false,
        };
        self.shared.auditor().set_disk(id, machine.disk.clone(), true);
        self.machines.insert(id, machine);
    }

    fn new_disk(&self, id: u64, incarnation: u64) -> SimDisk {
        let seed = self.shared.profile.seed;
        let disk = SimDisk::with_seed(Random::of(seed, &format!("disk {id} {incarnation}")).next());
        // The wall clock of the host that asks.
        disk.set_clock(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        disk
    }

    /// A machine. A wrong number is an error of the harness.
    pub(crate) fn machine(&mut self, id: u64) -> &mut Machine {
        self.machines.get_mut(&id).unwrap_or_else(|| panic!("there is no machine {id}"))
    }

    pub(crate) fn is_running(&self, id: u64) -> bool {
        self.world.is_running(&host_of(id))
    }

    /// Nodes whose processes run.
    pub(crate) fn running(&self) -> Vec<u64> {
        self.machines.keys().copied().filter(|id| self.is_running(*id)).collect()
    }

    /// The node that leads this log, as it says itself: of several the one of the latest term.
    pub(crate) fn leader(&self, log: LogId) -> Option<u64> {
        let statuses = self.statuses(log);
        let leaders = statuses.into_iter().filter(|status| status.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.node_id)
    }

    /// What the running nodes say about a log.
    pub(crate) fn statuses(&self, log: LogId) -> Vec<Status> {
        let of = |node: &Node| node.statuses().into_iter().find(|status| status.log_id == log.0);
        self.shared.nodes().iter().filter_map(|(_, node)| of(node)).collect()
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, id: u64) {
        let host = host_of(id);
        self.lives += 1;
        self.starts += 1;
        let (life, shared, states) = (self.lives, Arc::clone(&self.shared), self.states.clone());
        let network = self.network.clone();
        let now_ms = self.shared.now_ms();
        let machine = self.machine(id);
        let is_first = machine.restarts == 0 && machine.incarnation == 0;
        machine.comes_up(now_ms);
        machine.restarts += 1;
        machine.starts += 1;
        machine.restart_at = None;
        machine.halts_as = None;
        machine.faults_before = machine.faults();
        machine.lies_about_space = false;
        let (disk, pace) = (machine.disk.clone(), Arc::clone(&machine.pace));
        let member = machine.member(id);
        shared.event(&host, "starts".to_owned());
        let name = host.clone();
        self.world.start(&host, move || {
            let transport = network.transport(&name);
            node::run(NodeSetup { id, life, member, disk, pace, transport, states, shared })
        });
        if is_first && self.shared.profile.behind == Some(id) {
            self.world.step_wall_clock(&host, -YEARS_MS);
        }
    }

    /// Sets the wall clock of a node.
    pub(crate) fn step_clock(&mut self, id: u64, by_ms: i64) {
        let now_ms = self.shared.now_ms();
        self.world.step_wall_clock(&host_of(id), by_ms);
        let ahead = u64::try_from(by_ms).into_iter().map(|by| (now_ms, by));
        self.machine(id).steps_ahead.extend(ahead);
    }

    /// Sets the clock right that is wrong since the first start.
    pub(crate) fn set_clock_right(&mut self) {
        if let Some(id) = self.shared.profile.behind {
            self.shared.event(&host_of(id), "its clock is set right".to_owned());
            self.step_clock(id, YEARS_MS);
        }
    }

    /// Ends a node as it stands. It is started again after `down_ms`.
    pub(crate) fn crash(&mut self, id: u64, crash: Crash, down_ms: u64) {
        let is_async = self.shared.profile.flush == Flush::Async;
        let loses_pages = is_async && matches!(crash, Crash::Power(_));
        if loses_pages {
            self.bit("lost-pages", 1);
        }
        self.look_at_votes(id);
        let slot = self.shared.node_down(id);
        let now_ms = self.shared.now_ms();
        let restart_at = Some(now_ms + down_ms);
        let machine = self.machine(id);
        machine.goes_down(now_ms);
        if let Some(original) = machine.original.take() {
            machine.disk = original;
        }
        machine.disk = machine.disk.crash(&crash.policy());
        machine.restart_at = restart_at;
        machine.halts_as = None;
        let disk = machine.disk.clone();
        self.shared.auditor().set_disk(id, disk, false);
        let host = host_of(id);
        if self.world.is_running(&host) {
            self.world.kill(&host, crash.death());
        }
        drop(slot);
        if loses_pages {
            self.note_lost_pages(id);
        }
    }

    /// Ends a node, and has it come back at another address.
    pub(crate) fn relocate(&mut self, id: u64, down_ms: u64) {
        self.crash(id, Crash::Process, down_ms);
        self.machine(id).moves += 1;
    }

    /// Ends a node, and gives it an empty disk. It is started again after `down_ms`.
    pub(crate) fn wipe(&mut self, id: u64, down_ms: u64) {
        self.crash(id, Crash::Power(0), down_ms);
        let incarnation = self.machine(id).incarnation + 1;
        let disk = self.new_disk(id, incarnation);
        let machine = self.machine(id);
        machine.disk = disk.clone();
        (machine.incarnation, machine.restarts, machine.damaged) = (incarnation, 0, false);
        self.shared.auditor().set_disk(id, disk, true);
    }

    /// One tick, and what is due after it.
    pub(crate) fn tick(&mut self) {
        self.world.step();
        let now = self.world.now();
        self.shared.set_now(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        let now_ms = self.shared.now_ms();
        let halted: Vec<u64> = self
            .machines
            .iter()
            .filter(|(id, machine)| machine.disk.is_dead() && self.is_running(**id))
            .map(|(id, _)| *id)
            .collect();
        for id in halted {
            let crash = self.machine(id).halts_as.take().unwrap_or(Crash::Process);
            let what = match crash {
                Crash::Process => "crash-at-disk-op",
                Crash::Power(_) => "power-cut-at-disk-op",
            };
            self.shared.event(&host_of(id), format!("dies: {what}"));
            self.bit(what, 1);
            self.crash(id, crash, RESTART_MS);
        }
        if now_ms.is_multiple_of(CARE_MS) {
            self.care(now_ms);
        }
        if now_ms.is_multiple_of(OBSERVE_MS) {
            self.observe();
            if self.shared.is_of_brokers() {
                broker::note_begins(&self.shared);
            }
            self.observe_lost_pages();
            self.observe_rewinds();
            self.observe_recovery();
        }
    }

    /// A fault took effect.
    pub(crate) fn bit(&self, kind: &str, bites: u64) {
        if let Some(log) = self.shared.first_log() {
            log.recorder.bit(kind, bites);
        }
    }

    /// Starts what is due, and looks for nodes that have stopped by themselves.
    fn care(&mut self, now_ms: u64) {
        let ids: Vec<u64> = self.machines.keys().copied().collect();
        for id in ids {
            let running = self.is_running(id);
            // A copy is to stop.
            if running && self.check_copy(id) {
                continue;
            }
            match self.machine(id).restart_at {
                Some(at) if at <= now_ms && !running => self.start(id),
                None if !running => self.ended(id),
                None => {
                    if let Some((runs, reason)) = self.stopped(id) {
                        self.stopped_itself(id, runs, &reason);
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Why a node does not go on with a log, if it does not, and whether it had begun to.
    fn stopped(&self, id: u64) -> Option<(bool, String)> {
        let problems = self.shared.node(id)?.problems();
        let stopped = problems.iter().find(|problem| {
            use ProblemKind::{LogNotOpen, LogStopped, TaskPanicked};
            matches!(problem.kind, LogNotOpen | LogStopped | TaskPanicked)
        })?;
        Some((stopped.kind != ProblemKind::LogNotOpen, stopped.to_string()))
    }

    /// The process ended without being killed.
    fn ended(&mut self, id: u64) {
        let reason = match self.world.outcome(&host_of(id)) {
            Some(Outcome::Failed(reason) | Outcome::Panicked(reason)) => reason,
            other => format!("{other:?}"),
        };
        self.stopped_itself(id, false, &reason);
    }

    fn stopped_itself(&mut self, id: u64, runs: bool, reason: &str) {
        self.shared.event(&host_of(id), format!("stopped itself: {reason}"));
        if !self.machine(id).may_stop(runs) {
            self.shared.breach("stopped-itself", format!("node {id}: {reason}"));
        }
        // A fault of the disk that was not met yet would hit the next start, and the one after it.
        self.machine(id).disk.clear_rules();
        self.crash(id, Crash::Process, RESTART_MS);
    }

    /// Writes down what the nodes say about themselves, and what their disks hold of it.
    pub(crate) fn observe(&mut self) {
        let nodes = self.shared.nodes();
        self.shared.auditor().note_voters(&nodes);
        let logs = self.shared.logs();
        for (id, node) in nodes {
            let machine = &self.machines[&id];
            if machine.original.is_some() {
                continue;
            }
            let (incarnation, restarts) = (machine.incarnation, machine.restarts);
            // What has stopped, or could not be opened, is for `care`.
            let statuses = node.statuses().into_iter().filter(|s| s.role != Role::Stopped);
            for status in statuses {
                let Some(log) = logs.iter().find(|log| log.id.0 == status.log_id) else { continue };
                self.note_end(log.id, status.end);
                self.note_begin(log, id, status.begin);
                let vote = self.shared.auditor().vote(id, log.id);
                log.recorder.observe(Observation {
                    time: 0,
                    node: id,
                    incarnation,
                    restarts,
                    // As far as it is durable: what is not may be forgotten, and was told to nobody.
                    term: vote.map_or(0, |vote| vote.term),
                    vote: vote.map(|vote| Vote {
                        term: vote.term,
                        node: vote.voted_for,
                        committed: vote.committed,
                    }),
                    begin: status.begin,
                    committed: status.committed,
                    applied: Some(status.applied),
                    end: status.end,
                });
                if status.role == Role::Leader {
                    log.recorder.leader(id, status.term);
                }
            }
        }
    }

    fn note_end(&mut self, log: LogId, end: u64) {
        let now_ms = self.shared.now_ms();
        let ends = self.ends.entry(log).or_default();
        if ends.last().is_none_or(|(seen, _)| *seen < end) {
            ends.push((end, now_ms));
        }
    }

    /// Retention by age let go what is below `begin`. Whatever the wall clocks do, its clock goes at the pace of the node's
    /// monotonic clock, which is fast by a tenth at most, and at twice that pace while it makes up for time off.
    fn check_age(&mut self, log: &LogState, id: u64, begin: u64, age: u64) {
        let ends = self.ends.get(&log.id).map_or(&[][..], Vec::as_slice);
        let at = ends.partition_point(|(end, _)| *end < begin);
        // A log is known here once the one who made it was told. What it held by then may be older.
        if at == 0 {
            return;
        }
        let Some((_, written)) = ends.get(at) else { return };
        let passed = self.shared.now_ms() - written + OBSERVE_MS;
        let unsure = self.machines[&id].unsure_ms;
        if passed.saturating_add(passed.min(unsure)) * 11 < age * 10 {
            let detail = format!(
                "node {id} begins {} at {begin}, and the record before that was written {passed} ms ago, of {age}; \
                 it may believe that it was off for {unsure} ms",
                log.name
            );
            self.shared.breach("deleted-early", detail);
        }
        let what = format!("retention by age: {} begins at {begin}", log.name);
        self.shared.event(&host_of(id), what);
    }

    /// A node begins a log here: retention moved it there, or somebody asked for it.
    pub(crate) fn note_begin(&mut self, log: &LogState, id: u64, begin: u64) {
        if begin <= self.begins.get(&log.id).copied().unwrap_or(0) {
            return;
        }
        let trimmed = log.trimmed.load(Ordering::Relaxed);
        if let Some(age) = self.shared.profile.retained_ms.filter(|_| begin > trimmed) {
            self.check_age(log, id, begin, age);
        } else if self.shared.profile.retained_segments.is_none() && begin > trimmed {
            let detail = format!(
                "node {id} begins {} at {begin}, and it was trimmed to {trimmed} at most",
                log.name
            );
            self.shared.breach("begin-moved", detail);
        }
        self.begins.insert(log.id, begin);
        log.recorder.trim(begin);
    }
}

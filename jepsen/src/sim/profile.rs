//! What kind of cluster and load a seed gives.

use std::fmt;
use std::ops::Range;

use quorumlog::Flush;

use super::fault::{Class, Fault};
use super::random::Random;

/// Families of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProfileKind {
    /// Three nodes, 5 s, a fault every 100 to 300 ms.
    Dense,
    /// Five nodes, 60 s, many installs and changes of members.
    Long,
    /// Three nodes, 5 s, a leader that loses touch and comes back, again and again; nothing else.
    Leaders,
    /// Three or five nodes, 5 s, all of which acknowledge before they flush. They lose their pages in every way: one, several
    /// or all of them at once.
    Async,
    /// Three nodes with brokers, 5 s, the faults of `dense`; the clients speak RocketMQ's protocol.
    Broker,
}

impl fmt::Display for ProfileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dense => "dense",
            Self::Long => "long",
            Self::Leaders => "leaders",
            Self::Async => "async",
            Self::Broker => "broker",
        })
    }
}

impl ProfileKind {
    /// What must happen in some of its runs, beside the faults that are put in.
    pub(crate) fn due(self) -> &'static [&'static str] {
        match self {
            Self::Async => &[
                "lone-survivor",
                "lost-pages",
                "never-too-many",
                "rewind",
                "rewind-told",
                "too-many-lost-pages",
            ],
            Self::Broker => &[
                "delayed",
                "group-reset",
                "handed-back",
                "queue-locked",
                "sent-again",
                "topic-deleted",
                "topic-grown",
            ],
            Self::Dense | Self::Long | Self::Leaders => &[],
        }
    }
}

/// The cluster and the load of one run.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) kind: ProfileKind,
    pub(crate) seed: u64,
    /// Founding voters: nodes 1 to `voters`.
    pub(crate) voters: u64,
    /// Nodes that may join: those after the voters.
    pub(crate) spares: u64,
    /// How long faults go on.
    pub(crate) chaos_ms: u64,
    /// How long the cluster may take to be well again.
    pub(crate) heal_ms: u64,
    /// Between two faults.
    pub(crate) fault_interval_ms: Range<u64>,
    /// The network loses, doubles, reorders and delays whole frames; else it has byte streams.
    pub(crate) bus: bool,
    /// One way.
    pub(crate) latency_ms: Range<u64>,
    /// Of a run of a writer.
    pub(crate) disk_ms: Range<u64>,
    /// Writers do a few jobs at a time, and others see the log in between.
    pub(crate) writer_steps: bool,
    pub(crate) flush: Flush,
    pub(crate) segment_bytes: u64,
    /// Segments that retention keeps; none if nothing is trimmed by itself.
    pub(crate) retained_segments: Option<u64>,
    /// Age from which retention lets segments go.
    pub(crate) retained_ms: Option<u64>,
    /// The node whose wall clock is years behind when it starts first, until it is set right.
    pub(crate) behind: Option<u64>,
    pub(crate) tail_cache_bytes: u64,
    pub(crate) request_bytes: u64,
    pub(crate) replication_window: u32,
    pub(crate) heartbeat_ms: u64,
    pub(crate) election_ms: Range<u64>,
    /// Bytes of a record beside its number.
    pub(crate) padding: Range<u64>,
    pub(crate) clients: u64,
    /// Appends that one client has under way.
    pub(crate) pipeline: u64,
    /// How long a call may take.
    pub(crate) timeout_ms: u64,
    /// Pause of a client between two appends.
    pub(crate) append_think_ms: Range<u64>,
    /// Pause of a node's own caller between two appends.
    pub(crate) local_append_think_ms: Range<u64>,
    /// Callers ask for read barriers while earlier ones wait.
    pub(crate) barriers_overlap: bool,
    /// Pause of a client between two calls.
    pub(crate) think_ms: Range<u64>,
    /// Logs from the beginning.
    pub(crate) logs: u64,
    /// The first log feeds a state machine.
    pub(crate) machine: bool,
    /// Several nodes lose their power at the same instant.
    pub(crate) together: bool,
    /// Now and then a node keeps what the others lose, and comes back later.
    pub(crate) survivors: bool,
    /// Once the faults have ended, an older copy of a node's data is put back.
    pub(crate) older_copy: bool,
    /// Classes of faults that are on.
    pub(crate) classes: Vec<Class>,
}

impl Profile {
    /// The profile of a seed.
    pub(crate) fn new(kind: ProfileKind, seed: u64) -> Self {
        let mut random = Random::of(seed, "profile");
        let long = kind == ProfileKind::Long;
        let bus = random.percent(40);
        let flush = if random.percent(88) { Flush::Sync } else { Flush::Async };
        let slow_network = random.percent(15);
        let slow_disk = random.percent(20);
        let segment_bytes = random.pick(&[4 << 10, 8 << 10, 16 << 10, 48 << 10]);
        let heartbeat_ms = random.within(25..45);
        let election_min = heartbeat_ms * random.within(4..7);
        let mut profile = Self {
            kind,
            seed,
            voters: if long { 5 } else { 3 },
            spares: if long || random.percent(40) { 1 } else { 0 },
            chaos_ms: if long { 60_000 } else { 5_000 },
            heal_ms: 10_000,
            fault_interval_ms: if long { 200..900 } else { 100..300 },
            bus,
            latency_ms: if slow_network { 2..9 } else { 1..3 },
            disk_ms: if slow_disk { 1..10 } else { 0..3 },
            // From a stream of its own: seeds without it stay what they were before there was any.
            writer_steps: Random::of(seed, "writer steps").percent(25),
            flush,
            segment_bytes,
            retained_segments: random.percent(50).then(|| random.within(1..5)),
            retained_ms: None,
            behind: None,
            tail_cache_bytes: random.pick(&[0, 2 << 10, 64 << 10]),
            request_bytes: random.pick(&[1, 1 << 10, 64 << 10]),
            replication_window: random.pick(&[1, 2, 4, 8]) as u32,
            heartbeat_ms,
            election_ms: election_min..election_min * 2,
            padding: random.pick(&[(0, 32), (0, 300), (100, 1_500)]).into_range(),
            clients: random.within(2..5),
            pipeline: random.pick(&[1, 4, 16]),
            timeout_ms: 1_000,
            append_think_ms: 0..0,
            local_append_think_ms: 0..0,
            barriers_overlap: Random::of(seed, "barriers").percent(35),
            think_ms: random.pick(&[(1, 10), (5, 40)]).into_range(),
            logs: random.within(1..3),
            machine: random.percent(60),
            // From a separate stream, as above.
            older_copy: flush == Flush::Sync && Random::of(seed, "older copy").percent(30),
            together: true,
            survivors: false,
            classes: Vec::new(),
        };
        profile.append_think_ms = profile.think_ms.clone();
        profile.local_append_think_ms = profile.think_ms.clone();
        profile.classes = profile.draw_classes(&mut random);
        // From a separate stream, as above.
        let mut ages = Random::of(seed, "retention by age");
        if profile.retained_segments.is_none() && ages.percent(40) {
            profile.retained_ms = Some(ages.within(1_500..3_000));
            if !profile.classes.contains(&Class::Clock) {
                profile.classes.push(Class::Clock);
            }
            profile.behind = ages.percent(40).then(|| 1 + ages.below(profile.voters));
        }
        match kind {
            ProfileKind::Leaders => profile.focus_on_leaders(&mut random),
            ProfileKind::Async => profile.focus_on_lost_pages(&mut random),
            ProfileKind::Broker => profile.focus_on_brokers(),
            ProfileKind::Dense | ProfileKind::Long => {}
        }
        profile.older_copy &= matches!(kind, ProfileKind::Dense | ProfileKind::Long);
        profile
    }

    /// What is committed under one leader is asked of another that does not know that it was deposed.
    /// Most appends are of the leader's own caller, who waits for the outcome: so a leader that is cut off has mostly
    /// sent its last request before, and hears of it when it comes back.
    fn focus_on_leaders(&mut self, random: &mut Random) {
        self.heartbeat_ms = random.within(8..15);
        let election_min = self.heartbeat_ms * random.within(4..7);
        self.election_ms = election_min..election_min * 2;
        self.clients = 1;
        self.think_ms = 2..12;
        self.append_think_ms = 100..600;
        self.local_append_think_ms = 0..3;
        self.bus = false;
        self.spares = 0;
        self.flush = Flush::Sync;
        self.barriers_overlap = true;
        self.fault_interval_ms = self.election_ms.end * 2..self.election_ms.end * 4;
        self.classes = vec![Class::Partition, Class::Pause, Class::Leadership];
    }

    /// What one node acknowledged and lost is asked of others that may not have it, or is counted late.
    fn focus_on_lost_pages(&mut self, random: &mut Random) {
        self.flush = Flush::Async;
        self.spares = 0;
        // Nodes that lost pages wait for the others for some election timeouts.
        self.heartbeat_ms = random.within(10..17);
        let election_min = self.heartbeat_ms * random.within(4..7);
        self.election_ms = election_min..election_min * 2;
        self.voters = if random.percent(15) { 5 } else { 3 };
        self.together = random.percent(65);
        if !self.together {
            // Time enough to be whole again, mostly: then nothing at all may be lost.
            self.fault_interval_ms = 300..800;
        }
        self.survivors = self.together && random.percent(75);
        self.retained_ms = None;
        let others = [
            Class::Crash,
            Class::Pause,
            Class::Partition,
            Class::Link,
            Class::DiskSlow,
            Class::Leadership,
            Class::Retention,
            Class::DiskError,
            Class::Membership,
        ];
        let share = random.pick(&[20, 50, 80]);
        self.classes = others.into_iter().filter(|_| random.percent(share)).collect();
        self.classes.push(Class::Power);
    }

    /// Two logs with brokers. Nodes flush before they acknowledge: what asynchronous ones may lose is for the other profiles.
    fn focus_on_brokers(&mut self) {
        if self.flush == Flush::Async {
            self.flush = Flush::Sync;
        }
        self.logs = 2;
        self.machine = true;
        self.segment_bytes = self.segment_bytes.max(8 << 10);
    }

    /// The swarm: each class is on or off for the whole run, so that rare combinations get runs in
    /// which nothing else drowns them.
    fn draw_classes(&self, random: &mut Random) -> Vec<Class> {
        let all: Vec<Class> =
            Class::ALL.into_iter().filter(|class| self.allows_class(*class)).collect();
        let share = random.pick(&[30, 50, 70, 100]);
        let mut drawn: Vec<Class> = all.iter().copied().filter(|_| random.percent(share)).collect();
        let disturbing = [Class::Crash, Class::Power, Class::Partition];
        if !drawn.iter().any(|class| disturbing.contains(class)) {
            let usable: Vec<_> =
                disturbing.into_iter().filter(|class| self.allows_class(*class)).collect();
            drawn.push(random.pick(&usable));
        }
        drawn
    }

    /// A copy that is gone for good while another lacks something leaves an operator's decision, not one of the cluster.
    fn allows_class(&self, class: Class) -> bool {
        class != Class::Corruption || self.flush == Flush::Sync
    }

    /// True if the fault makes sense here, and its class is on.
    pub(crate) fn allows(&self, fault: Fault) -> bool {
        let fits = match fault {
            Fault::LinkSlow => true,
            // RocketMQ's frames have no checksum: what such a link changes is stored or answered as it arrives.
            Fault::LinkCorrupt if self.kind == ProfileKind::Broker => false,
            // On a bus what was cut off is lost.
            Fault::LinkReset | Fault::LinkCorrupt | Fault::LateAnswers => !self.bus,
            Fault::BusDrop | Fault::BusDuplicate | Fault::BusReorder | Fault::BusLate => self.bus,
            Fault::MajorityRing => self.voters >= 5,
            Fault::Join => self.spares > 0,
            Fault::CheckpointCut => self.machine,
            Fault::PowerCutAll => self.together,
            Fault::LoneSurvivor => self.survivors,
            // As damage: see `allows_class`.
            Fault::WipedReturn => self.flush == Flush::Sync,
            _ => true,
        };
        fits && self.classes.contains(&fault.class())
    }

    /// All nodes, those that may join among them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.voters + self.spares
    }
}

trait IntoRange {
    fn into_range(self) -> Range<u64>;
}

impl IntoRange for (u64, u64) {
    fn into_range(self) -> Range<u64> {
        self.0..self.1
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} profile: {} voters, {} spare, {} network, {} flush, segments of {} bytes, {} clients \
             with {} appends each, classes {:?}",
            self.kind,
            self.voters,
            self.spares,
            if self.bus { "bus" } else { "stream" },
            self.flush,
            self.segment_bytes,
            self.clients,
            self.pipeline,
            self.classes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_profile_each_time_and_seeds_differ() {
        let text = |seed| format!("{:?}", Profile::new(ProfileKind::Dense, seed));
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }

    #[test]
    fn asynchronous_nodes_meet_every_fault_that_loses_pages_in_both_profiles() {
        let of = |kind, seeds| (0..seeds).map(move |seed| Profile::new(kind, seed));
        let both = of(ProfileKind::Dense, 1_000).chain(of(ProfileKind::Async, 100));
        let both: Vec<_> = both.filter(|profile| profile.flush == Flush::Async).collect();
        for fault in [
            Fault::PowerCut,
            Fault::PowerCutAll,
            Fault::PowerCutAtDiskOp,
            Fault::FailedFlush,
            Fault::DiskError,
            Fault::Replace,
        ] {
            for kind in [ProfileKind::Dense, ProfileKind::Async] {
                let met = |profile: &&Profile| profile.kind == kind && profile.allows(fault);
                let met = both.iter().filter(met).count();
                assert!(met > 10, "{fault} in {met} seeds of {kind}");
            }
        }
        let survivors = both.iter().filter(|profile| profile.allows(Fault::LoneSurvivor)).count();
        assert!(survivors > 10, "{survivors}");
        assert!(!both.iter().any(|profile| profile.allows(Fault::BitRot)));
    }

    #[test]
    fn every_fault_is_allowed_by_some_seed() {
        for (fault, name) in Fault::ALL {
            let kind = match fault {
                Fault::MajorityRing => ProfileKind::Long,
                Fault::LoneSurvivor => ProfileKind::Async,
                _ => ProfileKind::Dense,
            };
            assert!((0..500).any(|seed| Profile::new(kind, seed).allows(fault)), "{name}");
        }
    }
}

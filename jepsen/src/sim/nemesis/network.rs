//! Faults of the network: partitions of every shape, and links that misbehave.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Nemesis, Undo};
use crate::sim::cluster::Cluster;
use crate::sim::fault::Fault;
use crate::sim::node::host_of;
use crate::sim::random::Random;
use crate::sim::schedule::Planned;
use crate::sim::{clients, profile::Profile};
use crate::world::{BusFaults, Latency};

type Links = Vec<(String, String)>;

impl Nemesis {
    pub(super) fn break_network(
        &mut self,
        cluster: &mut Cluster,
        planned: Planned,
        target: u64,
        random: &mut Random,
    ) {
        let Planned { id, fault, for_ms, .. } = planned;
        let before = count(cluster, fault);
        let undo = match fault {
            Fault::LinkSlow => {
                let links = links_of(cluster, target);
                let min = random.within(10..60);
                for (from, to) in &links {
                    let latency = Latency::millis(min, min * 3);
                    cluster.network.set_latency(from, to, latency);
                }
                cluster.bit(fault.name(), 1);
                Undo::Latency(links)
            }
            Fault::LinkReset => {
                for (one, other) in links_of(cluster, target) {
                    if one < other && random.percent(70) {
                        cluster.network.reset_connections(&one, &other);
                    }
                }
                Undo::Heal(Vec::new())
            }
            Fault::LinkCorrupt => {
                let links = links_of(cluster, target);
                for (from, to) in &links {
                    cluster.network.set_corruption(from, to, 0.05);
                }
                Undo::Corruption(links)
            }
            Fault::BusDrop | Fault::BusDuplicate | Fault::BusReorder | Fault::BusLate => {
                self.bus.insert(id, fault);
                set_bus(cluster, &self.bus);
                Undo::Bus
            }
            _ => {
                let links = cut_links(cluster, fault, target, random);
                self.cut(cluster, &links);
                Undo::Heal(links)
            }
        };
        self.last(cluster, fault, for_ms, before, undo);
    }

    pub(super) fn cut(&mut self, cluster: &Cluster, links: &[(String, String)]) {
        for link in links {
            let cuts = self.cuts.entry(link.clone()).or_default();
            *cuts += 1;
            if *cuts == 1 {
                cluster.network.cut(&link.0, &link.1);
            }
        }
    }

    pub(super) fn heal_links(&mut self, cluster: &Cluster, links: &[(String, String)]) {
        for link in links {
            let cuts = self.cuts.entry(link.clone()).or_default();
            *cuts = cuts.saturating_sub(1);
            if *cuts == 0 {
                cluster.network.heal(&link.0, &link.1);
            }
        }
    }
}

/// Links that a partition cuts.
fn cut_links(cluster: &Cluster, fault: Fault, target: u64, random: &mut Random) -> Links {
    let mut nodes: Vec<u64> = cluster.machines.keys().copied().filter(|id| *id != target).collect();
    random.shuffle(&mut nodes);
    let others = nodes.len();
    let mut links = Vec::new();
    let mut both = |one: u64, other: u64| {
        links.push((host_of(one), host_of(other)));
        links.push((host_of(other), host_of(one)));
    };
    match fault {
        Fault::PartitionSingle | Fault::LateAnswers => {
            nodes.iter().for_each(|other| both(target, *other))
        }
        Fault::PartitionHalves | Fault::LeaderWithMinority => {
            // The target's side is smaller, or of two equal halves one.
            let beside =
                if fault == Fault::PartitionHalves { others / 2 } else { (others - 1) / 2 };
            let (near, far) = nodes.split_at(beside);
            for one in near.iter().chain([&target]) {
                far.iter().for_each(|other| both(*one, *other));
            }
        }
        Fault::Bridge => {
            let (near, far) = nodes.split_at(others / 2);
            for one in near {
                far.iter().for_each(|other| both(*one, *other));
            }
        }
        Fault::MajorityRing => {
            // Each sees its neighbours on a ring.
            let ring: Vec<u64> = [target].into_iter().chain(nodes.iter().copied()).collect();
            let near = (ring.len() / 2).div_ceil(2);
            for one in 0..ring.len() {
                for other in one + 1..ring.len() {
                    let apart = (other - one).min(ring.len() - (other - one));
                    if apart > near {
                        both(ring[one], ring[other]);
                    }
                }
            }
        }
        _ => {
            // One way: what the target says is not heard, or it hears nothing.
            let deaf = random.percent(50);
            let count = 1 + random.below(others as u64) as usize;
            for other in nodes.iter().take(count) {
                let (from, to) = if deaf { (*other, target) } else { (target, *other) };
                links.push((host_of(from), host_of(to)));
            }
        }
    }
    if !matches!(fault, Fault::OneWay | Fault::LateAnswers) {
        add_clients(&cluster.shared.profile, target, random, &mut links);
    }
    links
}

/// Now and then some clients see only the target's side, or only the others.
fn add_clients(profile: &Profile, target: u64, random: &mut Random, links: &mut Links) {
    for client in 1..=profile.clients {
        if random.percent(70) {
            continue;
        }
        let client = clients::host_of(client);
        links.push((host_of(target), client.clone()));
        links.push((client, host_of(target)));
    }
}

/// All links of a node with other nodes and with clients.
fn links_of(cluster: &Cluster, target: u64) -> Links {
    let nodes = cluster.machines.keys().filter(|id| **id != target).map(|id| host_of(*id));
    let clients = (1..=cluster.shared.profile.clients).map(clients::host_of);
    let target = host_of(target);
    let both = |other: String| [(target.clone(), other.clone()), (other, target.clone())];
    nodes.chain(clients).flat_map(both).collect()
}

/// A connection that goes on after it has lost frames is none of TCP: an answer to a large request is waited for up to a minute.
pub(super) fn break_what_lost_frames(cluster: &Cluster) {
    let counters = cluster.network.counters();
    if !cluster.shared.profile.bus || counters.dropped + counters.cut_off == 0 {
        return;
    }
    let nodes: Vec<String> = cluster.machines.keys().copied().map(host_of).collect();
    for (at, one) in nodes.iter().enumerate() {
        for other in &nodes[at + 1..] {
            cluster.network.reset_connections(one, other);
        }
    }
}

/// Gives links their usual latency.
pub(super) fn usual_latency(cluster: &Cluster, links: &Links) {
    let usual = &cluster.shared.profile.latency_ms;
    for (from, to) in links {
        cluster.network.set_latency(from, to, Latency::millis(usual.start, usual.end - 1));
    }
}

/// Sets the faults of the bus as the active ones say.
pub(super) fn set_bus(cluster: &Cluster, active: &BTreeMap<usize, Fault>) {
    let mut faults = BusFaults {
        shuffle: Duration::from_millis(30),
        lateness: Latency::millis(50, 1_500),
        ..BusFaults::NONE
    };
    for fault in active.values() {
        match fault {
            Fault::BusDrop => faults.drop = 0.1,
            Fault::BusDuplicate => faults.duplicate = 0.3,
            Fault::BusReorder => faults.reorder = 0.3,
            _ => faults.late = 0.1,
        }
    }
    cluster.network.set_bus_faults_everywhere(faults);
}

/// How often what a fault does has happened.
pub(super) fn count(cluster: &Cluster, fault: Fault) -> u64 {
    let counters = cluster.network.counters();
    match fault {
        Fault::LinkSlow => 0,
        Fault::LinkReset => counters.reset,
        Fault::LinkCorrupt => counters.corrupted,
        Fault::BusDrop => counters.dropped,
        Fault::BusDuplicate => counters.duplicated,
        Fault::BusReorder => counters.reordered,
        Fault::BusLate => counters.late + counters.zombies + counters.expired,
        _ => counters.held + counters.hung + counters.given_up + counters.cut_off,
    }
}

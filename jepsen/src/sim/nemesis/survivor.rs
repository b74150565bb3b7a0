//! A node that keeps what the others lose, and comes back when they have agreed on less.

use super::{Nemesis, Undo};
use crate::sim::cluster::{Cluster, Crash};
use crate::sim::fault::Fault;
use crate::sim::node::host_of;
use crate::sim::random::Random;

impl Nemesis {
    /// So many nodes lose their power that the others are no majority. They cannot ask the `survivor` while they elect one
    /// of themselves. It has shown what they lost, and hears of that leader in the end.
    pub(super) fn leave_survivor(
        &mut self,
        cluster: &mut Cluster,
        survivor: u64,
        for_ms: u64,
        random: &mut Random,
    ) {
        let mut others: Vec<u64> =
            cluster.machines.keys().copied().filter(|id| *id != survivor).collect();
        random.shuffle(&mut others);
        let too_many = cluster.machines.len().div_ceil(2) as u64;
        let count = random.within(too_many..others.len() as u64 + 1) as usize;
        let (cut, kept) = others.split_at(count);
        let mut links = Vec::new();
        for one in kept.iter().chain([&survivor]) {
            for other in cut {
                links.push((host_of(*one), host_of(*other)));
                links.push((host_of(*other), host_of(*one)));
            }
        }
        self.cut(cluster, &links);
        for id in cut {
            // Mostly all that was not flushed is gone.
            let left = random.next();
            let left = if random.percent(70) { left & !3 } else { left };
            cluster.crash(*id, Crash::Power(left), 1 + random.below(20));
        }
        let undo = Undo::Survivor { links, survivor };
        self.last(cluster, Fault::LoneSurvivor, for_ms, 0, undo);
    }

    /// The others may have a leader by now, who does not know what the survivor has shown.
    pub(super) fn return_survivor(
        &mut self,
        cluster: &Cluster,
        survivor: u64,
        links: &[(String, String)],
    ) {
        let leader = cluster.shared.first_log().and_then(|log| cluster.leader(log.id));
        if leader.is_some_and(|leader| leader != survivor) {
            cluster.bit(Fault::LoneSurvivor.name(), 1);
        }
        self.heal_links(cluster, links);
    }
}

//! Damage to what a disk holds, within a budget: never to more nodes than a quorum can do without.

use std::path::PathBuf;

use quorumlog::simulation::{Damage, SECTOR};

use super::Nemesis;
use super::members::Plan;
use crate::sim::cluster::Cluster;
use crate::sim::fault::Fault;
use crate::sim::node::host_of;
use crate::sim::random::Random;

impl Nemesis {
    /// Damages a file of a node that all others can do without, and has the node replaced later.
    pub(super) fn damage(
        &mut self,
        cluster: &mut Cluster,
        fault: Fault,
        target: u64,
        random: &mut Random,
    ) {
        if !self.may_lose(cluster, target) {
            return;
        }
        let Some((path, sectors)) = pick_file(cluster, target, random) else { return };
        let sector = random.within(sectors.clone());
        let damage = match fault {
            Fault::BitRot => Damage::FlipBit(sector * SECTOR * 8 + random.below(SECTOR * 8)),
            Fault::ZeroedSector => Damage::ZeroSector(sector),
            Fault::StaleSector => Damage::StaleSector(sector),
            _ => Damage::SwapSectors(sector, random.within(sectors)),
        };
        let machine = cluster.machine(target);
        if machine.disk.damage(&path, &damage) {
            machine.damaged = true;
            cluster.shared.auditor().note_damage(target);
            cluster.bit(fault.name(), 1);
            cluster.shared.event(&host_of(target), format!("{damage:?} in {}", path.display()));
            let now_ms = cluster.shared.now_ms();
            self.plan = Some(Plan::replace(target, now_ms + random.within(50..800)));
        }
    }
}

/// A file of which the node knows that it was flushed, and the sectors that may be hit.
///
/// The newest segment is spared: its last group counts as torn if it is bad, unless a later one shows that it
/// was flushed (docs/storage.md 4.3), so damage to it is a loss that no node can tell from a crash.
fn pick_file(
    cluster: &Cluster,
    target: u64,
    random: &mut Random,
) -> Option<(PathBuf, std::ops::Range<u64>)> {
    let contents = cluster.machines.get(&target)?.disk.durable_contents();
    let newest = |path: &PathBuf| {
        let siblings = contents.keys().filter(|other| {
            other.parent() == path.parent() && other.extension().is_some_and(|end| end == "seg")
        });
        siblings.max() == Some(path)
    };
    let mut files = Vec::new();
    for (path, image) in &contents {
        let Some(image) = image else { continue };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let sectors = image.len().div_ceil(SECTOR);
        match name {
            // One of the two copies: they lie in separate blocks.
            "VOTE" => files.push((path.clone(), if random.percent(50) { 0..1 } else { 8..9 })),
            "MANIFEST" | "NODE" => files.push((path.clone(), 0..sectors)),
            _ if name.ends_with(".ckpt") => files.push((path.clone(), 0..sectors)),
            _ if name.ends_with(".seg") && !newest(path) && sectors > 0 => {
                files.push((path.clone(), 0..sectors));
            }
            _ => {}
        }
    }
    if files.is_empty() {
        return None;
    }
    let at = random.below(files.len() as u64) as usize;
    let (path, sectors) = files.swap_remove(at);
    (!sectors.is_empty()).then_some((path, sectors))
}

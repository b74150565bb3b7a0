//! Faults of disks: what fails, is full, short, slow or stuck, and crashes between two operations.

use std::sync::atomic::Ordering;

use quorumlog::simulation::{Fault as DiskFault, FaultKind, OpKind, Ops, Rule, When};

use super::{Nemesis, Undo};
use crate::sim::cluster::{Cluster, Crash};
use crate::sim::fault::Fault;
use crate::sim::random::Random;
use crate::sim::schedule::Planned;

impl Nemesis {
    pub(super) fn break_disk(
        &mut self,
        cluster: &mut Cluster,
        planned: Planned,
        target: u64,
        random: &mut Random,
    ) {
        let Planned { fault, for_ms, .. } = planned;
        let before = count(cluster, fault, target);
        let machine = cluster.machine(target);
        let rule = |ops, nth, fault| Rule { ops, path: String::new(), when: When::Nth(nth), fault };
        let undo = match fault {
            Fault::CrashAtDiskOp | Fault::PowerCutAtDiskOp => {
                machine.disk.fail_nth_change(random.below(25), DiskFault::Halt);
                let power = fault == Fault::PowerCutAtDiskOp;
                let seed = random.next();
                machine.halts_as = Some(if power { Crash::Power(seed) } else { Crash::Process });
                Undo::Rules(target)
            }
            Fault::DiskError => {
                let ops = match random.below(3) {
                    0 => Ops::Any,
                    1 => Ops::Changes,
                    _ => Ops::Kind(random.pick(&OpKind::ALL)),
                };
                let fault = if random.percent(80) { DiskFault::Eio } else { DiskFault::NoSpace };
                machine.lies_about_space |= fault == DiskFault::NoSpace;
                machine.disk.inject(rule(ops, random.below(20), fault));
                Undo::Rules(target)
            }
            Fault::ReadError => {
                // One read, or many: a node that takes none of them amiss shows that only after some.
                let when = match random.below(2) {
                    0 => When::Nth(random.below(4)),
                    _ => When::Chance { per_million: 300_000, seed: random.next() },
                };
                let (ops, path, fault) = (Ops::Kind(OpKind::Read), String::new(), DiskFault::Eio);
                machine.disk.inject(Rule { ops, path, when, fault });
                Undo::Rules(target)
            }
            Fault::FailedFlush => {
                let seed = random.next();
                let kinds = [DiskFault::Eio, DiskFault::TornFlush { seed }];
                let ops = Ops::Kind(OpKind::Flush);
                machine.disk.inject(rule(ops, random.below(6), random.pick(&kinds)));
                Undo::Rules(target)
            }
            Fault::ShortWrite => {
                let when = When::Chance { per_million: 300_000, seed: random.next() };
                let kind = random.pick(&[OpKind::Write, OpKind::Read]);
                let (ops, path, fault) = (Ops::Kind(kind), String::new(), DiskFault::Short);
                machine.disk.inject(Rule { ops, path, when, fault });
                Undo::Rules(target)
            }
            Fault::DiskFull => {
                machine.disk.set_space(Some(random.pick(&[0, 3_000, 20_000])));
                Undo::Space(target)
            }
            Fault::SlowFlush => {
                let extra = random.within(5..60);
                machine.pace.extra_ms.fetch_add(extra, Ordering::Relaxed);
                Undo::Fast(target, extra)
            }
            _ => {
                machine.pace.stuck.fetch_add(1, Ordering::Relaxed);
                Undo::Unstick(target)
            }
        };
        self.last(cluster, fault, for_ms, before, undo);
    }
}

/// How often what a fault does has happened on this disk. Crashes are counted when they happen.
pub(super) fn count(cluster: &Cluster, fault: Fault, target: u64) -> u64 {
    let Some(machine) = cluster.machines.get(&target) else { return 0 };
    let counts = machine.disk.counts();
    match fault {
        Fault::DiskError => counts.faults(FaultKind::Eio) + counts.faults(FaultKind::NoSpace),
        Fault::ReadError => counts.faults(FaultKind::Eio),
        Fault::FailedFlush => counts.faults(FaultKind::Eio) + counts.faults(FaultKind::TornFlush),
        Fault::ShortWrite => counts.faults(FaultKind::Short),
        Fault::DiskFull => counts.faults(FaultKind::NoSpace),
        Fault::SlowFlush => machine.pace.slowed.load(Ordering::Relaxed),
        Fault::StuckFlush => machine.pace.held.load(Ordering::Relaxed),
        _ => 0,
    }
}

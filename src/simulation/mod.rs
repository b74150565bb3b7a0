//! What a simulation of whole nodes needs (feature `simulation`).
//!
//! A node touches the outside through four seams: [`Disk`] (files), [`Transport`](crate::seam::Transport)
//! (connections), [`Clock`](crate::seam::Clock) (the wall clock, random numbers) and tokio (time and tasks). Give
//! [`NodeBuilder`](crate::NodeBuilder) a disk, a transport, a clock and
//! [`writer_tasks`](crate::NodeBuilder::writer_tasks), and run it on a current-thread runtime with a paused
//! clock: then it starts no thread, and does the same each time.
//!
//! [`SimDisk`] is such a disk: it loses, tears, damages and refuses what it is told to. [`StoredLog`] and
//! [`StoredDir`] are for tests of the storage alone, and with [`real_disk`] for benchmarks of it.

mod durable;
pub mod formats;
mod stored_dir;
mod stored_log;

use std::sync::Arc;

use crate::seam::Disk;
use crate::seam::disk::RealDisk;

pub use durable::{
    DurableEntry, DurableKind, DurableLog, DurableVote, checkpoints, may_lack_records,
    may_lack_records_of,
};
pub use stored_dir::{StoredDir, inspect, verify};
pub use stored_log::{
    StoredChange, StoredEntry, StoredId, StoredKind, StoredLog, StoredLogOptions, StoredMembers,
    StoredVote, Submitted,
};

#[cfg(feature = "mutants")]
pub use crate::mutant::{Mutant, mutant_reached, select_mutant};
pub use crate::seam::disk::sim::{
    ChangePart, Contents, Counts, CrashPolicy, Damage, Fault, FaultKind, Image, Kept, Latency,
    OpKind, Operation, Ops, PendingChange, Rule, SECTOR, SimDisk, TornRest, Tracer, When,
};

/// The disk of the machine.
pub fn real_disk() -> Arc<dyn Disk> {
    RealDisk::shared()
}

//! Taking logs for whole that may have lost something.

use std::path::Path;

use crate::error::StorageError;
use crate::format::superblock::Run;
use crate::log::files::data_dir::{LOCK_NAME, SUPERBLOCK_NAME, read_superblock, write_superblock};
use crate::member::NodeId;
use crate::mutant::Mutant;
use crate::record::LogId;
use crate::seam::{Clock, Disk, LockMode};

/// Generations for each second since 1970 at which an operator accepts the loss, and the least by which that raises them. No
/// node raises its own so often: so what is accepted later is newer, also if the same copy is put back each time.
const ACCEPTED_GENERATIONS: u64 = 1 << 32;

/// What [`accept_loss`](super::accept_loss()) has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The node whose data it is.
    pub node: NodeId,
    /// Logs that may have lost something in a power cut, and are trusted now.
    pub logs: Vec<LogId>,
    /// The other members had refused this data, since newer data of the node has taken part.
    pub outdated: bool,
}

/// Takes all logs of a directory for whole that may have lost something, and its data for the newest. Durable on return.
pub(in crate::log) fn accept_loss(
    disk: &dyn Disk,
    clock: &dyn Clock,
    path: &Path,
) -> Result<AcceptedLoss, StorageError> {
    let lock_path = path.join(LOCK_NAME);
    let lock = disk.lock(&lock_path, LockMode::Exclusive);
    let lock = lock.map_err(|error| StorageError::io("lock", &lock_path, error))?;
    let _lock = lock.ok_or(StorageError::Locked { path: lock_path })?;
    let Some(mut superblock) = read_superblock(disk, path)? else {
        let detail = "this is no data directory of a node".to_owned();
        return Err(StorageError::Missing { path: path.join(SUPERBLOCK_NAME), detail });
    };
    let mut accepted = superblock.doubtful(disk.boot_id(path));
    superblock.suspects.clear();
    let outdated = superblock.outdated;
    // Newer than anything that others have heard of.
    superblock.outdated = false;
    let by_clock = (clock.now_ms() / 1000).saturating_mul(ACCEPTED_GENERATIONS);
    let raised = superblock.generation.saturating_add(ACCEPTED_GENERATIONS);
    superblock.generation = match Mutant::AcceptedOnce.is_active() {
        true => raised,
        false => raised.max(by_clock),
    };
    if superblock.run.is_none() {
        // An older build does not say how it ran: an asynchronous start would doubt all its logs.
        accepted.extend(&superblock.logs);
        superblock.run = Some(Run { clean: true, ..Run::default() });
    }
    if !superblock.doubtful(disk.boot_id(path)).is_empty() {
        // What the next start would else find out.
        superblock.run = superblock.run.map(|run| Run { clean: true, ..run });
    }
    write_superblock(disk, path, &superblock)?;
    let logs = accepted.into_iter().map(LogId).collect();
    Ok(AcceptedLoss { node: superblock.node_id, logs, outdated })
}

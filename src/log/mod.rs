//! One log on disk: the writer, the tail cache, the manifest, the vote.
//!
//! A [`Log`] is a handle. What it changes is changed in memory at once and queued for the writer,
//! which makes it durable in the order of submission. Writers of all logs share the threads of a
//! [`WriterPool`]. Any failed write or flush poisons its log: nothing is written or acknowledged
//! after it.

use std::sync::Arc;
use std::time::Duration;

use crate::format::entry::EntryId;
use crate::record::{Flush, LogId};
use crate::seam::Clock;

mod checkpoint_file;
mod checkpoints;
mod core;
mod counters;
mod damage;
mod data_dir;
#[cfg(any(test, feature = "simulation"))]
mod driven;
mod handle;
mod job;
mod memberships;
pub mod offline;
mod open;
mod pool;
mod read;
mod saver;
mod shared;
mod stable_commits;
mod state;
mod submit;
mod tail;
mod vote_file;
mod writer;
#[cfg(feature = "simulation")]
mod writer_task;

#[cfg(test)]
mod tests;

pub(crate) use crate::format::vote::Vote;
pub(crate) use checkpoint_file::{CheckpointFile, Draft};
pub(crate) use counters::WriterObserver;
pub(crate) use damage::DamageFound;
pub(crate) use data_dir::DataDir;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use driven::{Done, DrivenLog};
pub(crate) use handle::Log;
pub(crate) use memberships::StoredMembership;
pub(crate) use pool::WriterPool;
pub(crate) use saver::{Saver, Saving, Turn};
pub(crate) use stable_commits::Commits;
#[cfg(feature = "simulation")]
pub(crate) use writer_task::Pace;

/// How one log behaves.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) log_id: LogId,
    pub(crate) flush: Flush,
    pub(crate) flush_interval: Duration,
    pub(crate) segment_size: u64,
    pub(crate) tail_cache_max: u64,
    /// It may have lost what it had acknowledged, or contradicts a leader's history: of what is written about it, only
    /// what it holds itself is believed.
    pub(crate) at_stable: bool,
    /// With less free space than this, logs allocate in small steps, since they share the rest. 0: do not look.
    pub(crate) disk_reserve: u64,
    /// Stamps segments, and gives them numbers by which stale bytes are told apart.
    pub(crate) clock: Arc<dyn Clock>,
    /// Told about flushes.
    pub(crate) observer: Option<Arc<dyn WriterObserver>>,
}

/// One segment, as retention and status see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) base_index: u64,
    /// Last entry; none in an empty active segment.
    pub(crate) last: Option<EntryId>,
    pub(crate) bytes: u64,
    pub(crate) sealed: bool,
    /// Wall clock of the newest entry's write, milliseconds since 1970; for retention by age only.
    pub(crate) newest_ms: u64,
}

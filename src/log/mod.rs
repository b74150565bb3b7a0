//! One log on disk: the writer, the tail cache, the manifest, the vote.
//!
//! A [`Log`] is a handle. What it changes is changed in memory at once and queued for the writer,
//! which makes it durable in the order of submission. Writers of all logs share the threads of a
//! [`WriterPool`]. Any failed write or flush poisons its log: nothing is written or acknowledged
//! after it.
//!
//! Each room uses those above it in this list only:
//!
//! - `options`: how a log behaves;
//! - `files`: the files of a data directory and of a log, but for segments;
//! - `memory`: what a log holds in memory, which is what readers see;
//! - `writer`: makes it durable;
//! - `drive`: the queue between the two, and the threads that empty it;
//! - `open`, `handle`, `saver`, `driven`: a log as others use it;
//! - `offline`: looks at a data directory without a node.

mod drive;
#[cfg(any(test, feature = "simulation"))]
mod driven;
mod files;
mod handle;
mod memory;
pub mod offline;
mod open;
mod options;
mod saver;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use crate::format::vote::Vote;
#[cfg(feature = "simulation")]
pub(crate) use drive::Pace;
pub(crate) use drive::WriterPool;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use driven::{Done, DrivenLog};
pub(crate) use files::checkpoint_file::{CheckpointFile, Draft};
pub(crate) use files::damage::DamageFound;
pub(crate) use files::data_dir::DataDir;
pub(crate) use handle::Log;
pub(crate) use memory::memberships::StoredMembership;
pub(crate) use memory::stable_commits::Commits;
pub(crate) use memory::state::SegmentInfo;
pub(crate) use options::{LogOptions, WriterObserver};
pub(crate) use saver::{Saver, Saving, Turn};

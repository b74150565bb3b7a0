//! Consensus: the only place that names openraft.

mod admission;
mod agreement;
mod ballot;
mod barrier;
mod checkpoint_pace;
mod conflict;
mod contacts;
mod damage;
mod failing;
mod generations;
mod group;
mod hand_over;
mod heard;
mod log_store;
mod losses;
mod membership;
pub(crate) mod messages;
mod metrics;
mod moves;
mod network;
mod peer_service;
mod peers;
mod pipeline;
mod processes;
mod propose;
mod recovery;
mod responder;
mod retention;
mod runtime;
mod snapshot;
mod space;
mod stable;
mod standing;
mod state_machine;
mod status;
mod successors;
#[cfg(test)]
mod tests;
mod ticks;
mod timing;
mod trust;
mod types;
mod unfit;

pub(crate) use conflict::Conflict;
pub(crate) use failing::Cause;
pub(crate) use group::{Founding, Group, GroupSetup};
pub(crate) use peer_service::{Host, PeerService};
pub(crate) use peers::{Identity, Lane, Peers};
pub(crate) use propose::NewRecord;
#[cfg(feature = "server")]
pub(crate) use responder::AckSink;
pub(crate) use responder::{AckTarget, interrupted};
pub(crate) use space::{DiskSpace, Space};
pub(crate) use standing::tells_removal;
pub(crate) use status::RoleWatch;
pub(crate) use ticks::STEPS;

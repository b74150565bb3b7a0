//! What a log holds in memory, and what is read from there: all that readers see.

pub(in crate::log) mod counters;
pub(in crate::log) mod job;
pub(in crate::log) mod memberships;
mod read;
pub(in crate::log) mod shared;
pub(in crate::log) mod stable_commits;
pub(in crate::log) mod state;
mod tail;

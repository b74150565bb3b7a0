//! Whole clusters in simulated time: one seed is one run, with faults, and what came of it is checked.
//!
//! A seed gives a profile (how many nodes, which network, how large segments are, which classes of faults) and a
//! schedule of faults. Clients append, read and subscribe meanwhile, over the network and in the nodes'
//! processes. Each acknowledgement is audited against the durable images of the disks. Then all
//! faults end, the cluster must be well soon, and the histories go to the checker.

mod auditor;
mod batch;
mod broker;
mod clients;
mod cluster;
mod command;
mod fault;
mod heal;
mod locals;
mod lost_pages;
mod machine;
mod nemesis;
mod node;
mod older_copy;
mod picture;
mod profile;
pub(crate) mod random;
mod recovery;
mod run;
mod schedule;
mod shared;
mod shrink;
mod story;
mod summary;

pub use command::{SimArgs, run};

//! One log's broker on one node: its part in the log, what it reads there and puts there, the topics that the log has, and
//! how far they are consumed.

mod consume_offsets;
mod home;
mod index;
mod lease_clock;
mod log_broker;
pub(crate) mod metrics;
mod offsets;
mod pending_offsets;
mod read;
mod throughput;
mod topics;
mod wall_clock;

pub(crate) use log_broker::{LogBroker, Opened, Outside, Part};
pub(crate) use metrics::Undelivered;
pub(crate) use throughput::{Rates, messages};
pub(crate) use wall_clock::WallClock;

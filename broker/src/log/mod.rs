//! One log's broker on one node: its part in the log, what it reads there and puts there, the topics that the log has, and
//! how far they are consumed.

mod brokers;
mod consume_offsets;
mod home;
mod index;
mod lease_clock;
mod log_broker;
pub(crate) mod metrics;
mod pending_offsets;
mod queue_ends;
mod read;
mod replica;
mod throughput;
mod topics;
mod wall_clock;

pub(crate) use brokers::Brokers;
pub(crate) use consume_offsets::{ConsumeOffsets, Reported, wait_for};
pub(crate) use home::{DECIDE_TIMEOUT, FOLLOW_TIMEOUT};
pub(crate) use lease_clock::LeaseClock;
pub(crate) use log_broker::{LogBroker, Outside};
pub(crate) use metrics::Undelivered;
pub(crate) use pending_offsets::Key as OffsetKey;
pub(crate) use replica::{Opened, Part, Replica};
pub(crate) use throughput::{Rates, Throughput, messages};
pub(crate) use topics::Topics;
pub(crate) use wall_clock::WallClock;

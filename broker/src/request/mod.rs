//! What holds for every request: what it may ask for, how much its answer may hold, and why one is not done.

mod broker_name;
mod delay_level;
mod failure;
pub(crate) mod features;
mod listing;
mod names;
mod size;

pub(crate) use broker_name::{check_name, check_named};
pub(crate) use delay_level::{delay, level};
pub(crate) use failure::Failure;
pub(crate) use features::TRANSACTION_BITS;
pub(crate) use listing::{
    Body, LOOKED_AT_MAX, Look, Names, Pace, QueueTable, after, behind, list, quoted,
};
pub(crate) use names::{
    AUTO_CREATE_TOPIC, check_group, check_topic, dead_topic, group_of_retry, is_reserved,
    is_there_for_group, retry_topic,
};
pub(crate) use size::check_size;

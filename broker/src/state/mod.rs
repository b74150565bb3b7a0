//! What a log's records make of it: topics, queues, groups, offsets, locks. The same on every node.

mod apply;
mod arrivals;
mod command;
mod follow;
mod groups;
mod index_files;
mod keys;
mod locks;
mod lookup;
mod machine;
mod name;
#[cfg(feature = "simulation")]
mod observed;
mod offsets;
mod old_locks;
mod queue;
mod rebuild;
mod recent;
mod registry;
mod rules;
#[cfg(test)]
mod tests;
mod topic_names;
mod topics;
mod version2;
mod version3;
mod voids;

pub(super) use command::{
    Answer, Change, LockRequest, Placed, Refusal, ReportedOffset, change, deliveries, message_at,
    messages, messages_of,
};
pub(super) use follow::TOPICS_OF_RECORD;
pub(super) use keys::Sought;
pub(super) use lookup::Lost;
pub(crate) use machine::Machines;
pub(super) use machine::Shared;
#[cfg(feature = "simulation")]
pub use observed::{AppliedRecord, Observer};
pub(super) use queue::{Entry, PARTS_MAX, Queue, physical};
pub(super) use registry::{Decision, HOME_LOG, LOGS_MAX};
pub(super) use rules::Rules;
pub(super) use topic_names::{
    AUTO_CREATE_TOPIC, DEAD_PREFIX, RETRY_PREFIX, TRACE_TOPIC, is_made_on_demand, is_plain,
    is_registered, is_reserved,
};
pub(super) use topics::{
    DEAD_DELAYED_TOPIC, DELAY_TOPIC, LEVELS, State, TopicConfig, level_delay_ms,
};

//! Names of topics, and what they say of a topic.

use super::DELAY_TOPIC;
use crate::limits::TOPIC_BYTES_MAX;

pub(crate) const RETRY_PREFIX: &str = "%RETRY%";
pub(crate) const DEAD_PREFIX: &str = "%DLQ%";
/// Where clients send traces.
pub(crate) const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// What clients ask for when they want a topic to be made.
pub(crate) const AUTO_CREATE_TOPIC: &str = "TBW102";

/// True for topics that are there as soon as somebody needs them.
pub(crate) fn is_made_on_demand(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX) || topic.starts_with(DEAD_PREFIX) || topic == TRACE_TOPIC
}

/// True for topics on which the home log decides.
pub(crate) fn is_registered(topic: &str) -> bool {
    !is_made_on_demand(topic) && topic != DELAY_TOPIC
}

/// True for topics that clients may not send to.
pub(crate) fn is_reserved(topic: &str) -> bool {
    let reserved = [
        DELAY_TOPIC,
        AUTO_CREATE_TOPIC,
        "RMQ_SYS_TRANS_HALF_TOPIC",
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "SELF_TEST_TOPIC",
        "OFFSET_MOVED_EVENT",
    ];
    reserved.contains(&topic)
}

/// True for a name of the characters that RocketMQ allows.
pub(crate) fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%|_-".contains(&byte))
}

/// True for a name that the registry takes over.
pub(crate) fn is_adoptable(topic: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&topic.len())
        && is_plain(topic)
        && is_registered(topic)
        && !is_reserved(topic)
}

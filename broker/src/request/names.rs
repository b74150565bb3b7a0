//! Names of topics and groups, and those that are RocketMQ's own.

use super::failure::Failure;
use crate::limits::{GROUP_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::remoting::codes::response;
pub(crate) use crate::state::{AUTO_CREATE_TOPIC, is_reserved};
use crate::state::{DEAD_PREFIX, RETRY_PREFIX, TRACE_TOPIC, is_made_on_demand, is_plain};

/// The topic that a group's failed messages go to for another attempt.
pub(crate) fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic that a group's messages end in.
pub(crate) fn dead_topic(group: &str) -> String {
    format!("{DEAD_PREFIX}{group}")
}

/// The group whose retry topic this is.
pub(crate) fn group_of_retry(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

/// True for topics that a group may consume before they are made: its own, and the one for traces.
pub(crate) fn is_there_for_group(topic: &str, group: &str) -> bool {
    let own = topic.strip_prefix(RETRY_PREFIX).or_else(|| topic.strip_prefix(DEAD_PREFIX));
    own == Some(group) || topic == TRACE_TOPIC
}

/// Checks a topic's name.
///
/// # Errors
/// RocketMQ's code, and the reason.
pub(crate) fn check_topic(topic: &str) -> Result<(), Failure> {
    let illegal = |why: &str| Failure::refused(response::INVALID_PARAMETER, why.to_owned());
    if topic.trim().is_empty() {
        return Err(illegal("The specified topic is blank."));
    }
    if !is_plain(topic) {
        let why = format!(
            "The specified topic: {topic}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        );
        return Err(illegal(&why));
    }
    // A retry topic is as long as its group's name allows.
    let longest = if is_made_on_demand(topic) { GROUP_BYTES_MAX } else { TOPIC_BYTES_MAX };
    if topic.len() > longest {
        let why =
            format!("The specified topic: {topic}, is longer than topic max length: {longest}");
        return Err(illegal(&why));
    }
    Ok(())
}

/// Checks the name of a group of producers or consumers.
///
/// # Errors
/// As `check_topic`.
pub(crate) fn check_group(group: &str) -> Result<(), Failure> {
    let why = if group.trim().is_empty() {
        "The specified group is blank.".to_owned()
    } else if !is_plain(group) {
        format!(
            "The specified group: {group}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        )
    } else if group.len() > GROUP_BYTES_MAX {
        format!("The specified group: {group}, is longer than group max length: {GROUP_BYTES_MAX}")
    } else {
        return Ok(());
    };
    Err(Failure::refused(response::INVALID_PARAMETER, why))
}

//! The delay level that a message asks for.

use super::features::TIMER_PROPERTIES;
use crate::record::{Message, Properties, names};
use crate::state::{DELAY_TOPIC, LEVELS};

/// The level that properties ask for.
pub(crate) fn level(properties: &str) -> Option<u8> {
    let level = Properties::find(properties, names::DELAY)?.trim().parse::<i64>().ok()?;
    (level > 0).then_some(u8::try_from(level.min(LEVELS.into())).unwrap_or(LEVELS))
}

/// A message with a delay level goes to that level's queue first, and says where it is meant to go and when it came.
pub(crate) fn delay(message: &mut Message, now_ms: i64) {
    let Some(level) = level(&message.properties) else { return };
    let mut properties = Properties::parse(&message.properties);
    properties
        .set(names::REAL_TOPIC, std::mem::replace(&mut message.topic, DELAY_TOPIC.to_owned()));
    properties.set(names::REAL_QUEUE, message.queue.to_string());
    properties.set(names::DELAY, level.to_string());
    properties.set(names::ARRIVED_MS, now_ms.to_string());
    TIMER_PROPERTIES.into_iter().for_each(|name| properties.remove(name));
    message.queue = i32::from(level) - 1;
    message.properties = properties.to_text();
}

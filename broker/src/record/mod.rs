//! Messages as RocketMQ's clients decode them: the stored layout, properties, ids, batch bodies.

mod batch;
mod hash;
mod layout;
mod message_id;
mod properties;
#[cfg(test)]
mod tests;

pub(super) use batch::split as split_batch;
pub(super) use hash::java_hash;
pub(super) use layout::{Message, Outline, QUEUE_OFFSET_AT, RecordError, SPLICED_BYTES};
pub(super) use message_id::{UniqueIds, offset_id, put_hex, put_offset_id};
pub(super) use properties::{Properties, names};

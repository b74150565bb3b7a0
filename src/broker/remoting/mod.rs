//! The RocketMQ remoting protocol: frames, headers in JSON and in binary, codes.

mod binary;
pub(super) mod codes;
mod command;
mod fields;
mod frame;
mod json;
mod lenient_json;
pub(super) mod object_keys;
mod plain_json;
mod speaker;
#[cfg(test)]
mod tests;
mod waiting;

pub(super) use command::{Command, Reply};
pub(super) use fields::{Field, FieldError, Fields};
pub(super) use frame::{FrameError, read_frame, write_queued};
pub(super) use lenient_json::JsonError;
pub(super) use speaker::Speaker;
pub(super) use waiting::Waiting;

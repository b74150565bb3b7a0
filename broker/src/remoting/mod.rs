//! The RocketMQ remoting protocol: frames, headers in JSON and in binary, codes.

mod binary;
mod budget;
pub(super) mod codes;
mod command;
mod fields;
mod frame;
mod json;
mod lenient_json;
pub(super) mod object_keys;
mod patience;
mod plain_json;
mod reader;
mod speaker;
#[cfg(test)]
mod tests;
mod waiting;
mod writer;

pub(super) use budget::{Budget, Room, Share};
pub(super) use command::{Command, Encoding, Reply};
pub(super) use fields::{Field, FieldError, Fields};
pub(super) use frame::{FrameError, read_frame};
pub(super) use lenient_json::JsonError;
pub(super) use patience::Activity;
pub(super) use reader::FrameReader;
pub(super) use speaker::Speaker;
pub(super) use waiting::Waiting;
pub(super) use writer::{Account, Queued, cost_of, write_queued};

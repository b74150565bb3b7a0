//! Connections: how they are taken, what they may hold, and how requests on them are answered or passed on. What is asked
//! for is up to a [`Service`].

mod connection;
mod link;
mod listener;
mod long_answers;
mod pending_request;
mod places;
mod pull_again;
mod relay;
pub(crate) mod vip;
mod way;

pub(crate) use connection::{ANSWER_BYTES_MAX, Budgets, Connection};
pub(crate) use link::Link;
pub(crate) use listener::{Bounds, Service, addr_of, listen};
pub(crate) use long_answers::{LongAnswers, room};
pub(crate) use pending_request::PendingRequest;
pub(crate) use places::Places;
pub(crate) use pull_again::{bytes_to_pull_again, is_pull};
pub(crate) use relay::{Deadlines, Leader, RelayError};
pub(crate) use way::Way;

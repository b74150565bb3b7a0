//! Requests: who does what is asked, and one file for each kind of request.

mod clients;
mod consumed;
mod dispatch;
mod groups;
mod locks;
mod offsets;
mod pull;
mod query;
mod reset;
mod routes;
mod runtime_info;
mod send;
mod table;
mod topics;

pub(crate) use routes::NameServer;

//! Requests: who does what is asked, and one file for each kind of request.

mod clients;
mod dispatch;
mod groups;
mod locks;
mod pull;
mod query;
mod reset;
mod routes;
mod runtime_info;
mod send;
mod send_back;
mod send_status;

pub(crate) use routes::Brokers;

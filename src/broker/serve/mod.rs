//! Connections, and what is done for them.

mod announce;
mod clients;
mod connection;
mod consume_offsets;
mod delay;
mod dispatch;
mod failure;
mod groups;
mod home;
mod housekeeping;
mod index;
mod listener;
mod locks;
mod log_broker;
mod metrics;
mod names;
mod offsets;
mod open;
mod pending_offsets;
mod pull;
mod query;
mod read;
mod relay;
mod reset;
mod routes;
mod runtime_info;
mod send;
mod send_back;
mod send_status;
mod settings;
mod throughput;
mod topics;

pub use open::Broker;
pub use settings::BrokerConfig;

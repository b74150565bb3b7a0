//! Connections, and what is done for them.

pub(crate) mod announce;
pub(crate) mod client_requests;
pub(crate) mod consume_offsets;
pub(crate) mod delay;
pub(crate) mod dispatch;
pub(crate) mod groups;
pub(crate) mod home;
pub(crate) mod housekeeping;
pub(crate) mod index;
pub(crate) mod locks;
pub(crate) mod log_broker;
pub(crate) mod metrics;
pub(crate) mod offsets;
pub(crate) mod open;
pub(crate) mod pending_offsets;
pub(crate) mod pull;
pub(crate) mod query;
pub(crate) mod read;
pub(crate) mod reset;
#[cfg(test)]
pub(crate) mod rewound;
pub(crate) mod routes;
pub(crate) mod runtime_info;
pub(crate) mod send;
pub(crate) mod send_back;
pub(crate) mod send_status;
pub(crate) mod sightings;
pub(crate) mod throughput;
pub(crate) mod topics;
pub(crate) mod wall_clock;

pub use open::{Broker, BrokerPorts, OpenBrokerError};

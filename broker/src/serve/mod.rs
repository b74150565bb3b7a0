//! Connections, and what is done for them.

pub(crate) mod client_requests;
pub(crate) mod dispatch;
pub(crate) mod groups;
pub(crate) mod locks;
pub(crate) mod open;
pub(crate) mod pull;
pub(crate) mod query;
pub(crate) mod reset;
#[cfg(test)]
pub(crate) mod rewound;
pub(crate) mod routes;
pub(crate) mod runtime_info;
pub(crate) mod send;
pub(crate) mod send_back;
pub(crate) mod send_status;

pub use open::{Broker, BrokerPorts, OpenBrokerError};

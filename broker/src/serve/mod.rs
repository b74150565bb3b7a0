//! Connections, and what is done for them.

pub(crate) mod open;
#[cfg(test)]
pub(crate) mod rewound;

pub use open::{Broker, BrokerPorts, OpenBrokerError};

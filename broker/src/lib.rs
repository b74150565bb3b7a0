//! Serve programs that were written for RocketMQ, unchanged.
//!
//! A node's broker speaks RocketMQ's remoting protocol: to clients it is a name server, and for each of its logs
//! a broker of the log's name. Whatever must survive is in the log's state machine; connections,
//! subscriptions and waiting pulls are not, and come back with the clients.
//!
//! ```no_run
//! use quorumlog::{Config, Node};
//! use quorumlog_broker::{Broker, BrokerConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new(1, "/var/lib/orders").with_listen("127.0.0.1:7000");
//! let broker = Broker::open(BrokerConfig::default(), Node::builder(config)).await?;
//! // Once, and on one of the founders: here the cluster has a single node.
//! broker.node().bootstrap([broker.node().member()]).await?;
//! println!("clients come to {:?}", broker.name_server());
//! # Ok(())
//! # }
//! ```

mod clients;
#[cfg(any(test, feature = "simulation"))]
pub mod fuzz;
#[cfg(test)]
mod golden;
mod handle;
mod limits;
mod log;
#[cfg_attr(not(feature = "mutants"), allow(unreachable_pub, reason = "public with the feature"))]
#[doc(hidden)]
pub mod mutant;
mod net;
mod open;
mod record;
mod remoting;
mod request;
mod settings;
mod state;
mod tasks;
mod tools;

/// What a simulation of nodes with brokers needs.
#[cfg(feature = "simulation")]
pub mod simulation {
    pub use crate::state::{AppliedRecord, Observer};
}

pub use open::{Broker, BrokerPorts, OpenBrokerError};
pub use settings::BrokerConfig;
pub use tools::{
    BrokerClient, GroupAdmin, GroupInfo, GroupMemberInfo, Pulled, QueueLag, QueueReset, ResetTo,
    SendError, Sent, TopicAdmin, TopicInfo, is_outcome_unknown,
};

/// How the names of a broker's logs begin; the log's name is the broker's.
const LOG_PREFIX: &str = "broker-";

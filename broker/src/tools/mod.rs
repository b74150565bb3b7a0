//! What tools use: a client of a running cluster's name servers and brokers, and one that puts load on a broker.

mod ask;
mod client;
mod groups;
mod topics;

pub use ask::is_outcome_unknown;
pub use client::{BrokerClient, Pulled, SendError, Sent};
pub use groups::{GroupAdmin, GroupInfo, GroupMemberInfo, QueueLag, QueueReset, ResetTo};
pub use topics::{TopicAdmin, TopicInfo};

//! For tools: a client of a running cluster's name servers and brokers.

mod ask;
mod groups;
mod topics;

pub use ask::is_outcome_unknown;
pub use groups::{GroupAdmin, GroupInfo, GroupMemberInfo, QueueLag, QueueReset, ResetTo};
pub use topics::{TopicAdmin, TopicInfo};

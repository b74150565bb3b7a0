#![doc = include_str!("../README.md")]
#![forbid(non_ascii_idents)]

#[cfg(feature = "client")]
pub mod client;
mod config;
mod counted;
mod error;
mod format;
pub mod lines;
mod log;
mod member;
#[doc(hidden)]
pub mod mutant;
mod node;
pub mod panics;
mod problem;
mod progress;
mod raft;
mod record;
pub mod seam;
mod segment;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod state_machine;
mod watermarks;
mod wire;

pub use config::{ByteCount, Config, Limits, RaftConfig, Retention, StorageConfig};
pub use error::{
    AdminError, AppendError, ConfigError, NameError, OpenError, Outcome, ReadError, StorageError,
    with_sources,
};
pub use format::codec;
pub use log::offline;
pub use member::{Member, MemberStatus, NodeId, Role, Status};
pub use node::{
    Applied, AppliedTicket, ClusterAdmin, CommitLog, LedElsewhere, LogAdmin, LogInfo, Node,
    NodeBuilder, StateDir, StateMachineFactory, StatusWatch, Subscription, Ticket,
};
pub use panics::log_panics;
pub use problem::{NodeStatus, Problem, ProblemKind};
pub use progress::Progress;
pub use record::{
    AppendOptions, Appended, Flush, Index, LOG_NAME_BYTES_MAX, LogId, LogName, Priority, Record,
    Start, Term,
};
pub use state_machine::{ApplyError, FlushFiles, StateMachine};
pub use watermarks::Watermarks;

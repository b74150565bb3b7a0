//! A durable, append-only commit log, replicated by Raft, to embed in a program.
//!
//! A [`Node`] is one member of a cluster. It holds a replica of each log of the cluster: of the system log, which lists
//! the members and the logs, and of those that you create. A [`CommitLog`] is a handle to one log. An append is
//! acknowledged once a majority of the voters holds it; readers see it then, and not before.
//!
//! ```
//! use quorumlog::{Config, LogName, Node};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let data = tempfile::tempdir()?; // or a directory that stays
//! let node = Node::open(Config::new(1, data.path()).with_listen("127.0.0.1:0")).await?;
//! node.bootstrap([node.member()]).await?; // once in a cluster's life, with all first voters
//! let log = node.create_log(&LogName::new("orders")?).await?;
//! let appended = log.append("one coffee").await?;
//! assert_eq!(log.read(appended.index, 1 << 20).await?[0].payload, "one coffee");
//! node.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | you want to | look at |
//! |---|---|
//! | open a node, set its limits, give its logs state machines | [`Node`], [`NodeBuilder`], [`Config`] |
//! | append | [`CommitLog::append`], [`CommitLog::submit`], [`CommitLog::append_batch`], [`AppendOptions`] |
//! | read, follow, read what is linearizable | [`CommitLog::read`], [`CommitLog::subscribe`], [`CommitLog::read_barrier`] |
//! | build something on a log | [`StateMachine`], [`CommitLog::propose`] |
//! | change members, move leadership, trim | [`ClusterAdmin`], [`LogAdmin`] |
//! | know what goes on | [`NodeStatus`], [`Status`], [`Watermarks`], [`Problem`] |
//! | use a cluster from another process | `client`, and on the nodes `server` (features of these names) |
//! | look at a data directory without a node | [`offline`] |
//! | run nodes on other disks, networks or clocks | [`seam`]; `simulation` (feature) runs whole nodes in simulated time |
//!
//! # Errors
//!
//! Each error of an append tells its [`Outcome`]: `NotAppended` means that nothing of it will ever be in the log, and
//! `Unknown` that it may be. Limits are checked before anything is allocated or proposed.
//!
//! # Durability
//!
//! With [`Flush::Sync`], the default, an acknowledged record is on the disks of a majority. With [`Flush::Async`] it is in
//! their page caches, and a power cut of too many nodes at once may lose what was acknowledged just before. You can ask for
//! a flush with a single append: [`AppendOptions::sync`].
#![forbid(non_ascii_idents)]

/// So that the code in it is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
pub mod repeated;
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
    AdminError, AppendError, ConfigError, NameError, OpenError, Outcome, Oversized, ReadError,
    StorageError, with_sources,
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

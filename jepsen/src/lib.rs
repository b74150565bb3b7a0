//! Histories of concurrent clients of a replicated log, and the checker of what they must satisfy.
//!
//! A test tells a [`Recorder`] what its clients ask and are told, what nodes say about themselves, what is done
//! to them, and what they hold in the end. The [`History`] that comes of it goes to [`check`], which judges it by
//! ten properties, [`Check::C1`] to [`Check::C10`], in O(n log n). Histories are stored as JSON lines, and
//! exchanged with other checkers as EDN in the form of Jepsen's.

mod checker;
mod cluster;
mod edn;
mod history;
#[cfg(feature = "simulation")]
pub mod models;
#[cfg(feature = "simulation")]
pub mod mutants;
mod recorder;
mod report;
#[cfg(feature = "simulation")]
pub mod sim;
#[cfg(feature = "simulation")]
pub mod storage;
#[cfg(feature = "simulation")]
pub mod world;

pub use checker::check;
pub use cluster::{
    Entry, EntryKind, Fault, FaultCount, Leader, Liveness, Loss, Observation, Replica,
    Requirements, Trim, Vote, value_of,
};
pub use edn::{from_edn, to_edn};
pub use history::{Action, History, HistoryError, Operation, Outcome};
pub use recorder::{OperationId, Recorder};
pub use report::{Anomaly, Check, Finding, Report, Verdict, Violation};

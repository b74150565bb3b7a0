//! Histories of concurrent clients, and checkers of what they must satisfy.
//!
//! A test records what its clients asked and were told, a [`History`], and hands it to a [`Checker`].
//! Histories are stored as JSON lines and exchanged with other checkers as EDN.

mod append_log;
mod checker;
mod edn;
mod history;

pub use append_log::AppendLog;
pub use checker::{Anomaly, Checker, RequireFaults, Verdict, Violation};
pub use edn::{from_edn, to_edn};
pub use history::{Action, History, HistoryError, Operation, Outcome};

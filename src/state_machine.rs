//! The hook for programs that build a state from the committed records.

use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::record::{Index, Record};

/// Why a state machine cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// This build does not know what a record or a checkpoint means. To pass over it would leave this node with another
    /// state than the nodes that know.
    #[error("written by a newer build; upgrade this node: {detail}")]
    NewerBuild {
        /// What was not understood, and where.
        detail: String,
    },
}

/// Makes durable what a checkpoint names; see [`StateMachine::flush_files`].
pub type FlushFiles = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A program's state, built from the committed records of one log in their order.
///
/// Every node that holds the log feeds its own copy, so `apply` must give the same result for the
/// same records everywhere: no clock, no randomness, no input but the record.
///
/// Calls come one at a time, from a task of the node's runtime. `apply` should not block for long:
/// while it runs, nothing else of this log is applied, though appends still commit.
pub trait StateMachine: Send + 'static {
    /// Takes the next committed record. What it returns reaches the caller of
    /// [`CommitLog::propose`](crate::CommitLog::propose) on the leader, and nobody elsewhere.
    ///
    /// # Errors
    /// The log stops on this node, says why in its status, and takes no checkpoint of what it has: after an upgrade the
    /// record is applied. Refuse nothing else in this way, since a restart meets the same record.
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError>;

    /// True if clients may append to the log over TCP. Not if they could append what `apply` fails on.
    fn takes_client_appends(&self) -> bool {
        true
    }

    /// Writes the whole state, of any size. Called between two records, at segment boundaries and before
    /// retention drops records that the state was built from. The first 8 MiB are kept in memory and written to the disk while
    /// records are applied; the rest is written at once. One checkpoint is saved at a time.
    ///
    /// # Errors
    /// The checkpoint is given up, and tried again at the next boundary. A full disk is one such error.
    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()>;

    /// How to make durable the files that the checkpoint names, for a state machine that keeps some. Asked for right after
    /// [`checkpoint`](Self::checkpoint); called on another thread while records are applied, and only when it has
    /// succeeded does the checkpoint count.
    ///
    /// # Errors
    /// Those of the function: the checkpoint is given up, and tried again at the next boundary.
    fn flush_files(&self) -> FlushFiles {
        Box::new(|| Ok(()))
    }

    /// The first record that the program still has to read from the log. A broker, for example, keeps a message there that
    /// is not due yet. Retention keeps that record and what follows, within
    /// [`Retention::needed_max`](crate::Retention::needed_max); a trim that somebody asks for does not. None: it needs none.
    ///
    /// Asked before retention drops records. It must follow from the records that were applied, as the state does.
    fn needs_from(&self) -> Option<Index> {
        None
    }

    /// Replaces the state by one that `checkpoint` wrote, on this node or on another.
    ///
    /// # Errors
    /// The log stops on this node and says why in its status.
    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()>;
}

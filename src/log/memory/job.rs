//! What waits for the writer of one log, in the order of submission.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::StorageError;
use crate::format::entry::{Entry, EntryId};
use crate::format::vote::Vote;

use super::memberships::StoredMembership;

/// Called once, by whoever drives the writer, strictly in submission order. Must not block or call the log.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), Arc<StorageError>>) + Send>;

/// Bytes of entries that whoever appends may write into the page cache itself: more take longer than a thread takes to
/// wake up.
const AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// One thing to do.
pub(in crate::log) enum Job {
    /// Put entries at the tail.
    Append { entries: Vec<Entry>, done: Completion },
    /// Anything else.
    Control { control: Control, done: Completion },
}

/// Everything but an append. What it drops has been dropped from memory already.
#[derive(Debug)]
pub(in crate::log) enum Control {
    SaveVote(Vote),
    Truncate {
        last: Option<EntryId>,
        epoch: u64,
    },
    Purge {
        upto: EntryId,
        /// The boundary lies beyond the tail.
        beyond: bool,
        epoch: u64,
    },
    Install {
        upto: EntryId,
        membership: Option<StoredMembership>,
        /// The log holds the entry `upto`.
        held: bool,
        epoch: u64,
    },
    /// Make durable what was submitted before.
    Flush,
    Close,
    Destroy,
}

impl Job {
    pub(in crate::log) fn saves_vote(&self) -> bool {
        matches!(self, Self::Control { control: Control::SaveVote(_), .. })
    }

    /// True for an append of at most [`AT_ONCE_BYTES_MAX`] that asks for no flush of its own.
    pub(in crate::log) fn is_small_async_append(&self) -> bool {
        let Self::Append { entries, .. } = self else { return false };
        let bytes: usize = entries.iter().map(Entry::encoded_len).sum();
        bytes <= AT_ONCE_BYTES_MAX && !entries.iter().any(Entry::is_flushed_first)
    }

    /// Takes the job back undone.
    pub(in crate::log) fn fail(self, error: &Arc<StorageError>) {
        match self {
            Self::Append { done, .. } | Self::Control { done, .. } => done(Err(Arc::clone(error))),
        }
    }
}

/// A completion to wait for.
pub(in crate::log) fn waiter() -> (Completion, oneshot::Receiver<Result<(), Arc<StorageError>>>) {
    let (sender, receiver) = oneshot::channel();
    // Who waited may have given up; the job is done all the same.
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

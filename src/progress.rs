//! How far an append has come that is on its way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::record::{Index, Term};

/// How far one append has come on the leader, to be asked while it is on its way, or when it was given up on.
/// Clones are about the same append. Use a new one for each.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    place: OnceLock<(Index, Term)>,
    flushed: AtomicBool,
}

impl Progress {
    /// Of an append that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Index and term under which the leader has put the record at the end of its log; none if it has not, or not yet.
    /// If the record is committed, it is there. Until then another leader may put another one there.
    pub fn appended(&self) -> Option<(Index, Term)> {
        self.0.place.get().copied()
    }

    /// True once the leader itself holds the record as the append asked: flushed to its disk, or with
    /// [`Flush::Async`](crate::Flush::Async) written. Whether others hold it, this does not say.
    pub fn is_flushed(&self) -> bool {
        self.0.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn set_appended(&self, index: Index, term: Term) {
        // An append that was refused and tried again has no place from before.
        let _ = self.0.place.set((index, term));
    }

    pub(crate) fn set_flushed(&self) {
        self.0.flushed.store(true, Ordering::Release);
    }
}

/// The same append.
impl PartialEq for Progress {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Progress {}

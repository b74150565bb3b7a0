//! In which term whatever is committed is stable.
//!
//! Where all flush before they acknowledge, nobody counts what a majority has flushed: it is what a majority has. The
//! log then notes it with each commit, which it takes its lock for anyway, and an append costs nothing for it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mutant::Mutant;

/// What is known of the commits of one term. What is said later counts, and each only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    /// Its leader has not said yet: those of earlier terms do not count any more.
    Unknown,
    /// They are stable at once.
    Stable,
    /// They are not, or not any more.
    Unflushed,
}

/// See the module. Terms and what is known of them, in one number.
#[derive(Debug, Default)]
pub(in crate::log) struct StableCommits(AtomicU64);

impl StableCommits {
    /// Notes what is known of the commits of a term. True if this is news.
    pub(in crate::log) fn note(&self, term: u64, commits: Commits) -> bool {
        let told = number(term, commits);
        if Mutant::StableAgainAfterDoubt.is_active() {
            return self.0.swap(told, Ordering::AcqRel) != told;
        }
        told > self.0.load(Ordering::Relaxed) && told > self.0.fetch_max(told, Ordering::AcqRel)
    }

    /// True if an entry of `term` is stable once it is committed.
    pub(in crate::log) fn are_of(&self, term: u64) -> bool {
        self.0.load(Ordering::Acquire) == number(term, Commits::Stable)
    }
}

fn number(term: u64, commits: Commits) -> u64 {
    term.min(u64::MAX / 4) * 4 + commits as u64
}

#[cfg(test)]
mod tests {
    use super::Commits::{Stable, Unflushed, Unknown};
    use super::*;

    #[test]
    fn commits_of_the_newest_term_are_stable_until_some_are_not() {
        let commits = StableCommits::default();
        assert!(!commits.are_of(0));
        assert!(commits.note(2, Stable));
        assert!(!commits.note(2, Stable), "it was said before");
        assert!(commits.are_of(2) && !commits.are_of(1) && !commits.are_of(3));
        assert!(commits.note(2, Unflushed));
        assert!(!commits.note(2, Stable), "a request that was overtaken");
        assert!(!commits.are_of(2));
        assert!(commits.note(3, Stable) && commits.note(4, Unknown));
        assert!(
            !commits.are_of(3),
            "the next leader may commit what its predecessor had not flushed"
        );
        assert!(!commits.note(3, Stable) && commits.note(4, Stable));
        assert!(commits.are_of(4));
        assert!(commits.note(u64::MAX, Stable) && !commits.note(u64::MAX - 1, Stable));
    }
}

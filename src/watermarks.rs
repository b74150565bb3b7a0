//! The positions that bound one log.

use std::ops::Range;

/// The three positions of one log on one node, half open: `begin <= committed <= end`.
///
/// Positions are [`Index`](crate::Index) values and count up; they are not dense, since Raft's own
/// blank and membership entries take some of them, which readers never see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Watermarks {
    /// The first index that this node still holds. Everything below was trimmed by retention.
    pub begin: u64,
    /// One past the last index that readers may see: all below is held by a majority of voters.
    pub committed: u64,
    /// One past the last index in this node's log. What lies in `committed..end` may yet be
    /// replaced by another leader's entries.
    pub end: u64,
}

impl Watermarks {
    /// Invariant I1: `begin <= committed <= end`.
    ///
    /// A log that was just told of a snapshot boundary beyond its tail has all three at the boundary.
    pub(crate) fn new(begin: u64, committed: u64, end: u64) -> Self {
        assert!(begin <= committed, "I1: begin {begin} > committed {committed}");
        assert!(committed <= end, "I1: committed {committed} > end {end}");
        Self { begin, committed, end }
    }

    /// The indexes that a reader may ask for.
    pub fn readable(&self) -> Range<u64> {
        self.begin..self.committed
    }
}

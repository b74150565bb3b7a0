//! The rules of the protocol, each of which a search can leave out.
//!
//! A node is *suspect* if it may have lost what it had acknowledged. The numbers (AR1 to AR11) are
//! those of the protocol's rules.

use super::bounds::Bounds;

/// Whose grants elect a candidate (AR5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Election {
    /// A majority of trusted nodes; or any majority if the suspects among its grants prove that no
    /// majority of trusted nodes is left.
    ProvenBySuspects,
    /// A majority of trusted nodes and nothing else.
    TrustedOnly,
    /// Any majority, as in plain Raft.
    AnyMajority,
}

/// What a suspect must hold before it is trusted again (AR6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrustedAt {
    /// All that the leader held when it was asked.
    EndOfLeader,
    /// What the leader had committed.
    CommittedOfLeader,
    /// The first append that it accepts, wherever that ends.
    FirstAppend,
}

/// The rules of the protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// AR1: a power cut makes a node suspect.
    pub(super) cut_makes_suspect: bool,
    /// AR1: the mark survives the process.
    pub(super) mark_is_durable: bool,
    /// AR2: counting makes only entries of the leader's own term stable (Raft paper, section 5.4.2).
    pub(super) stable_of_own_term: bool,
    /// AR3: after a loss of pages, what is stable is what counts as committed.
    pub(super) restarts_at_stable: bool,
    pub(super) election: Election,
    pub(super) trusted_at: TrustedAt,
    /// AR6: a position counts only if its term is no older than the vote of the node that asked.
    pub(super) position_is_current: bool,
    /// AR6: a position counts only for the process that asked for it.
    pub(super) position_is_of_this_start: bool,
    /// AR8 and AR9: what contradicts a leader above stable is rewound, not taken for the same.
    pub(super) compares_below_committed: bool,
    /// AR11: every node flushes a Sync entry before it answers.
    pub(super) sync_is_flushed_everywhere: bool,
}

impl Rules {
    /// All of them.
    pub(crate) const ALL: Self = Self {
        cut_makes_suspect: true,
        mark_is_durable: true,
        stable_of_own_term: true,
        restarts_at_stable: true,
        election: Election::ProvenBySuspects,
        trusted_at: TrustedAt::EndOfLeader,
        position_is_current: true,
        position_is_of_this_start: true,
        compares_below_committed: true,
        sync_is_flushed_everywhere: true,
    };

    /// Raft as it is, on logs that are flushed later.
    pub(crate) const NONE: Self = Self {
        cut_makes_suspect: false,
        restarts_at_stable: false,
        compares_below_committed: false,
        ..Self::ALL
    };

    /// All but one.
    pub(crate) fn without(knockout: Knockout) -> Self {
        let mut rules = Self::ALL;
        match knockout {
            Knockout::SuspectGrantsCount => rules.election = Election::AnyMajority,
            Knockout::NoElectionBySuspects => rules.election = Election::TrustedOnly,
            Knockout::TrustedAtFirstAppend => rules.trusted_at = TrustedAt::FirstAppend,
            Knockout::TrustedAtCommitted => rules.trusted_at = TrustedAt::CommittedOfLeader,
            Knockout::StalePositionBelieved => rules.position_is_of_this_start = false,
            Knockout::OldPositionBelieved => rules.position_is_current = false,
            Knockout::MarkVolatile => rules.mark_is_durable = false,
            Knockout::CommittedByIndex => rules.restarts_at_stable = false,
            Knockout::NothingComparedBelowCommitted => rules.compares_below_committed = false,
            Knockout::SyncFlushedByLeaderOnly => rules.sync_is_flushed_everywhere = false,
            Knockout::StableOfOlderTerms => rules.stable_of_own_term = false,
        }
        rules
    }
}

/// A rule that is left out. A search must find that something is lost without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Knockout {
    /// AR5: a node that lost its tail votes as if it had not.
    SuspectGrantsCount,
    /// AR5: the grants of suspects never count, so too many of them elect nobody.
    NoElectionBySuspects,
    /// AR6: a suspect is trusted at the first append that it accepts.
    TrustedAtFirstAppend,
    /// AR6: a suspect is trusted once it holds what the leader has committed.
    TrustedAtCommitted,
    /// AR6: a position that an earlier process asked for counts.
    StalePositionBelieved,
    /// AR6: a position of an older leader counts.
    OldPositionBelieved,
    /// AR1: the mark of a suspect is lost with its process.
    MarkVolatile,
    /// AR3: an index found on disk is believed to be committed.
    CommittedByIndex,
    /// AR8: whatever lies below committed is taken to be the leader's.
    NothingComparedBelowCommitted,
    /// AR11: only the leader flushes a Sync entry before it answers.
    SyncFlushedByLeaderOnly,
    /// AR2: entries of older terms become stable by counting.
    StableOfOlderTerms,
}

impl Knockout {
    /// The bounds within which every state has to be searched to find it; none if random walks do.
    pub(crate) fn bounds(self) -> Option<Bounds> {
        let narrow = Bounds { crashes: 1, ..Bounds::SMALL };
        (self == Self::StableOfOlderTerms).then_some(narrow)
    }
}

//! How far a search goes.

/// Most nodes of a cluster.
pub(super) const NODES_MAX: usize = 5;
/// Most entries of a log.
pub(super) const ENTRIES_MAX: usize = 8;

/// How far a search goes: what may happen, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// At most 5.
    pub(crate) nodes: u8,
    pub(crate) terms: u8,
    /// Entries of one log; at most 8.
    pub(crate) entries: u8,
    /// Entries that leaders append, over all.
    pub(crate) appends: u8,
    pub(crate) power_cuts: u8,
    pub(crate) crashes: u8,
    /// Answers under way at once.
    pub(crate) answers: usize,
    /// Whether callers also append with `Flush::Sync`.
    pub(crate) sync: bool,
}

impl Bounds {
    /// Three nodes, two power cuts and one entry in a log: small enough for every state.
    pub(crate) const SMALL: Self = Self {
        nodes: 3,
        terms: 3,
        entries: 1,
        appends: 2,
        power_cuts: 2,
        crashes: 0,
        answers: 1,
        sync: true,
    };

    /// More than can be searched to the end. Random walks go through it.
    pub(crate) const WIDE: Self = Self {
        nodes: 3,
        terms: 7,
        entries: 6,
        appends: 9,
        power_cuts: 3,
        crashes: 2,
        answers: 6,
        sync: true,
    };
}

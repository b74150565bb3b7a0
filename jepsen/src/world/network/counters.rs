//! How often what happened: a fault that never bit has proved nothing.

/// How often what happened on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NetworkCounters {
    /// Connections made.
    pub connected: u64,
    /// Connections that nobody listened for.
    pub refused: u64,
    /// Connections that ended by a reset, for whatever cause.
    pub reset: u64,
    /// Pieces that arrived: frames on a bus, writes on a stream.
    pub delivered: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Pieces that were held back at a cut.
    pub held: u64,
    /// Connections that were not made at once since a link was cut or a host was off.
    pub hung: u64,
    /// Connections given up since a cut lasted too long.
    pub given_up: u64,
    /// Bytes that were changed under way.
    pub corrupted: u64,
    /// Pieces that a slow link kept waiting.
    pub slowed: u64,
    /// Frames that a cut swallowed (bus).
    pub cut_off: u64,
    /// Frames dropped (bus).
    pub dropped: u64,
    /// Frames delivered twice (bus).
    pub duplicated: u64,
    /// Frames that were slowed down for others to overtake them (bus).
    pub reordered: u64,
    /// Frames that came very late on their own connection (bus).
    pub late: u64,
    /// Requests that came on a later connection than their own (bus).
    pub zombies: u64,
    /// Late frames that found no connection any more (bus).
    pub expired: u64,
}

impl NetworkCounters {
    /// All counters by name.
    pub fn named(&self) -> [(&'static str, u64); 17] {
        [
            ("connected", self.connected),
            ("refused", self.refused),
            ("reset", self.reset),
            ("delivered", self.delivered),
            ("bytes", self.bytes),
            ("held", self.held),
            ("hung", self.hung),
            ("given_up", self.given_up),
            ("corrupted", self.corrupted),
            ("slowed", self.slowed),
            ("cut_off", self.cut_off),
            ("dropped", self.dropped),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("late", self.late),
            ("zombies", self.zombies),
            ("expired", self.expired),
        ]
    }
}

//! Deliberate bugs of the binary, to test the tests (feature `mutants`). See the library's.

quorumlog::mutants! {
    above quorumlog_broker::mutant::Mutant;

    /// A connection that has to go is not looked at once more.
    NoLastLook,
    /// Any number of connections may wait at the door.
    UndecidedUnbounded,
    /// The first line of a request is enough to answer it.
    HalfRequestDecides,
}

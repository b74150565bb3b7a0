//! Bugs in how the binary answers over HTTP.

use super::{Expected::Test, Row};

const FLOOD: &str = "http::door::tests::a_check_is_answered_in_a_flood_of_connections_that_bring_nothing_or_half_of_a_request";

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "H1",
        name: "NoLastLook",
        breaks: "a health check that waits in a flood of connections ends without an answer",
        place: "cli/src/http/door.rs",
        rule: "10, health",
        expected: Test("cli", FLOOD),
    },
    Row {
        id: "H2",
        name: "UndecidedUnbounded",
        breaks: "any number of connections that bring nothing are held",
        place: "cli/src/http/door.rs",
        rule: "10, health",
        expected: Test("cli", FLOOD),
    },
    Row {
        id: "H3",
        name: "HalfRequestDecides",
        breaks: "a health check is answered before all of it was read, and its answer may be lost",
        place: "cli/src/http/door.rs",
        rule: "10, health",
        expected: Test("cli", "http::door::tests::the_first_bytes_decide_once_there_are_enough"),
    },
];

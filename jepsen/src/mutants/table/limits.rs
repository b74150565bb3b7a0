//! Bugs in how the broker bounds what a request may cost, and in who gets an answer.

use super::Expected::Test;
use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "L1",
        name: "SupersededOffsetUnanswered",
        breaks: "an awaited consumed offset that a newer one replaced is never answered",
        place: "broker/src/log/pending_offsets.rs",
        rule: "17, consumed offsets",
        expected: Test(
            "broker-lib",
            "log::pending_offsets::tests::everybody_who_waits_is_told_the_truth",
        ),
    },
    Row {
        id: "L2",
        name: "OffsetRecordUnbounded",
        breaks: "a record takes all consumed offsets that wait, whatever their size",
        place: "broker/src/log/pending_offsets.rs",
        rule: "17, limits",
        expected: Test(
            "broker-lib",
            "log::pending_offsets::tests::records_are_split_by_bytes_and_every_queue_has_its_turn",
        ),
    },
    Row {
        id: "L3",
        name: "OffsetQueryDoesNotWait",
        breaks: "who asks for a consumed offset is told of the last one, though the next is on its way",
        place: "broker/src/log/consume_offsets.rs",
        rule: "17, consumed offsets",
        expected: Test(
            "broker",
            "consumers::who_asks_for_an_offset_is_told_of_one_that_was_just_reported",
        ),
    },
    Row {
        id: "L4",
        name: "RecordLimitsIgnored",
        breaks: "applying a record believes names of any length",
        place: "broker/src/state/offsets.rs",
        rule: "17, limits",
        expected: Test(
            "broker-lib",
            "state::tests::limits::changes_with_names_or_numbers_over_a_limit_are_refused_and_nothing_of_them_stays",
        ),
    },
    Row {
        id: "L5",
        name: "RefusedOffsetHoldsUpOthers",
        breaks: "an offset that is refused ends the work on its record",
        place: "broker/src/state/apply.rs",
        rule: "17, limits",
        expected: Test(
            "broker-lib",
            "state::tests::limits::an_offset_that_is_refused_holds_up_no_other_of_its_record",
        ),
    },
    Row {
        id: "L6",
        name: "KeysOfDeletedTopicRemembered",
        breaks: "keys of a deleted topic still suppress duplicates in a new one of its name",
        place: "broker/src/state/recent.rs",
        rule: "17, acknowledgements",
        expected: Test("broker-lib", "state::tests::the_oldest_key_is_forgotten_for_the_newest"),
    },
    Row {
        id: "L7",
        name: "UnreadableHeaderEndsConnection",
        breaks: "a header that cannot be read ends its connection",
        place: "broker/src/net/connection.rs",
        rule: "17, limits",
        expected: Test(
            "broker",
            "bad_input::any_header_and_any_json_body_is_answered_under_its_number_and_the_connection_stays",
        ),
    },
    Row {
        id: "L8",
        name: "BodyLimitIgnored",
        breaks: "the body of a request may be as large as a frame, whatever is asked",
        place: "broker/src/request/size.rs",
        rule: "17, limits",
        expected: Test("broker_costs", "every_request_costs_no_more_than_its_bound"),
    },
    Row {
        id: "L9",
        name: "LongListsAnswered",
        breaks: "an answer lists all names, however many there are",
        place: "broker/src/request/listing.rs",
        rule: "17, limits",
        expected: Test("broker_costs", "every_request_costs_no_more_than_its_bound"),
    },
    Row {
        id: "L10",
        name: "TopicMadeByEach",
        breaks: "each send that waits for a new topic has it decided again, and most of them come too late",
        place: "broker/src/log/topics.rs",
        rule: "17, topics",
        expected: Test(
            "broker",
            "topics::many_first_sends_of_a_topic_make_it_once_and_are_all_stored",
        ),
    },
    Row {
        id: "L11",
        name: "PlainFieldsUnbounded",
        breaks: "a header of many fields takes time quadratic in their number",
        place: "broker/src/remoting/plain_json.rs",
        rule: "17, limits",
        expected: Test(
            "broker-lib",
            "remoting::plain_json::tests::so_many_fields_that_a_search_among_them_takes_long_are_left_to_the_whole_reader",
        ),
    },
    Row {
        id: "L12",
        name: "LostLeadersNamed",
        breaks: "a node that is alone sends clients to leaders that are gone",
        place: "broker/src/log/replica.rs",
        rule: "17, routes",
        expected: Test("broker", "routes::a_node_that_has_heard_of_no_leader_for_long_names_none"),
    },
    Row {
        id: "N36",
        name: "NoShares",
        breaks: "clients that take as much as they hold later hold up the small reads of all others",
        place: "src/wire/outbound/room.rs",
        rule: "9, limits",
        expected: Test(
            "lib",
            "wire::outbound::room::tests::each_connection_has_its_share_whatever_the_others_hold",
        ),
    },
    Row {
        id: "N37",
        name: "AnyAnswerProves",
        breaks: "one small answer, which the system takes, gives a client the room of those that read",
        place: "src/wire/outbound/room.rs",
        rule: "9, limits",
        expected: Test(
            "lib",
            "wire::outbound::room::tests::clients_that_took_little_leave_room_for_those_that_took_as_much_as_they_want",
        ),
    },
    Row {
        id: "N38",
        name: "AnyFrameProves",
        breaks: "one small frame gives a client the room of those that finish large ones",
        place: "src/wire/reader.rs",
        rule: "9, limits",
        expected: Test(
            "lib",
            "wire::reader::tests::a_connection_that_finished_a_small_frame_waits_for_room_for_a_large_one",
        ),
    },
    Row {
        id: "L13",
        name: "AllLocksLookedAt",
        breaks: "each request for a lock looks at all locks of its group and of two others",
        place: "broker/src/state/locks/of_group.rs",
        rule: "17, limits",
        expected: Test(
            "broker-lib",
            "state::tests::locks::a_request_for_one_queue_looks_at_few_locks_however_many_are_held",
        ),
    },
    Row {
        id: "L14",
        name: "RenewalsAsNewLocks",
        breaks: "a flood of new locks on a full disk holds up renewals, and consumers lose theirs",
        place: "broker/src/log/replica.rs",
        rule: "17, full disks",
        expected: Test(
            "broker-lib",
            "log::replica::tests::no_flood_of_new_locks_holds_up_renewals",
        ),
    },
];

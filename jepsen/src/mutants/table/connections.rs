//! Mutants of the broker's connections: what they may cost, whom they are for, and what is remembered of them.

use super::{Expected::Test, Row};

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "N1",
        name: "ClientsRemembered",
        breaks: "a node that leads again answers with the members that its groups had when it led before",
        place: "src/broker/serve/announce.rs",
        rule: "17, not in the log",
        expected: Test(
            "broker",
            "connections::a_node_that_leads_again_knows_of_clients_what_they_said_since_and_no_more",
        ),
    },
    Row {
        id: "N2",
        name: "ReportsRemembered",
        breaks: "a node that leads again passes over offsets for a reset that it remembers from before",
        place: "src/broker/serve/announce.rs",
        rule: "17, not in the log",
        expected: Test(
            "broker",
            "connections::a_node_that_leads_again_knows_of_clients_what_they_said_since_and_no_more",
        ),
    },
    Row {
        id: "N3",
        name: "MemberLeavesWithAnyConnection",
        breaks: "a client leaves its groups with the end of any of its connections",
        place: "src/broker/serve/known_clients.rs",
        rule: "17, not in the log",
        expected: Test(
            "broker",
            "connections::a_member_stays_until_the_last_of_its_connections_ends_whichever_node_they_came_through",
        ),
    },
    Row {
        id: "N4",
        name: "ConnectionsUnbounded",
        breaks: "requests under way and answers that nobody takes hold any number of bytes",
        place: "src/broker/remoting/budget.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::connection::tests::clients_that_take_no_answers_are_given_few_and_others_do_not_notice",
        ),
    },
    Row {
        id: "N5",
        name: "IdleKeepPlaces",
        breaks: "idle connections keep their places, and lock everybody else out",
        place: "src/broker/serve/places.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::connection::tests::idle_connections_lock_nobody_out_and_end_in_time",
        ),
    },
    Row {
        id: "N6",
        name: "RelayedWithoutLimit",
        breaks: "what waits for a leader that hangs is not taken back when its time is over",
        place: "src/broker/serve/relay.rs",
        rule: "17, who leads",
        expected: Test(
            "lib",
            "broker::serve::relay::tests::a_leader_that_hangs_costs_a_request_no_more_than_its_time_and_what_was_not_written_is_taken_back",
        ),
    },
    Row {
        id: "N7",
        name: "OtherBrokersServed",
        breaks: "a message for another log's broker is stored in this log",
        place: "src/broker/serve/named.rs",
        rule: "17, ports",
        expected: Test(
            "broker",
            "connections::what_is_meant_for_another_broker_is_refused_by_each_node_and_stored_nowhere",
        ),
    },
    Row {
        id: "N8",
        name: "DiscardedCalledStored",
        breaks: "a message that the next leader overwrote is called stored",
        place: "src/broker/serve/send_status.rs",
        rule: "17, acknowledgements",
        expected: Test(
            "broker",
            "send_status::a_message_that_another_leader_has_overwritten_is_not_said_to_be_stored",
        ),
    },
    Row {
        id: "N9",
        name: "ParkedKeepsFrame",
        breaks: "a pull that waits holds its frame, and so what others need for their requests",
        place: "src/broker/serve/pending_request.rs",
        rule: "17, limits",
        expected: Test("broker", "waiting::pulls_that_wait_hold_nothing_that_others_need"),
    },
    Row {
        id: "N10",
        name: "ParkedUnbounded",
        breaks: "any number of pulls may wait",
        place: "src/broker/serve/pending_request.rs",
        rule: "17, limits",
        expected: Test(
            "broker",
            "waiting::more_pulls_than_may_wait_are_refused_and_all_else_goes_on",
        ),
    },
    Row {
        id: "N11",
        name: "LongPlaceBeforeRoom",
        breaks: "a client that does not take its answers holds a place of the few long questions",
        place: "src/broker/serve/long_answers.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::long_answers::tests::who_does_not_take_its_answers_keeps_nobody_from_a_turn_and_is_refused_in_time",
        ),
    },
    Row {
        id: "N12",
        name: "LongQuestionsOfOne",
        breaks: "one connection has all the places of long questions",
        place: "src/broker/serve/long_answers.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::long_answers::tests::a_connection_has_one_turn_at_a_time_however_much_it_asks",
        ),
    },
    Row {
        id: "N13",
        name: "ConnectionSpeaksForAll",
        breaks: "one connection takes all the places of clients, and the memory for them",
        place: "src/broker/serve/known_clients.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::known_clients::tests::one_connection_takes_neither_the_places_nor_the_memory_of_the_others",
        ),
    },
    Row {
        id: "N14",
        name: "LargeAnswersTakeAll",
        breaks: "large answers that nobody takes hold up the ordinary ones of others",
        place: "src/broker/remoting/budget.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::remoting::budget::tests::large_answers_leave_room_for_the_ordinary_ones_of_others",
        ),
    },
    Row {
        id: "N15",
        name: "LargeClientsTakeAll",
        breaks: "connections that bring large heartbeats take all the memory for clients",
        place: "src/broker/serve/known_clients.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::known_clients::tests::connections_that_bring_a_lot_leave_memory_for_those_that_bring_little",
        ),
    },
    Row {
        id: "N16",
        name: "LongAnswersInOneTurn",
        breaks: "an answer that lists a lot is made in one go, and a node's other tasks wait for it",
        place: "src/broker/serve/listing.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::listing::tests::a_long_list_is_made_in_many_turns_and_holds_each_name_once",
        ),
    },
    Row {
        id: "N17",
        name: "PullLooksAtAll",
        breaks: "a pull whose filter finds nothing looks at all messages of its queue",
        place: "src/broker/serve/pull.rs",
        rule: "17, limits",
        expected: Test(
            "broker",
            "messages::a_pull_whose_filter_finds_nothing_looks_at_some_messages_and_has_its_client_go_on",
        ),
    },
    Row {
        id: "N18",
        name: "ShedPullForgets",
        breaks: "a pull whose leader goes away in one moment is refused, and not told to pull again",
        place: "src/broker/serve/relay.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::relay::tests::a_pull_that_is_written_in_the_moment_its_time_is_up_still_knows_where_to_pull_again",
        ),
    },
    Row {
        id: "N19",
        name: "SendBufferUnbounded",
        breaks: "the system holds megabytes for each client that takes nothing",
        place: "src/seam/net/tcp.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "seam::net::tcp::tests::the_system_holds_little_for_a_client_that_takes_nothing",
        ),
    },
    Row {
        id: "N20",
        name: "NumbersReadLoosely",
        breaks: "`1e3` is taken for an offset of 1000",
        place: "src/broker/remoting/fields.rs",
        rule: "17, requests",
        expected: Test(
            "lib",
            "broker::remoting::tests::numbers_in_headers_are_decimal_digits_and_nothing_else",
        ),
    },
    Row {
        id: "N21",
        name: "QueuedUnbounded",
        breaks: "clients of the native protocol that read nothing, or finish no frame, hold any amount all together",
        place: "src/wire/outbound/room.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "wire::outbound::room::tests::connections_that_hold_nothing_have_room_up_to_twice_the_limit_and_the_others_up_to_it",
        ),
    },
    Row {
        id: "N22",
        name: "SubscriptionReadsAhead",
        breaks: "each subscription holds records that its client takes none of",
        place: "src/node/subscribe.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "node::tests::waiting_subscriptions::a_subscription_that_waits_for_its_client_holds_no_record_and_loses_none",
        ),
    },
    Row {
        id: "N23",
        name: "FramesInOneTurn",
        breaks: "a client that sends small frames without end keeps a thread of the node from all others",
        place: "src/wire/connection.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "wire::tests::turns::a_connection_with_many_frames_lets_others_have_their_turn",
        ),
    },
    Row {
        id: "N24",
        name: "RequestsInOneTurn",
        breaks: "thousands of pulls that come at once keep a thread of the node from all others",
        place: "src/broker/serve/connection.rs",
        rule: "17, limits",
        expected: Test(
            "lib",
            "broker::serve::connection::tests::a_connection_with_many_requests_lets_others_have_their_turn",
        ),
    },
    Row {
        id: "N25",
        name: "AllWaitersWoken",
        breaks: "many clients of the native protocol that wait for room keep a node busy whenever some is given back, and small \
                 requests wait for seconds",
        place: "src/wire/outbound/room.rs",
        rule: "9, limits",
        expected: Test(
            "lib",
            "wire::outbound::room::tests::room_goes_to_those_that_wait_in_their_order_and_wakes_few_others",
        ),
    },
];

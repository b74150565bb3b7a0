//! Time: clocks that jump, what is delayed, and what asks for a time.

use super::Expected::{Sim, Test};
use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "T9",
        name: "AgesByWallClock",
        breaks: "ages of segments go by the wall clock, so that a jump makes all of them old",
        place: "src/node/log_clock.rs",
        rule: "7, retention",
        expected: Sim,
    },
    Row {
        id: "T10",
        name: "JumpsMadeUpFor",
        breaks: "a wall clock that was set ahead makes ages go at twice the pace for as long as it was behind",
        place: "src/node/log_clock.rs",
        rule: "7, retention",
        expected: Sim,
    },
    Row {
        id: "T1",
        name: "DueByStoredTime",
        breaks: "a delayed message is due by its time of storing, which one wrong clock puts ahead for good",
        place: "broker/src/tasks/delay.rs",
        rule: "17, clocks",
        expected: Test(
            "broker",
            "clocks::what_comes_after_a_wrong_time_is_due_by_its_own_even_after_a_restart",
        ),
    },
    Row {
        id: "T2",
        name: "SightingsIgnored",
        breaks: "a delayed message is due by the wall clock, whatever was seen of it",
        place: "broker/src/tasks/sightings.rs",
        rule: "17, clocks",
        expected: Test("broker", "clocks::a_clock_that_jumps_ahead_delivers_nothing_early"),
    },
    Row {
        id: "T3",
        name: "StoredTimeGoesBack",
        breaks: "a leader with a slower clock than the last gives earlier times of storing",
        place: "broker/src/log/replica.rs",
        rule: "17, clocks",
        expected: Test(
            "broker",
            "clocks::times_of_storing_never_go_back_however_slow_the_leaders_clock_is",
        ),
    },
    Row {
        id: "T4",
        name: "LeasesByWallClock",
        breaks: "locks of queues are released by the wall clock",
        place: "broker/src/handle/locks.rs",
        rule: "17, clocks",
        expected: Test("broker", "clocks::a_lock_is_neither_lost_nor_kept_by_a_jump_of_the_clock"),
    },
    Row {
        id: "T5",
        name: "DeliveryDropped",
        breaks: "a delayed message whose topic is gone is marked as delivered, and dropped",
        place: "broker/src/state/apply.rs",
        rule: "17, delay levels",
        expected: Test(
            "broker-lib",
            "state::tests::delayed::deliveries_are_all_stored_or_none_and_what_is_not_stored_is_not_delivered",
        ),
    },
    Row {
        id: "T6",
        name: "DeliveredOneByOne",
        breaks: "each delayed message that is due takes its own record",
        place: "broker/src/tasks/delay.rs",
        rule: "17, delay levels",
        expected: Test("broker", "clocks::delayed_messages_that_are_due_at_once_take_few_records"),
    },
    Row {
        id: "T7",
        name: "OrderlyRetried",
        breaks: "what a consumer that takes messages in order gives up is retried as what any other one hands back",
        place: "broker/src/handle/send/mod.rs",
        rule: "17, delay levels",
        expected: Test(
            "broker",
            "delayed::what_a_consumer_in_order_gives_up_is_a_dead_letter_at_once",
        ),
    },
    Row {
        id: "T8",
        name: "TimerIgnored",
        breaks: "a message with a timer is stored at once, without its timer",
        place: "broker/src/request/features.rs",
        rule: "17, features",
        expected: Test(
            "broker",
            "features::what_is_not_served_is_refused_with_rocketmqs_code_and_nothing_is_stored",
        ),
    },
    Row {
        id: "T11",
        name: "BatchDelayIgnored",
        breaks: "a batch whose own properties ask for a delay is stored without it",
        place: "broker/src/handle/send/mod.rs",
        rule: "17, features",
        expected: Test(
            "broker",
            "features::a_batch_whose_request_asks_for_what_is_not_served_is_refused",
        ),
    },
];

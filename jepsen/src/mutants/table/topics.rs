//! The life of topics: begun and ended by the home log, followed by all others.

use super::Expected::Test;
use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "P1",
        name: "DelayedKeysOutliveTopic",
        breaks: "the keys of delayed messages for a deleted topic still suppress duplicates",
        place: "broker/src/state/apply.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::keys_of_delayed_messages_are_forgotten_with_the_topic_that_they_were_sent_to",
        ),
    },
    Row {
        id: "P2",
        name: "DeletedTopicKeepsOffsets",
        breaks: "groups go on in a topic where they were in a deleted one of the same name",
        place: "broker/src/state/apply.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::a_topic_that_is_made_again_has_nothing_of_the_one_that_was_deleted",
        ),
    },
    Row {
        id: "P3",
        name: "DeletedTopicKeepsLocks",
        breaks: "queues of a deleted topic stay locked",
        place: "broker/src/state/apply.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::a_topic_that_is_made_again_has_nothing_of_the_one_that_was_deleted",
        ),
    },
    Row {
        id: "P4",
        name: "OffsetsOutliveTopic",
        breaks: "offsets that consumers report of a topic that is gone are stored",
        place: "broker/src/state/apply.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::what_consumers_report_of_a_topic_that_is_gone_is_not_stored",
        ),
    },
    Row {
        id: "P5",
        name: "RecreatedTopicKeepsMessages",
        breaks: "a topic that was deleted and made again has its old messages in a log that missed the deletion",
        place: "broker/src/state/topics/follow.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::a_topic_that_is_made_again_has_nothing_of_the_one_that_was_deleted",
        ),
    },
    Row {
        id: "P6",
        name: "StaleFollowApplied",
        breaks: "a late record of an earlier leader brings a deleted topic back",
        place: "broker/src/state/topics/follow.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::a_late_record_of_an_earlier_leader_brings_no_topic_back",
        ),
    },
    Row {
        id: "P7",
        name: "StaleSendRevivesTopic",
        breaks: "a send that was made before a topic was deleted makes it again",
        place: "broker/src/state/topics/registry.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::a_send_that_was_made_before_a_topic_was_deleted_does_not_make_it_again",
        ),
    },
    Row {
        id: "P8",
        name: "DeleteAnsweredEarly",
        breaks: "a deletion is answered while logs still take messages for the topic",
        place: "broker/src/handle/topics.rs",
        rule: "17, topics",
        expected: Test(
            "broker",
            "topics::a_deletion_is_not_answered_before_a_log_without_a_leader_has_followed",
        ),
    },
    Row {
        id: "P10",
        name: "DelayedForAnotherTopic",
        breaks: "a delayed message for a deleted topic is delivered to the next topic of that name",
        place: "broker/src/tasks/delay.rs",
        rule: "17, topics",
        expected: Test(
            "broker",
            "topics::a_delayed_message_for_a_deleted_topic_does_not_come_to_the_next_of_that_name",
        ),
    },
    Row {
        id: "P11",
        name: "OffsetsOfEarlierTopic",
        breaks: "what a group has consumed of a deleted topic is noted for the next one of its name",
        place: "broker/src/state/apply.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::what_was_reported_of_a_topic_is_not_noted_for_the_next_one_of_its_name",
        ),
    },
    Row {
        id: "P12",
        name: "UnknownDeletionNotNoted",
        breaks: "a topic that was deleted before any log reported it comes back with the log that does",
        place: "broker/src/state/topics/registry.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::a_topic_that_was_deleted_before_any_log_reported_it_does_not_come_back",
        ),
    },
    Row {
        id: "P13",
        name: "DeletedNamesForgotten",
        breaks: "once many topics were deleted, the first of them come back",
        place: "broker/src/state/topics/registry.rs",
        rule: "17, topics",
        expected: Test(
            "broker-lib",
            "state::tests::registry::deletions_are_remembered_until_all_logs_have_reported_and_refused_once_there_are_too_many",
        ),
    },
    Row {
        id: "P14",
        name: "NewerRecordsSkipped",
        breaks: "a record that this build does not know is passed over, and replicas differ from then on",
        place: "broker/src/state/apply.rs",
        rule: "17, upgrades",
        expected: Test(
            "broker-lib",
            "state::tests::newer_build::a_record_of_a_newer_build_is_an_error_that_says_what_to_do_and_changes_nothing",
        ),
    },
    Row {
        id: "P15",
        name: "StoppedMachineCheckpointed",
        breaks: "a state machine that stopped at a record takes a checkpoint as of behind it",
        place: "src/raft/state_machine.rs",
        rule: "17, upgrades",
        expected: Test(
            "lib",
            "raft::tests::state_machine::a_machine_that_has_stopped_at_a_record_takes_no_checkpoint",
        ),
    },
    Row {
        id: "P16",
        name: "ClientsAppendAnywhere",
        breaks: "a client stops a log for good with a record that nobody knows",
        place: "src/node/append.rs",
        rule: "17, upgrades",
        expected: Test(
            "lib",
            "node::tests::client_appends::a_log_whose_records_have_a_form_takes_none_from_clients",
        ),
    },
    Row {
        id: "P17",
        name: "OldDelayedKeysForgotten",
        breaks: "a message that the oldest builds delayed is stored again",
        place: "broker/src/state/apply.rs",
        rule: "17, upgrades",
        expected: Test(
            "broker-lib",
            "state::tests::old_build::a_message_that_an_old_build_delayed_is_not_delayed_twice",
        ),
    },
    Row {
        id: "P18",
        name: "OldRecordsByNewRules",
        breaks: "records of the oldest builds mean something else in a replay than they did in the checkpoint",
        place: "broker/src/state/apply.rs",
        rule: "17, upgrades",
        expected: Test(
            "broker-lib",
            "state::tests::old_build::replay_and_an_old_checkpoint_come_to_the_same_state",
        ),
    },
    Row {
        id: "P19",
        name: "OldLocksUnbounded",
        breaks: "a checkpoint of version 2 brings any number of locks",
        place: "broker/src/state/older/old_locks.rs",
        rule: "17, locks",
        expected: Test(
            "broker-lib",
            "state::older::old_locks::tests::a_checkpoint_of_version_2_brings_no_more_locks_than_there_may_be",
        ),
    },
];

//! What nodes that acknowledge before they flush lose with their power, and how they are trusted again.

use super::Expected::{Async, Test};
use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "W1",
        name: "LostPagesUnnoticed",
        breaks: "a node that lost its page cache votes as if it had everything",
        place: "src/log/data_dir.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "log::tests::lost_pages::a_power_cut_makes_logs_suspect_that_acknowledge_before_they_flush_and_nothing_else_does",
        ),
    },
    Row {
        id: "W2",
        name: "TrustNotStored",
        breaks: "a log that is whole again is suspect after the next start",
        place: "src/log/data_dir.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "log::tests::lost_pages::a_power_cut_makes_logs_suspect_that_acknowledge_before_they_flush_and_nothing_else_does",
        ),
    },
    Row {
        id: "W3",
        name: "RunEndedEarly",
        breaks: "a power cut while a node shuts down counts as one after that",
        place: "src/node/shutdown.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::lost_pages::a_run_ends_well_only_once_all_of_its_logs_are_closed",
        ),
    },
    Row {
        id: "W4",
        name: "FailedLogTrusted",
        breaks: "a log whose flush failed is whole after a restart, though its pages are gone",
        place: "src/raft/group/setup.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::lost_pages::a_log_whose_flush_failed_is_suspect_at_the_next_start",
        ),
    },
    Row {
        id: "W5",
        name: "SuspectGrantUnmarked",
        breaks: "a grant of a log that lacks what it had acknowledged elects a node without it",
        place: "src/raft/messages.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::lost_pages::a_node_that_lost_its_tail_elects_nobody_without_it_and_is_whole_again_once_the_leader_is_back",
        ),
    },
    Row {
        id: "W6",
        name: "OwnGrantTrusted",
        breaks: "a candidate that lacks what it had acknowledged is elected by one grant too few",
        place: "src/raft/ballot.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::lost_pages::a_node_that_lost_its_tail_elects_nobody_without_it_and_is_whole_again_once_the_leader_is_back",
        ),
    },
    Row {
        id: "W7",
        name: "AnyGrantsElect",
        breaks: "a majority of grants elects, whatever those logs have lost",
        place: "src/raft/ballot.rs",
        rule: "7, lost pages",
        expected: Async,
    },
    Row {
        id: "W8",
        name: "NoElectionBySuspects",
        breaks: "nodes that all lost power never elect a leader again",
        place: "src/raft/ballot.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::lost_pages::nodes_that_all_lost_power_elect_a_leader_and_end_with_one_history",
        ),
    },
    Row {
        id: "W9",
        name: "StragglersNotWaitedFor",
        breaks: "nodes that lost something elect one of them before the one that has it was asked",
        place: "src/raft/ballot.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::lost_pages::a_node_that_has_everything_is_elected_though_two_that_lost_something_were_there_first",
        ),
    },
    Row {
        id: "W10",
        name: "TrustedAtCommitted",
        breaks: "a log is trusted before it has what an earlier acknowledgement of it may yet commit",
        place: "src/raft/recovery.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::lost_pages::a_leader_tells_where_its_log_ends_and_not_how_far_it_is_committed",
        ),
    },
    Row {
        id: "W11",
        name: "CommittedBelievedByIndex",
        breaks: "another entry at the index that was once committed counts as committed",
        place: "src/log/open.rs",
        rule: "4.7",
        expected: Test(
            "lib",
            "log::tests::lost_pages::a_committed_entry_is_believed_only_if_the_log_holds_that_very_entry",
        ),
    },
    Row {
        id: "W12",
        name: "MembershipNotFlushed",
        breaks: "a membership is committed that a power cut takes back",
        place: "src/format/entry.rs",
        rule: "4.2",
        expected: Test(
            "lib",
            "log::tests::lost_pages::memberships_and_first_entries_of_terms_are_flushed_before_they_are_acknowledged",
        ),
    },
    Row {
        id: "W13",
        name: "WrittenTakenForFlushed",
        breaks: "what was only written on a majority counts as safe from power cuts",
        place: "src/log/state.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "log::tests::lost_pages::a_log_tells_how_far_it_has_flushed_what_a_leader_vouches_for",
        ),
    },
    Row {
        id: "W14",
        name: "StableByLeaderAlone",
        breaks: "what only the leader has flushed counts as safe from power cuts",
        place: "src/raft/stable.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::tests::stable::what_a_majority_has_flushed_and_committed_is_stable",
        ),
    },
    Row {
        id: "W15",
        name: "StableOfOlderTerms",
        breaks: "an entry that a later leader can overrule counts as safe",
        place: "src/log/state.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::tests::stable::entries_of_earlier_terms_are_stable_only_with_one_of_the_leaders_own_term",
        ),
    },
    Row {
        id: "W16",
        name: "SuspectBelievesCommitted",
        breaks: "a node that lost its tail shows other entries as committed than the cluster has",
        place: "src/log/open.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "log::tests::lost_pages::of_a_log_that_may_have_lost_something_what_is_stable_counts_as_committed",
        ),
    },
    Row {
        id: "W17",
        name: "CheckpointBelievedByIndex",
        breaks: "a state machine goes on from the state of another history",
        place: "src/log/open.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "log::tests::lost_pages::checkpoints_are_believed_only_if_the_log_holds_the_very_entry_and_may_not_lose_it",
        ),
    },
    Row {
        id: "W18",
        name: "CheckpointAheadOfLog",
        breaks: "a power cut leaves a checkpoint of entries that the log has lost",
        place: "src/log/submit.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::tests::state_machine::a_checkpoint_is_saved_only_with_the_entries_that_it_is_made_of",
        ),
    },
    Row {
        id: "W19",
        name: "BoundaryPassesStable",
        breaks: "a boundary fixes entries that a later leader replaces",
        place: "src/raft/retention.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::tests::stable::the_boundary_stays_below_what_a_majority_has_flushed",
        ),
    },
    Row {
        id: "W20",
        name: "NothingCompared",
        breaks: "a log goes on from entries that its leader does not have, and nobody notices",
        place: "src/raft/agreement.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::tests::agreement::a_leader_that_contradicts_what_is_committed_and_not_stable_is_not_taken",
        ),
    },
    Row {
        id: "W21",
        name: "LaterLeaderNotAwaited",
        breaks: "an entry is committed while a leader is found to agree that replaces it",
        place: "src/raft/agreement.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::tests::agreement::a_later_leader_is_compared_after_what_an_earlier_one_has_sent",
        ),
    },
    Row {
        id: "W22",
        name: "EndedProcessCounts",
        breaks: "an acknowledgement counts of a process that has lost what it acknowledged",
        place: "src/raft/network.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::network::tests::answers_of_a_process_count_until_another_one_has_its_place",
        ),
    },
    Row {
        id: "W30",
        name: "RewoundTooLittle",
        breaks: "a log that goes back keeps the first record that no majority is known to have flushed",
        place: "src/node/rewind.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::rewind::subscriptions_end_with_the_index_from_which_records_may_be_others",
        ),
    },
    Row {
        id: "W31",
        name: "RewindNotTold",
        breaks: "who follows a log that goes back is not told which records to drop",
        place: "src/node/subscribe.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::rewind::subscriptions_end_with_the_index_from_which_records_may_be_others",
        ),
    },
    Row {
        id: "W32",
        name: "BrokerStateKept",
        breaks: "a broker goes on with messages that the cluster has lost",
        place: "src/broker/state/machine.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "broker::state::tests::the_state_of_a_log_that_is_opened_again_begins_again_for_those_who_hold_it",
        ),
    },
    Row {
        id: "W33",
        name: "BarrierByIndex",
        breaks: "a read barrier is followed by a read of records that the cluster has lost",
        place: "src/node/commit_log.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::rewind::a_read_barrier_does_not_hold_for_a_node_with_other_records_than_the_leader",
        ),
    },
    Row {
        id: "W34",
        name: "SubscriptionByIndex",
        breaks: "a client goes on behind a lost record as if it had been another",
        place: "src/node/subscribe.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::rewind::who_got_a_record_that_is_lost_is_told_where_to_go_on",
        ),
    },
    Row {
        id: "W35",
        name: "LostRecordsNotTold",
        breaks: "nobody is told how many records a log that went back may have lost",
        place: "src/raft/losses.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "node::tests::rewind::handles_of_a_log_that_goes_back_go_on_with_it_when_it_is_open_again",
        ),
    },
    Row {
        id: "W36",
        name: "StableAgainAfterDoubt",
        breaks: "what a majority has only written counts as safe from power cuts, once a request was overtaken",
        place: "src/log/stable_commits.rs",
        rule: "7, lost pages",
        expected: Test(
            "lib",
            "raft::tests::stable::commits_are_not_stable_any_more_once_a_leader_counts",
        ),
    },
];

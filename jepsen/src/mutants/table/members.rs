//! One mutant for each rule of who is a member, where members are, and which process is one.

use super::Expected::{Sim, Test};
use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "O1",
        name: "CrashNotNoticed",
        breaks: "a log whose consensus panicked looks well",
        place: "src/raft/runtime.rs",
        rule: "7, panics",
        expected: Test(
            "lib",
            "node::tests::stopped_logs::a_panic_in_any_task_of_consensus_stops_its_log",
        ),
    },
    Row {
        id: "O2",
        name: "MoveIgnored",
        breaks: "a member that moved is not found",
        place: "src/raft/contacts.rs",
        rule: "9, members that move",
        expected: Sim,
    },
    Row {
        id: "O3",
        name: "TwinAdmitted",
        breaks: "a copy of a member that runs is taken for the member",
        place: "src/raft/admission.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "node::tests::moved::a_copy_of_a_member_that_runs_stops_and_the_member_goes_on",
        ),
    },
    Row {
        id: "O4",
        name: "UnreachedElected",
        breaks: "a node leads that nobody can reach",
        place: "src/raft/membership.rs",
        rule: "9, members that move",
        expected: Test(
            "lib",
            "node::tests::moved::a_node_that_the_others_cannot_reach_wins_no_election",
        ),
    },
    Row {
        id: "O5",
        name: "OtherVersionServed",
        breaks: "a node of another version is talked to, and skips or misreads what it does not know",
        place: "src/format/frame.rs",
        rule: "9, versions",
        expected: Test(
            "lib",
            "wire::tests::faults::a_node_of_another_version_is_refused_at_both_ends_with_both_versions",
        ),
    },
    Row {
        id: "O6",
        name: "AnyLaneCounts",
        breaks: "a member counts as unreached because entries do not get through",
        place: "src/raft/contacts.rs",
        rule: "9, members that move",
        expected: Test(
            "lib",
            "node::tests::lanes::a_member_that_only_entries_do_not_get_to_counts_as_reached_and_is_told_of",
        ),
    },
    Row {
        id: "O7",
        name: "SilentCountsAsEnded",
        breaks: "a copy gets in as soon as the member does not answer",
        place: "src/raft/admission.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "node::tests::copies::a_copy_is_kept_out_while_it_is_not_known_whether_the_member_runs",
        ),
    },
    Row {
        id: "O8",
        name: "RivalForgotten",
        breaks: "two processes that have both taken part go on as one member",
        place: "src/raft/processes.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "node::tests::copies::a_copy_that_came_in_while_the_member_was_away_is_found_and_neither_counts_until_one_is_gone",
        ),
    },
    Row {
        id: "O9",
        name: "RemovedMembersKept",
        breaks: "members that were removed are dialed and warned of for ever",
        place: "src/raft/peers.rs",
        rule: "9, members that move",
        expected: Test(
            "lib",
            "node::tests::members::a_member_that_was_removed_is_forgotten_on_every_node",
        ),
    },
    Row {
        id: "O10",
        name: "RetiredOpensLogs",
        breaks: "a copy that was found out opens further logs",
        place: "src/node/inner.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "node::tests::copies::a_process_that_must_not_go_on_opens_no_further_log",
        ),
    },
    Row {
        id: "O11",
        name: "RemovedLeaderChangesMembers",
        breaks: "a leader that was removed changes the members of a cluster that it does not belong to",
        place: "src/raft/membership.rs",
        rule: "7, changes of members",
        expected: Test(
            "lib",
            "node::tests::members::a_leader_that_was_removed_changes_no_members_and_goes_on_until_the_next_one_leads",
        ),
    },
    Row {
        id: "O12",
        name: "RevertedFollowerStopsLeader",
        breaks: "a follower that is behind what it had acknowledged stops its leader",
        place: "src/raft/group/setup.rs",
        rule: "9, identity",
        expected: Test(
            "lib",
            "node::tests::lost_pages::a_leader_goes_on_when_an_older_copy_of_a_followers_data_is_put_back",
        ),
    },
    Row {
        id: "O13",
        name: "HeldReplacedUnseen",
        breaks: "of two processes that come at once the second takes the place of the first, which runs",
        place: "src/raft/processes.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "raft::processes::tests::of_two_that_come_once_the_held_one_has_ended_only_the_first_gets_in_unseen",
        ),
    },
    Row {
        id: "O14",
        name: "SilenceKept",
        breaks: "a failed look long ago and another one now end a member that runs",
        place: "src/raft/processes.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "raft::processes::tests::a_silence_long_ago_or_before_the_last_frame_counts_for_nothing",
        ),
    },
    Row {
        id: "O15",
        name: "SourceForgotten",
        breaks: "a copy that tells the original's address and the original count in turn",
        place: "src/raft/processes.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "raft::tests::admission::a_copy_that_tells_the_address_of_the_original_does_not_end_where_the_original_answers",
        ),
    },
    Row {
        id: "O16",
        name: "NearRivalRuns",
        breaks: "a member that is restarted right after a copy was stopped is told that it is a copy, and stops for good",
        place: "src/raft/admission.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "raft::tests::admission::a_process_that_comes_right_after_two_were_stopped_is_not_told_that_it_is_a_copy",
        ),
    },
    Row {
        id: "O17",
        name: "SourceMustAnswer",
        breaks: "a member that is restarted behind an address translation waits for seconds",
        place: "src/raft/processes.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "raft::tests::admission::a_member_that_is_restarted_where_nobody_can_be_dialed_is_let_in_once_its_connections_have_ended",
        ),
    },
    Row {
        id: "O18",
        name: "EmptyMovesWritten",
        breaks: "a change of members is written that changes nothing",
        place: "src/raft/moves.rs",
        rule: "9, members that move",
        expected: Test("lib", "raft::tests::admission::no_move_is_no_change_of_members"),
    },
    Row {
        id: "O19",
        name: "UnlistedStays",
        breaks: "a connection from before its node was a member outlives the process's place",
        place: "src/raft/admission.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "raft::tests::admission::a_connection_from_before_its_node_was_a_member_ends_with_its_process",
        ),
    },
    Row {
        id: "O20",
        name: "DialOutlivesRenewal",
        breaks: "a dial that was under way makes a connection to a process that counts no more",
        place: "src/wire/link.rs",
        rule: "9, two processes with one member's data",
        expected: Test(
            "lib",
            "wire::tests::links::a_link_that_is_renewed_while_it_dials_dials_again",
        ),
    },
    Row {
        id: "O21",
        name: "AnyPlaceNamed",
        breaks: "an unreachable member is reported at an address that it left",
        place: "src/raft/failing.rs",
        rule: "9, members that move",
        expected: Test(
            "lib",
            "raft::tests::admission::the_newest_address_of_a_member_is_named_when_it_is_not_reached",
        ),
    },
    Row {
        id: "O22",
        name: "OlderDataAdmitted",
        breaks: "an older copy of a member's data counts as the member",
        place: "src/raft/generations.rs",
        rule: "9, older copies of a member's data",
        expected: Test(
            "lib",
            "node::tests::rolled_back::an_older_copy_of_a_members_data_is_left_out_and_the_newest_data_is_not",
        ),
    },
    Row {
        id: "O23",
        name: "GenerationNotRaised",
        breaks: "a node's generation stays as it was, whatever the node does",
        place: "src/log/data_dir.rs",
        rule: "9, older copies of a member's data",
        expected: Test(
            "lib",
            "node::tests::rolled_back::an_older_copy_of_a_members_data_is_left_out_and_the_newest_data_is_not",
        ),
    },
    Row {
        id: "O24",
        name: "OutdatedForgotten",
        breaks: "an older copy of a member's data that was refused takes part where nobody knows better",
        place: "src/log/data_dir.rs",
        rule: "9, older copies of a member's data",
        expected: Test(
            "lib",
            "node::tests::rolled_back::an_older_copy_that_was_refused_stays_out_however_often_it_is_started_also_where_nobody_knows_better",
        ),
    },
    Row {
        id: "O25",
        name: "NewestForgotten",
        breaks: "after their restart the members take an older copy of another one's data",
        place: "src/log/data_dir.rs",
        rule: "9, older copies of a member's data",
        expected: Test(
            "lib",
            "node::tests::rolled_back::a_copy_of_the_same_run_is_told_apart_once_the_node_has_raised_its_generation_and_after_restarts",
        ),
    },
    Row {
        id: "O26",
        name: "EveryStartRaises",
        breaks: "enough starts that fail, or that meet nobody, make an older copy of a member's data the newest",
        place: "src/log/data_dir.rs",
        rule: "9, older copies of a member's data",
        expected: Test(
            "lib",
            "node::tests::rolled_back::starts_that_fail_or_meet_nobody_do_not_make_an_older_copy_the_newest",
        ),
    },
    Row {
        id: "O27",
        name: "OneMemberAdmits",
        breaks: "a node raises the generation of its data with one of four others",
        place: "src/raft/generations.rs",
        rule: "9, older copies of a member's data",
        expected: Test(
            "lib",
            "raft::generations::tests::a_process_may_raise_its_generation_once_a_majority_counts_it",
        ),
    },
    Row {
        id: "O28",
        name: "AcceptedOnce",
        breaks: "a copy that is put back and accepted twice is refused the second time",
        place: "src/log/data_dir.rs",
        rule: "9, older copies of a member's data",
        expected: Test(
            "lib",
            "log::tests::lost_pages::whoever_accepts_the_loss_of_older_data_has_it_count_as_the_newest",
        ),
    },
];

//! Who leads, and when that changes.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, Setup, eventually, meanwhile, texts, within};
use quorumlog::{AppendOptions, NodeId, Outcome, Role};

fn term(cluster: &Cluster, id: NodeId) -> u64 {
    cluster.log(id).status().term
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_leads_alone_and_again_after_each_restart() {
    let cluster = Setup::new(1).start().await;
    let mut last = term(&cluster, 1);
    for round in 0..3_usize {
        cluster.append(format!("round {round}")).await;
        if round == 1 {
            cluster.kill(1)
        } else {
            cluster.stop(1).await
        }
        cluster.start(1).await;
        assert_eq!(cluster.leader().await, 1);
        assert!(term(&cluster, 1) >= last, "a term never goes back");
        last = term(&cluster, 1);
        assert_eq!(cluster.agree().await.len(), round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_have_one_leader_and_two_followers_in_one_term() {
    let cluster = Setup::new(3).steady().start().await;
    let leader = cluster.leader().await;
    for id in cluster.ids() {
        let status = cluster.log(id).status();
        let role = if id == leader { Role::Leader } else { Role::Follower };
        assert_eq!((status.node_id, status.role), (id, role));
        assert_eq!(status.term, term(&cluster, leader));
        assert_eq!(status.members.iter().filter(|member| member.voter).count(), 3);
        assert_eq!(status.failure, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_it_is_sent() {
    let cluster = Setup::new(3).steady().start().await;
    for round in 0..10 {
        let leader = cluster.leader().await;
        let to = leader % 3 + 1;
        cluster.append(format!("round {round}")).await;
        let before = term(&cluster, leader);
        let admin = cluster.log(leader).admin();
        within("a transfer", admin.transfer_leadership(to)).await.expect("all nodes run");
        eventually("the leader to change", async || (cluster.leader().await == to).then_some(()))
            .await;
        assert!(term(&cluster, to) > before);
    }
    assert_eq!(cluster.agree().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_can_be_sent_to_a_node_that_has_just_come_back() {
    let cluster = Setup::new(3).steady().start().await;
    for _ in 0..3 {
        let back = cluster.others(cluster.leader().await)[0];
        cluster.kill(back);
        cluster.append("while it is down").await;
        cluster.start(back).await;
        let admin = cluster.log(cluster.leader().await).admin();
        within("a transfer", admin.transfer_leadership(back)).await.expect("all nodes run");
        assert_eq!(cluster.leader().await, back);
        cluster.agree().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_and_new_logs_are_led_before_an_election_timeout_has_passed() {
    // Each step ends within the patience of these tests, or fails them.
    let timeout = PATIENCE * 10;
    let slow = Setup::new(3).configure(move |config| {
        config.raft.election_timeout_min = timeout;
        config.raft.election_timeout_max = timeout * 2;
    });
    let begun = Instant::now();
    let cluster = slow.start().await;
    for number in 0..8 {
        cluster.create_log(&format!("log-{number}")).await;
    }
    assert!(begun.elapsed() < timeout, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_restarts_changes_neither_leader_nor_term() {
    let cluster = Setup::new(3).steady().start().await;
    let leader = cluster.leader().await;
    let before = term(&cluster, leader);
    for id in cluster.others(leader) {
        cluster.append(format!("before {id} stops")).await;
        if id % 2 == 0 {
            cluster.kill(id)
        } else {
            cluster.stop(id).await
        }
        cluster.append(format!("while {id} is down")).await;
        cluster.start(id).await;
        cluster.agree().await;
        assert_eq!((cluster.leader().await, term(&cluster, leader)), (leader, before));
    }
}

/// Ends the leader in the given way, and looks at who takes over.
async fn the_others_take_over(cluster: &Cluster, end: impl AsyncFn(NodeId)) {
    cluster.append_some("before", 10).await;
    let old = cluster.leader().await;
    let before = term(cluster, old);
    end(old).await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    assert!(term(cluster, new) > before);
    cluster.append_some("after", 10).await;
    assert!(cluster.agree().await.len() >= 20);
    cluster.start(old).await;
    assert!(cluster.agree().await.len() >= 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_elect_a_leader_when_it_is_shut_down() {
    let cluster = Setup::new(3).start().await;
    the_others_take_over(&cluster, async |id| cluster.stop(id).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_elect_a_leader_when_it_dies() {
    let cluster = Setup::new(3).start().await;
    the_others_take_over(&cluster, async |id| cluster.kill(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_elect_a_leader_when_it_is_cut_off() {
    let cluster = Setup::new(3).start().await;
    cluster.append_some("before", 5).await;
    let old = cluster.leader().await;
    let rest = cluster.others(old);
    cluster.network.split(&[old], &rest);
    assert_ne!(cluster.leader_among(&rest).await, old);
    for number in 0..5 {
        cluster.append_among(&rest, format!("after {number}")).await;
    }
    cluster.network.heal();
    assert!(cluster.agree().await.len() >= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_followers_a_leader_takes_nothing_and_its_term_stays() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append("before").await;
    let leader = cluster.leader().await;
    let before = term(&cluster, leader);
    let followers = cluster.others(leader);
    for &id in &followers {
        cluster.kill(id);
    }
    let log = cluster.log(leader);
    let options = AppendOptions::default().with_timeout(Duration::from_millis(200));
    // The first ones may be admitted before the leader knows.
    eventually("the leader to refuse", async || {
        let error = log.append_with("alone", options).await.expect_err("no majority");
        (error.outcome() == Outcome::NotAppended).then_some(())
    })
    .await;
    assert!(log.read_barrier().await.is_err(), "it cannot know what is committed");
    assert_eq!(term(&cluster, leader), before, "it asks first whether it could win");
    drop(log);
    for &id in &followers {
        cluster.start(id).await;
    }
    cluster.append("after").await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_cut_off_comes_back_without_an_election() {
    let cluster = Setup::new(3).steady().start().await;
    let leader = cluster.leader().await;
    let before = term(&cluster, leader);
    let away = cluster.others(leader)[0];
    let rest = [leader, cluster.others(leader)[1]];
    cluster.network.split(&[away], &rest);
    for number in 0..5 {
        cluster.append_among(&rest, format!("while away {number}")).await;
    }
    // Long enough for it to stand for election, were it not told no.
    meanwhile(cluster.config(away).raft.election_timeout_max * 2).await;
    cluster.network.heal();
    cluster.agree().await;
    assert_eq!((cluster.leader().await, term(&cluster, leader)), (leader, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_nothing_but_is_heard_does_not_unseat_the_leader() {
    let cluster = Setup::new(3).steady().start().await;
    let leader = cluster.leader().await;
    let before = term(&cluster, leader);
    let deaf = cluster.others(leader)[0];
    let rest = [leader, cluster.others(leader)[1]];
    cluster.network.cut(leader, deaf);
    let timeout = cluster.config(deaf).raft.election_timeout_max;
    for number in 0..4 {
        cluster.append_among(&rest, format!("while deaf {number}")).await;
        meanwhile(timeout / 2).await;
    }
    assert_eq!((cluster.leader_among(&rest).await, term(&cluster, leader)), (leader, before));
    cluster.network.heal();
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_missed_acknowledged_records_never_leads() {
    let cluster = Setup::new(3).start().await;
    let leader = cluster.leader().await;
    let (stale, fresh) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let rest = [leader, fresh];
    cluster.network.split(&[stale], &rest);
    for number in 0..10 {
        cluster.append_among(&rest, format!("missed {number}")).await;
    }
    cluster.kill(leader);
    cluster.network.heal();
    assert_eq!(cluster.leader().await, fresh, "the other one lacks what was acknowledged");
    assert!(cluster.agree().await.len() >= 10);
    cluster.start(leader).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_commits_what_the_old_one_replicated_without_waiting_for_appends() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append("before").await;
    // A leader that is not sure yet of what a follower holds sends it nothing more before it has its answer.
    cluster.agree().await;
    let old = cluster.leader().await;
    let rest = cluster.others(old);
    // The followers get the records, and the leader does not hear of it.
    for &id in &rest {
        cluster.network.cut(id, old);
    }
    let log = cluster.log(old);
    let end = log.watermarks().end + 1;
    let ticket = log.submit("replicated and not acknowledged").await.expect("it still leads");
    eventually("the followers to hold it", async || {
        rest.iter().all(|id| cluster.log(*id).watermarks().end >= end).then_some(())
    })
    .await;
    for &id in &rest {
        assert!(cluster.log(id).watermarks().committed < end, "nobody may call it committed yet");
    }
    drop((log, ticket));
    cluster.kill(old);
    cluster.network.heal();
    let records = cluster.agree().await;
    assert_eq!(texts(&records), ["before", "replicated and not acknowledged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_keeps_its_records_over_changes_of_leader() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append_some("record", 3).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.kill(leader);
        cluster.leader().await;
        cluster.start(leader).await;
        assert_eq!(cluster.agree().await.len(), 3);
    }
}

//! Nodes that join, leave, and are not let in.

mod cluster;

use std::fs;

use cluster::{LOG, Setup, eventually, meanwhile, name, within};
use quorumlog::{AdminError, Member, Role};

#[tokio::test(flavor = "multi_thread")]
async fn one_node_grows_to_three_and_then_survives_the_loss_of_one() {
    let cluster = Setup::new(1).steady().start().await;
    cluster.append_some("alone", 5).await;
    for id in 2..=3 {
        cluster.start(id).await;
        let member = cluster.node(id).member();
        let admin = cluster.node(1).admin();
        within("a learner", admin.add_learner(member)).await.expect("it runs");
        cluster.append(format!("with learner {id}")).await;
        cluster.agree().await;
        assert_eq!(cluster.log(id).status().role, Role::Learner);
        within("a promotion", admin.promote(id)).await.expect("it has caught up");
        cluster.agree().await;
    }
    cluster.kill(cluster.leader().await);
    cluster.append("after the loss").await;
    assert!(cluster.agree().await.len() >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_no_member_and_is_not_needed() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append_some("before", 3).await;
    let leader = cluster.leader().await;
    let (removed, kept) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    within("a removal", cluster.node(leader).admin().remove(removed)).await.expect("all run");
    let members: Vec<_> =
        cluster.log(leader).status().members.iter().map(|member| member.member.id).collect();
    assert!(!members.contains(&removed), "{members:?}");
    cluster.kill(removed);
    cluster.append("after").await;
    assert!(cluster.agree_among(&[leader, kept]).await.len() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_may_remove_itself() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append_some("before", 3).await;
    let leader = cluster.leader().await;
    let rest = cluster.others(leader);
    within("a removal", cluster.node(leader).admin().remove(leader)).await.expect("all run");
    let new = cluster.leader_among(&rest).await;
    assert_ne!(new, leader);
    cluster.append_among(&rest, "after").await;
    assert!(cluster.agree_among(&rest).await.len() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_may_be_asked_of_any_node() {
    let cluster = Setup::new(3).steady().start().await;
    let follower = cluster.others(cluster.leader().await)[0];
    cluster.start(4).await;
    let member = cluster.node(4).member();
    within("a learner", cluster.node(follower).admin().add_learner(member)).await.expect("4 runs");
    let name = name("more");
    within("a log", cluster.node(follower).create_log(&name)).await.expect("all run");
    eventually("all members to have it", async || {
        cluster.ids().iter().all(|id| cluster.node(*id).log(&name).is_some()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_founded_once() {
    let cluster = Setup::new(1).start().await;
    let member = cluster.node(1).member();
    let error = cluster.node(1).bootstrap([member]).await.expect_err("it exists");
    assert!(matches!(error, AdminError::AlreadyBootstrapped), "{error}");
    cluster.start(2).await;
    assert!(!cluster.node(2).is_bootstrapped());
    let without_itself = [Member::new(7, "10.0.0.7:20911")];
    let error = cluster.node(2).bootstrap(without_itself).await.expect_err("it is not among them");
    assert!(matches!(error, AdminError::Invalid { .. }), "{error}");
    let name = name("early");
    let error = cluster.node(2).create_log(&name).await.expect_err("no cluster yet");
    assert!(matches!(error, AdminError::NotBootstrapped), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_data_is_not_taken_for_its_old_self() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append_some("before", 5).await;
    cluster.agree().await;
    let leader = cluster.leader().await;
    let (wiped, kept) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    cluster.stop(wiped).await;
    fs::remove_dir_all(cluster.directory(wiped)).expect("the directory can be removed");
    cluster.start(wiped).await;
    // It promised and acknowledged things that it no longer knows of, so it counts for nothing.
    for number in 0..20 {
        cluster.append_among(&[leader, kept], format!("after {number}")).await;
    }
    meanwhile(cluster.config(wiped).raft.election_timeout_max).await;
    assert!(cluster.node(wiped).log(&name(LOG)).is_none(), "it was given the log");
    assert!(!cluster.node(wiped).is_bootstrapped());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_left_alone() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.start(9).await;
    let stranger = cluster.node(9);
    stranger.bootstrap([stranger.member()]).await.expect("a cluster of its own");
    let name = name(LOG);
    let its_log = eventually("its log", async || stranger.create_log(&name).await.ok()).await;
    its_log.append("its own").await.expect("it leads itself");
    let admin = cluster.node(1).admin();
    let error = admin.add_learner(stranger.member()).await.expect_err("it has a cluster");
    assert!(error.to_string().contains("belongs to cluster"), "{error}");
    let ours = [1, 2, 3];
    for number in 0..20 {
        cluster.append_among(&ours, format!("ours {number}")).await;
    }
    let records = cluster::read_all(&its_log, its_log.watermarks().begin).await;
    assert_eq!(cluster::texts(&records), ["its own"]);
}

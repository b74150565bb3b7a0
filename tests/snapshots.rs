//! Checkpoints, trimmed logs, and nodes that need what was trimmed.

mod cluster;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cluster::tally::{Tallies, Tally};
use cluster::{Cluster, Setup, eventually, within};
use quorumlog::{NodeId, ReadError, Start};

/// Appends `count` records of 4 KiB in batches, so that they fill `count / 16` segments or more.
async fn fill(cluster: &Cluster, ids: &[NodeId], count: u8) {
    for batch in (0..count).step_by(16) {
        let payloads: Vec<_> = (0..16).map(|n| Bytes::from(vec![batch ^ n; 4 << 10])).collect();
        let appended = eventually("a batch to be acknowledged", async || {
            let log = cluster.log(cluster.leader_among(ids).await);
            log.append_batch(payloads.clone()).await.ok()
        })
        .await;
        for (index, payload) in (appended.index..).zip(payloads) {
            cluster.acknowledge(index, payload);
        }
    }
}

/// Trims the log of some nodes as far as whole segments go, and gives the smallest new begin.
async fn trim(cluster: &Cluster, ids: &[NodeId]) -> u64 {
    cluster.agree_among(ids).await;
    let mut begin = u64::MAX;
    for &id in ids {
        let log = cluster.log(id);
        let before = log.watermarks();
        // It moves to a checkpoint, and those are saved beside the state machine.
        let moved = eventually("a checkpoint to trim to", async || {
            let new = log.admin().trim(before.committed).await.expect("a trim works");
            (new > before.begin).then_some(new)
        });
        let new = moved.await;
        assert!(new <= before.committed, "node {id}: {before:?} to {new}");
        assert_eq!(log.watermarks().begin, new, "node {id}");
        begin = begin.min(new);
    }
    begin
}

/// Waits until all running nodes have the same records and the same state, of so many records.
async fn same_state(cluster: &Cluster, tallies: &Tallies, count: u64) -> Tally {
    cluster.agree().await;
    let ids = cluster.ids();
    let tally = eventually("the state machines to apply all", async || {
        let tally = tallies.of(ids[0]).tally;
        ids.iter().all(|id| tallies.of(*id).tally == tally && tally.count >= count).then_some(tally)
    });
    tally.await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_machine_starts_from_its_checkpoint_and_not_from_the_first_record() {
    let tallies = Tallies::default();
    let cluster = Setup::new(1).tallies(&tallies).start().await;
    cluster.append_some("before", 100).await;
    same_state(&cluster, &tallies, 100).await;
    let upto = cluster.log(1).admin().checkpoint().await.expect("a checkpoint can be taken");
    assert_eq!(upto, cluster.log(1).status().applied);
    cluster.append_some("after", 5).await;
    let before = same_state(&cluster, &tallies, 105).await;
    for kill in [true, false] {
        if kill {
            cluster.kill(1)
        } else {
            cluster.stop(1).await
        }
        cluster.start(1).await;
        assert_eq!(same_state(&cluster, &tallies, 105).await, before);
        let seen = tallies.of(1);
        assert_eq!(seen.restored, 1);
        assert!(seen.replayed <= 5, "{} records were applied again", seen.replayed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_the_checkpoint_and_what_is_left_of_the_log() {
    let tallies = Tallies::default();
    let cluster = Setup::new(3).steady().small_segments().tallies(&tallies).start().await;
    fill(&cluster, &cluster.ids(), 160).await;
    let before = same_state(&cluster, &tallies, 160).await;
    let begin = trim(&cluster, &cluster.ids()).await;
    cluster.start(4).await;
    let member = cluster.node(4).member();
    within("a new member", cluster.node(1).admin().add_learner(member)).await.expect("4 runs");
    assert_eq!(same_state(&cluster, &tallies, 160).await, before);
    assert!(cluster.log(4).watermarks().begin >= begin, "it never gets what was trimmed");
    let seen = tallies.of(4);
    assert!(seen.restored >= 1 && seen.replayed < 160, "{seen:?}");
    within("a promotion", cluster.node(1).admin().promote(4)).await.expect("4 has caught up");
    fill(&cluster, &cluster.ids(), 16).await;
    same_state(&cluster, &tallies, 176).await;
    assert_eq!(cluster.log(4).status().members.iter().filter(|m| m.voter).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_while_the_log_was_trimmed_catches_up_each_time() {
    let tallies = Tallies::default();
    let cluster = Setup::new(3).steady().small_segments().tallies(&tallies).start().await;
    let away = cluster.others(cluster.leader().await)[0];
    for round in 1..=2 {
        cluster.kill(away);
        let rest = cluster.ids();
        fill(&cluster, &rest, 96).await;
        let begin = trim(&cluster, &rest).await;
        cluster.start(away).await;
        let tally = same_state(&cluster, &tallies, 96 * round).await;
        assert_eq!(tally.count, 96 * round);
        assert!(cluster.log(away).watermarks().begin >= begin, "its old log is gone");
        assert!(tallies.of(away).restored >= 1);
    }
    // What it was given counts after a restart too, and in an election.
    cluster.kill(away);
    cluster.start(away).await;
    same_state(&cluster, &tallies, 192).await;
    cluster.transfer(away).await;
    fill(&cluster, &cluster.ids(), 16).await;
    same_state(&cluster, &tallies, 208).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_without_a_state_machine_are_trimmed_and_handed_on_too() {
    let cluster = Setup::new(3).steady().small_segments().start().await;
    let away = cluster.others(cluster.leader().await)[0];
    cluster.kill(away);
    let rest = cluster.ids();
    fill(&cluster, &rest, 96).await;
    let begin = trim(&cluster, &rest).await;
    cluster.start(away).await;
    let records = cluster.agree().await;
    assert!(records[0].index >= begin && records.len() < 96);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_logs_were_trimmed_elect_a_leader_after_a_restart() {
    let cluster = Setup::new(3).small_segments().start().await;
    fill(&cluster, &cluster.ids(), 96).await;
    cluster.agree().await;
    trim(&cluster, &cluster.ids()).await;
    let end = cluster.log(1).watermarks().committed;
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let index = cluster.append("after").await;
    assert!(index >= end, "positions are never used twice: {index} < {end}");
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_what_was_trimmed_are_told_where_the_log_begins() {
    let cluster = Setup::new(1).small_segments().start().await;
    fill(&cluster, &[1], 96).await;
    let first = cluster.agree().await[0].index;
    let begin = trim(&cluster, &[1]).await;
    let log = cluster.log(1);
    let error = log.read(first, 1).await.expect_err("it was trimmed");
    let told = matches!(error, ReadError::Trimmed { requested, begin: b } if (requested, b) == (first, begin));
    assert!(told, "{error:?}, and the log begins at {begin}");
    let mut tail = log.subscribe(Start::At(first));
    let told = within("an answer", tail.next()).await;
    assert!(matches!(told, Some(Err(ReadError::Trimmed { .. }))), "{told:?}");
    assert!(within("the end", tail.next()).await.is_none(), "nothing is skipped silently");
    let mut tail = log.subscribe(Start::Begin);
    let record = within("a record", tail.next()).await.expect("open").expect("readable");
    assert!(record.index >= begin);
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_gives_the_space_back() {
    let cluster = Setup::new(1).small_segments().start().await;
    fill(&cluster, &[1], 160).await;
    let before = cluster.log(1).status().disk_bytes;
    trim(&cluster, &[1]).await;
    eventually("the segments to be gone", async || {
        (cluster.log(1).status().disk_bytes < before / 2).then_some(())
    })
    .await;
    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.agree().await;
    assert!(cluster.log(1).status().disk_bytes < before / 2);
}

/// Files below `dir` that end so, oldest name first.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("the directory is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_passed_over_for_an_older_one() {
    let tallies = Tallies::default();
    let cluster = Setup::new(1).tallies(&tallies).start().await;
    for round in 0..2 {
        cluster.append_some(&format!("round {round}"), 10).await;
        same_state(&cluster, &tallies, 10 * (round + 1)).await;
        cluster.log(1).admin().checkpoint().await.expect("a checkpoint can be taken");
    }
    cluster.append_some("after", 3).await;
    let before = same_state(&cluster, &tallies, 23).await;
    cluster.kill(1);
    let checkpoints = files(&cluster.directory(1), ".ckpt");
    let newest = checkpoints.last().expect("two were taken");
    let mut bytes = fs::read(newest).expect("it can be read");
    let last = bytes.len() - 1;
    bytes[last / 2] ^= 0x40;
    fs::write(newest, bytes).expect("it can be written");
    cluster.start(1).await;
    assert_eq!(same_state(&cluster, &tallies, 23).await, before);
    assert!(tallies.of(1).replayed >= 13, "it began with the older one");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_checkpoints_are_removed() {
    let tallies = Tallies::default();
    let cluster = Setup::new(1).tallies(&tallies).start().await;
    for round in 0..24 {
        cluster.append(format!("round {round}")).await;
        same_state(&cluster, &tallies, round + 1).await;
        cluster.log(1).admin().checkpoint().await.expect("a checkpoint can be taken");
    }
    let held = files(&cluster.directory(1), ".ckpt").len();
    assert!((2..=16).contains(&held), "{held} of 24 checkpoints are held");
    cluster.stop(1).await;
    cluster.start(1).await;
    same_state(&cluster, &tallies, 24).await;
    assert!(tallies.of(1).replayed <= 1);
}

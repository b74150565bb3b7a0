//! Children start, stop, are missed and are never left behind. A shell stands in for the node.

use tempfile::TempDir;

use super::*;
use plan::Ports;

/// Ends when its input does, or on SIGTERM, both with success.
const GOOD: &str = "trap 'exit 0' TERM; echo up >&2; while read line; do :; done";

fn start(script: &str) -> (TempDir, Cluster) {
    let dir = tempfile::tempdir().expect("dir");
    let plan = Plan::create(dir.path(), Ports::Free, &[]).expect("plan");
    let program = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
    let cluster = Cluster::start_program(plan, program, None).expect("started");
    (dir, cluster)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        // paced: another process makes the condition true, and nothing tells us when.
        sleep(Duration::from_millis(2)).await;
    }
}

async fn until_up(cluster: &Cluster) {
    for node in &cluster.plan.nodes {
        until("the node says that it is up", || tail(&log_path(node)) == "up").await;
    }
}

fn runs(pid: u32) -> bool {
    // A zombie has ended; the runtime collects it in the background.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn nodes_that_are_asked_to_stop_end_well() {
    let (_dir, mut cluster) = start(GOOD);
    until_up(&cluster).await;
    cluster.check().expect("all run");
    let pids: Vec<u32> = cluster.ids().into_iter().filter_map(|id| cluster.pid(id)).collect();
    assert_eq!(pids.len(), 3);
    cluster.stop().await.expect("stopped");
    assert!(!pids.into_iter().any(runs));
    assert_eq!(cluster.pid(1), None);
}

#[tokio::test]
async fn a_killed_node_is_no_surprise_and_can_be_started_again() {
    let (_dir, mut cluster) = start(GOOD);
    until_up(&cluster).await;
    let pid = cluster.pid(2).expect("runs");
    cluster.kill(2).await.expect("killed");
    assert!(!runs(pid));
    cluster.check().expect("we killed it ourselves");
    assert!(cluster.kill(2).await.is_err(), "it does not run");
    cluster.start_node(2).expect("started");
    assert!(cluster.pid(2).is_some_and(runs));
}

#[tokio::test]
async fn a_node_that_ends_by_itself_is_found_with_what_it_said() {
    let (_dir, mut cluster) = start("echo 'the disk is gone' >&2; exit 7");
    let mut failure = None;
    until("a node has ended", || {
        failure = cluster.check().err();
        failure.is_some()
    })
    .await;
    let failure = failure.expect("found");
    assert!(failure.message.contains("ended with exit status: 7"), "{failure}");
    assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("the disk is gone")));
}

#[tokio::test]
async fn a_node_that_ends_badly_when_stopped_is_told() {
    let (_dir, mut cluster) = start("trap 'exit 1' TERM; echo up >&2; while read line; do :; done");
    until_up(&cluster).await;
    let failure = cluster.stop().await.expect_err("exit 1");
    assert!(failure.message.contains("exit status: 1"), "{failure}");
}

#[tokio::test]
async fn dropping_the_cluster_leaves_no_process() {
    let (_dir, cluster) = start(GOOD);
    until_up(&cluster).await;
    let pids: Vec<u32> = cluster.ids().into_iter().filter_map(|id| cluster.pid(id)).collect();
    drop(cluster);
    assert!(!pids.into_iter().any(runs));
}

#[test]
fn the_tail_of_a_log_is_whole_lines() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    assert_eq!(tail(&path), "");
    std::fs::write(&path, "one\ntwo\n").expect("write");
    assert_eq!(tail(&path), "one\ntwo");
    let long: String = (0..1000).map(|n| format!("line {n:04}\n")).collect();
    std::fs::write(&path, long).expect("write");
    let end = tail(&path);
    assert!(end.starts_with("line ") && end.ends_with("line 0999"), "{end}");
    assert!(end.len() <= LOG_TAIL_BYTES);
}

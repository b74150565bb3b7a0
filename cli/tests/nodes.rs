//! Nodes as separate processes: how they stop, and what they refuse to start on.

mod binary;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use binary::running::{Running, start};
use binary::{Ended, quorumlog, run};
use rustix::process::Signal;
use serde_json::Value;

/// Every file below a directory, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("dir") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.insert(path.clone(), std::fs::read(path).expect("file"));
        }
    }
    files
}

/// Runs a `start` that is expected to fail.
fn start_fails(id: u64, data: &Path) -> Ended {
    start(id, data, &[]).output().expect("runs").into()
}

/// A node that has stored some records and was stopped.
fn stopped_node(data: &Path) {
    let node = Running::node(1, data, &["--bootstrap", "--set", "storage.segment_size=16KiB"]);
    let lines: String = (0..1000).map(|n| format!("line {n} {}\n", "x".repeat(40))).collect();
    node.append(&["append", "orders", "-", "--create"], &lines).ok();
    assert_eq!(node.terminate(), Some(0));
}

/// The segments of the only log, oldest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|name| name == "seg");
    let system = "0000000000000000";
    let all = files(data).into_keys().filter(is_segment);
    all.filter(|path| !path.to_str().is_some_and(|path| path.contains(&format!("/{system}/"))))
        .collect()
}

/// Node and term of the leader of a log, as `status` tells.
fn leader(of: &Running, log: &str) -> Option<(u64, u64)> {
    let status = of.run(&["status", log, "--output", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).ok()?;
    let logs = status["nodes"].as_array()?.iter().filter_map(|node| node["logs"].get(0));
    let leads = logs.filter(|log| log["role"] == "leader");
    leads.filter_map(|log| Some((log["node_id"].as_u64()?, log["term"].as_u64()?))).next()
}

#[test]
fn a_leader_that_is_terminated_hands_over_and_ends_with_0() {
    let dir = tempfile::tempdir().expect("dir");
    let slow = ["--set", "raft.election_timeout_min=30s", "--set", "raft.election_timeout_max=60s"];
    let founder = [&slow[..], &["--bootstrap"]].concat();
    let first = Running::node(1, &dir.path().join("1"), &founder);
    let others: Vec<Running> =
        (2..=3).map(|id| Running::node(id, &dir.path().join(id.to_string()), &slow)).collect();
    for (node, id) in others.iter().zip(2..) {
        first.run(&["member", "add", &format!("{id}={},{}", node.peers, node.client)]).ok();
        first.run(&["member", "promote", &id.to_string(), "--timeout", "60s"]).ok();
    }
    first.run(&["append", "orders", "one", "--create"]).ok();
    assert_eq!(leader(&first, "orders").map(|(node, _)| node), Some(1));

    assert_eq!(first.terminate(), Some(0));
    let stopped = Instant::now();
    others[0].run(&["append", "orders", "two"]).ok();
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(30), "an election would take longer: {took:?}");
    let led_by = leader(&others[1], "orders").map(|(node, _)| node);
    assert!(matches!(led_by, Some(2 | 3)), "{led_by:?}");
    assert_eq!(others[1].run(&["read", "orders"]).ok(), "one\ntwo\n");
}

#[test]
fn a_data_directory_takes_one_process_and_its_own_node() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Running::node(1, dir.path(), &["--bootstrap"]);
    let second = start_fails(1, dir.path());
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("in use by another process"), "{second:?}");
    node.run(&["append", "orders", "still here", "--create"]).ok();
    assert_eq!(node.terminate(), Some(0));

    let before = files(dir.path());
    let foreign = start_fails(2, dir.path());
    assert_eq!(foreign.code, Some(1), "{foreign:?}");
    assert!(foreign.stderr.contains("belongs to node 1, not to node 2"), "{foreign:?}");
    assert_eq!(files(dir.path()), before);
}

/// A node with one damaged log runs, is not ready, and names the damage; it changes nothing of the log.
fn assert_runs_without_its_log(data: &Path, damage: [&str; 2]) {
    let log = segments(data)[0].parent().expect("a directory").to_owned();
    let before = files(&log);
    let node = Running::node(1, data, &[]);
    let (ready, why) = node.get("/readyz");
    assert!(ready.contains("503") && damage.iter().all(|what| why.contains(what)), "{why}");
    assert!(node.get("/livez").0.contains("200"), "a restart repairs no disk");
    let status: Value = serde_json::from_str(&node.get("/v1/status").1).expect("json");
    assert_eq!(status["problems"][0]["kind"], "log-not-open", "{status}");
    let told = node.run(&["status"]).ok();
    let row =
        |start: &str| told.lines().find(|line| line.trim().starts_with(start)).map(str::to_owned);
    assert!(row("orders").is_some_and(|row| row.contains("stopped")), "{told}");
    assert!(row("log-not-open").is_some_and(|row| row.contains(damage[0])), "{told}");
    let (_, metrics) = node.get("/metrics");
    assert!(metrics.contains("quorumlog_problems{kind=\"log-not-open\"} 1"), "{metrics}");
    node.run(&["append", "another", "works", "--create"]).ok();
    assert_eq!(node.terminate(), Some(0));
    assert_eq!(files(&log), before, "nothing was changed");
}

#[test]
fn a_damaged_log_is_named_with_file_and_offset_and_left_as_it_is_and_the_others_are_served() {
    let dir = tempfile::tempdir().expect("dir");
    stopped_node(dir.path());
    let data = dir.path().to_str().expect("utf-8");
    assert!(run(["verify", data]).ok().contains("nothing is missing"));
    let report: Value =
        serde_json::from_str(&run(["inspect", data, "--output", "json"]).ok()).expect("json");
    assert_eq!(report["node"]["node_id"], 1, "{report}");
    assert_eq!(report["in_use"], false, "{report}");

    // One bit of a payload in the active segment, which later groups prove was durable.
    let segments = segments(dir.path());
    assert!(segments.len() > 2, "{segments:?}");
    let active = segments.last().expect("segments");
    let sound = std::fs::read(active).expect("read");
    let mut damaged = sound.clone();
    damaged[4096 + 200] ^= 1;
    std::fs::write(active, &damaged).expect("write");
    let before = files(dir.path());
    let name = active.to_str().expect("utf-8");
    for refused in [run(["inspect", data]), run(["verify", data])] {
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let said = refused.stdout.clone() + &refused.stderr;
        let line = said.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("the file is not named: {refused:?}"));
        assert!(line.contains("at byte 4096"), "{line}");
    }
    assert_eq!(files(dir.path()), before, "nothing was changed");
    assert_runs_without_its_log(dir.path(), [name, "at byte 4096"]);

    // A sealed segment that is gone.
    std::fs::write(active, &sound).expect("write");
    std::fs::remove_file(&segments[0]).expect("remove");
    let refused = run(["verify", data]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let said = refused.stdout.clone() + &refused.stderr;
    assert!(said.contains(segments[0].to_str().expect("utf-8")), "{said}");
    assert!(said.contains("missing"), "{said}");
    assert_runs_without_its_log(dir.path(), [segments[0].to_str().expect("utf-8"), "missing"]);
}

#[test]
fn a_damaged_sealed_segment_is_found_by_verify_with_file_and_offset() {
    let dir = tempfile::tempdir().expect("dir");
    stopped_node(dir.path());
    let segment = segments(dir.path()).remove(1);
    let mut bytes = std::fs::read(&segment).expect("read");
    // In the first entries, behind the header block.
    bytes[4096 + 200] ^= 1;
    std::fs::write(&segment, bytes).expect("write");
    let before = files(dir.path());
    let found = run(["verify", dir.path().to_str().expect("utf-8")]);
    assert_eq!(found.code, Some(1), "{found:?}");
    let line = found.stdout.lines().find(|line| line.starts_with("DAMAGED"));
    let line = line.unwrap_or_else(|| panic!("{found:?}"));
    assert!(line.contains(segment.to_str().expect("utf-8")) && line.contains("at byte"), "{line}");
    assert_eq!(files(dir.path()), before, "nothing was changed");
}

#[test]
fn an_append_that_nobody_answers_ends_with_3() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Running::node(1, dir.path(), &["--bootstrap"]);
    node.run(&["log", "create", "orders"]).ok();
    let mut append = quorumlog();
    append.args(["append", "orders", "-", "--print-index", "--timeout", "1s", "--node"]);
    append.arg(&node.client).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut append = append.spawn().expect("runs");
    let mut stdin = append.stdin.take().expect("piped");
    let mut stdout = BufReader::new(append.stdout.take().expect("piped"));
    stdin.write_all(b"one\n").expect("writes");
    let mut index = String::new();
    stdout.read_line(&mut index).expect("reads");
    assert!(index.trim().parse::<u64>().is_ok(), "{index:?}");
    // It takes the next record in, and says nothing any more.
    node.signal(Signal::STOP);
    stdin.write_all(b"two\n").expect("writes");
    drop(stdin);
    let ended = Ended::from(append.wait_with_output().expect("ends"));
    node.signal(Signal::CONT);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("1 records acknowledged, 1 unknown"), "{ended:?}");
    assert!(ended.stderr.contains("hint: "), "{ended:?}");
}

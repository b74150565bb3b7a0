//! Commands against real clusters. Each test starts its own nodes, on free ports or its own.

mod binary;

use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use binary::running::Running;
use binary::{quorumlog, run};
use serde_json::Value;

#[test]
fn records_survive_a_stop_and_come_back_in_order() {
    let dir = tempfile::tempdir().expect("dir");
    let dev = Running::dev(dir.path());
    let lines: String = (0..500).map(|n| format!("line {n}\n")).collect();
    let printed = dev.append(&["append", "default", "-", "--print-index"], &lines).ok();
    let indexes: Vec<u64> = printed.lines().map(|line| line.parse().expect("index")).collect();
    assert_eq!(indexes.len(), 500);
    assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]), "{indexes:?}");
    assert_eq!(dev.run(&["read", "default"]).ok(), lines);

    let from = indexes[490].to_string();
    let tail = dev.run(&["tail", "default", "--from", &from, "--max", "10"]).ok();
    assert!(lines.ends_with(&tail) && tail.lines().count() == 10, "{tail}");
    for node in ["1", "2", "3"] {
        let json =
            dev.run(&["read", "default", "--max", "1", "--format", "json", "--from-node", node]);
        let record: Value = serde_json::from_str(&json.ok()).expect("json");
        assert_eq!((&record["index"], &record["text"]), (&indexes[0].into(), &"line 0".into()));
    }
    assert_eq!(dev.terminate(), Some(0));

    let dev = Running::dev(dir.path());
    assert_eq!(dev.run(&["read", "default"]).ok(), lines);
    assert_eq!(dev.terminate(), Some(0));
}

#[test]
fn status_health_and_metrics_tell_of_every_node() {
    let dir = tempfile::tempdir().expect("dir");
    let dev = Running::dev(dir.path());
    dev.run(&["append", "default", "one"]).ok();
    let report: Value =
        serde_json::from_str(&dev.run(&["status", "default", "--output", "json"]).ok())
            .expect("json");
    let nodes = report["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3, "{report}");
    let leaders = nodes.iter().filter(|node| node["logs"][0]["role"] == "leader").count();
    assert_eq!(leaders, 1, "{report}");
    // A node that was not needed for the append may learn of the log a little later.
    let begun = Instant::now();
    let mut table = dev.run(&["status"]).ok();
    while table.lines().count() < 7 && begun.elapsed() < Duration::from_secs(20) {
        table = dev.run(&["status"]).ok();
    }
    assert!(table.lines().count() >= 7, "two logs on three nodes, and heads:\n{table}");

    for path in ["/livez", "/readyz"] {
        assert_eq!(dev.get(path), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()), "{path}");
    }
    let status: Value = serde_json::from_str(&dev.get("/v1/status").1).expect("json");
    assert_eq!(status["node"]["id"], 1, "{status}");
    assert_eq!(status["logs"].as_array().map(Vec::len), Some(2), "{status}");
    assert!(dev.get("/metrics").0.ends_with("200 OK"));
    assert!(dev.get("/nothing").0.contains("404"));
}

#[test]
fn logs_are_made_listed_and_deleted() {
    let dir = tempfile::tempdir().expect("dir");
    let dev = Running::dev(dir.path());
    let missing = dev.run(&["append", "orders", "one"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("quorumlog log create"), "{missing:?}");
    dev.run(&["append", "orders", "one", "--create"]).ok();
    assert_eq!(dev.run(&["log", "create", "orders"]).code, Some(1));
    dev.run(&["log", "create", "orders", "--if-absent"]).ok();
    let list: Value =
        serde_json::from_str(&dev.run(&["log", "list", "-o", "json"]).ok()).expect("json");
    let names: Vec<&str> =
        list.as_array().expect("list").iter().filter_map(|log| log["name"].as_str()).collect();
    assert!(names.contains(&"default") && names.contains(&"orders"), "{names:?}");
    dev.run(&["log", "delete", "orders", "--yes"]).ok();
    assert_eq!(dev.run(&["read", "orders"]).code, Some(1));

    dev.run(&["leader", "transfer", "--to", "3"]).ok();
    let members = dev.run(&["member", "list"]).ok();
    assert_eq!(members.lines().count(), 4, "{members}");
}

#[test]
fn nobody_to_talk_to_is_a_failure_with_a_hint() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        free.local_addr().expect("addr").to_string()
    };
    let ended = run(["append", "default", "x", "--node", &port, "--timeout", "1s"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("hint: "), "{ended:?}");
}

#[test]
fn a_node_stops_when_its_parent_has_gone() {
    let dir = tempfile::tempdir().expect("dir");
    let mut command = quorumlog();
    command
        .args(["start", "--node-id", "1", "--bootstrap", "--listen", "127.0.0.1:0"])
        .args(["--client-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .args(["--stop-at-eof", "--data-dir"])
        .arg(dir.path().join("data"))
        .stdin(Stdio::piped());
    let mut node = Running::spawn(command);
    node.wait_for("node started");
    drop(node.child.stdin.take());
    node.wait_for("stopped");
    assert_eq!(node.child.wait().expect("ends").code(), Some(0));
}

#[test]
fn the_demo_loses_nothing_and_leaves_no_process() {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("demo");
    let ended =
        run(["demo", "--records", "20000", "-o", "json", "--data", data.to_str().expect("utf-8")]);
    let report: Value = serde_json::from_str(&ended.ok()).expect("json");
    assert_eq!(report["problems_total"], 0, "{report}");
    assert_eq!(report["acknowledged"], 20000, "{report}");
    assert_eq!(report["verified"], 60000, "{report}");
    for node in 1..=3 {
        let config = std::fs::read_to_string(data.join(format!("node-{node}.toml")));
        let config: toml::Table = config.expect("config").parse().expect("toml");
        let addr = config["server"]["listen"].as_str().expect("listen");
        assert!(TcpStream::connect(addr).is_err(), "node {node} still listens");
    }
}

#[test]
fn the_bench_measures_each_node_of_each_system() {
    let ended = run([
        "bench",
        "--protocol",
        "native,rocketmq",
        "--clients",
        "1,8",
        "--duration",
        "1s",
        "--warmup",
        "200ms",
        "--size",
        "128",
        "-o",
        "json",
    ]);
    let rows: Vec<Value> =
        ended.ok().lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let systems: Vec<_> = rows.iter().map(|row| row["system"].as_str()).collect();
    assert_eq!(systems, ["quorumlog", "broker", "quorumlog", "broker"].map(Some));
    for row in rows {
        assert!(row["ops_s"].as_f64().is_some_and(|ops| ops > 0.0), "{row}");
        assert_eq!(row["errors"], 0, "{row}");
        assert_eq!(row["nodes"].as_array().map(Vec::len), Some(3), "{row}");
        assert!(row["node_rss_anon_mib"].as_f64().is_some_and(|mib| mib > 0.0), "{row}");
    }
}

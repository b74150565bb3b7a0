//! Exit codes, and what goes to which stream, where no cluster is needed.

mod binary;

use std::net::TcpListener;

use binary::{quorumlog, run};

#[test]
fn help_is_data_and_a_wrong_command_is_not() {
    let help = run(["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{help:?}");
    assert!(help.stdout.contains("Exit codes: 0 ok, 1 failed, 2 usage, 3"), "{help:?}");
    for args in [&[][..], &["bogus"], &["start", "--bogus"], &["bench", "--clients", "0"]] {
        let wrong = run(args);
        assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""), "{args:?}: {wrong:?}");
        assert!(wrong.stderr.contains("--help"), "{args:?}: {wrong:?}");
    }
}

#[test]
fn every_command_has_help() {
    let help = run(["--help"]).stdout;
    let commands = help.split("Commands:").nth(1).expect("commands");
    let commands = commands.split("\n\n").next().expect("list");
    let names = commands.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        (!name.starts_with(' ')).then(|| name.split(' ').next().unwrap_or_default())
    });
    let names: Vec<&str> = names.filter(|name| !name.is_empty() && *name != "help").collect();
    assert_eq!(names.len(), 18, "{names:?}");
    for name in names {
        let help = run([name, "--help"]);
        assert_eq!(help.code, Some(0), "{name}: {help:?}");
        assert!(help.stdout.contains("Examples:"), "{name}: {help:?}");
    }
}

#[test]
fn the_printed_sample_is_a_valid_configuration() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("node.toml");
    std::fs::write(&path, run(["config", "print", "--sample"]).ok()).expect("write");
    let path = path.to_str().expect("utf-8");
    let checked = run(["config", "check", path]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), ""), "{checked:?}");
    assert!(checked.stderr.contains("is fine"), "{checked:?}");
    let print = run(["config", "print", "--config", path]).ok();
    assert!(print.contains("heartbeat_interval = \"100ms\""), "{print}");
}

#[test]
fn a_wrong_setting_is_a_usage_error_that_names_it() {
    let mut command = quorumlog();
    command.args(["config", "print"]).env("QUORUMLOG__RAFT__HEARTBEAT_INTERVALL", "50ms");
    let ended = binary::Ended::from(command.output().expect("runs"));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("QUORUMLOG__RAFT__HEARTBEAT_INTERVALL"), "{ended:?}");
    assert!(ended.stderr.contains("did you mean `raft.heartbeat_interval`?"), "{ended:?}");

    let ended = run(["start", "--node-id", "1"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("data_dir is not given"), "{ended:?}");
    let ended = run(["start", "--config", "/nonexistent/node.toml"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("/nonexistent/node.toml"), "{ended:?}");
}

#[test]
fn a_taken_port_fails_before_anything_is_stored() {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").expect("port");
    let addr = taken.local_addr().expect("addr").to_string();
    let data = data.to_str().expect("utf-8");
    let free = "127.0.0.1:0";
    let start = ["start", "--node-id", "1", "--data-dir", data, "--http-listen", &addr];
    let mut broker = vec!["broker", "--node-id", "1", "--data-dir", data, "--http-listen", free];
    broker.extend(["--listen", free, "--client-listen", free]);
    broker.extend(["--name-server", free, "--broker", &addr]);
    for args in [&start[..], &broker] {
        let ended = run(args.iter().copied());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told = ["cannot listen on", &addr].iter().all(|part| ended.stderr.contains(part));
        assert!(told, "{ended:?}");
        assert!(!dir.path().join("data").exists());
    }
}

#[test]
fn a_log_is_not_deleted_without_being_sure() {
    let ended = run(["log", "delete", "orders"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--yes"), "{ended:?}");
}

#[test]
fn a_reserved_log_name_is_a_usage_error() {
    let ended = run(["log", "create", "_system"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("reserved"), "{ended:?}");
}

#[test]
fn a_demo_without_enough_lines_says_what_to_do() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("lines");
    std::fs::write(&path, "one\n").expect("write");
    let ended = run(["demo", path.to_str().expect("utf-8")]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--records"), "{ended:?}");
}

#[test]
fn a_directory_that_is_not_there_cannot_be_verified() {
    let ended = run(["verify", "/nonexistent/data"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("/nonexistent/data"), "{ended:?}");
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let ended = quorumlog().args(["completions", "bash"]).stdout(writer).output().expect("runs");
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]), "{ended:?}");
}

#[test]
fn completions_know_every_shell_and_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(["completions", shell]).ok();
        assert!(script.contains("transfer") && script.contains("bootstrap"), "{shell}");
    }
}

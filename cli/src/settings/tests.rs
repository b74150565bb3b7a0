//! Precedence, errors, and that the table of keys is complete.

use std::collections::BTreeSet;
use std::time::Duration;

use quorumlog::Flush;

use super::*;
use crate::failure::Exit;

fn file() -> PathBuf {
    PathBuf::from("node.toml")
}

fn layers(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Layers> {
    let mut layers = Layers::defaults();
    layers.text(text, &file())?;
    layers.environment(env.iter().map(|(name, value)| (name.into(), value.into())))?;
    for (path, value) in flags {
        layers.flag("--set", path, value)?;
    }
    Ok(layers)
}

const REQUIRED: &str = "node_id = 1\ndata_dir = \"data\"\n";

fn settings(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings> {
    layers(&format!("{REQUIRED}{text}"), env, flags)?.settings()
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    const KEY: &str = "raft.heartbeat_interval";
    const VARIABLE: &str = "QUORUMLOG__RAFT__HEARTBEAT_INTERVAL";
    let interval = |settings: Settings| settings.node.raft.heartbeat_interval.as_millis();
    let text = "[raft]\nheartbeat_interval = \"90ms\"";
    let env = [(VARIABLE, "80ms")];
    assert_eq!(interval(settings("", &[], &[]).expect("default")), 100);
    assert_eq!(interval(settings(text, &[], &[]).expect("file")), 90);
    assert_eq!(interval(settings(text, &env, &[]).expect("environment")), 80);
    assert_eq!(interval(settings(text, &env, &[(KEY, "70ms")]).expect("flag")), 70);
}

#[test]
fn every_key_can_be_given_by_its_environment_variable() {
    for key in keys::KEYS {
        let given = if key.default.is_empty() { key.example } else { key.default };
        let text = match keys::literal(given) {
            Some(Value::String(text)) => text,
            Some(Value::Array(_)) => "1=a:1,a:2".to_owned(),
            Some(other) => other.to_string(),
            None => panic!("{}: no value", key.path),
        };
        let layers = layers("", &[(&key.variable(), &text)], &[])
            .unwrap_or_else(|failure| panic!("{}: {failure}", key.variable()));
        let origin = Origin::Environment(key.variable());
        assert_eq!(layers.values.get(key.path).map(|(_, origin)| origin), Some(&origin));
    }
}

#[test]
fn an_unknown_key_is_named_with_its_source_and_what_was_meant() {
    let failure = settings("[raft]\nheartbeat_intervall = \"1s\"", &[], &[]).expect_err("typo");
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("`raft.heartbeat_intervall`"), "{failure}");
    assert!(failure.message.contains("node.toml"), "{failure}");
    assert!(failure.hint.as_deref().unwrap_or("").contains("raft.heartbeat_interval"));

    let failure = settings("", &[("QUORUMLOG__RAFT__TURBO", "1")], &[]).expect_err("unknown");
    assert!(failure.message.contains("QUORUMLOG__RAFT__TURBO"), "{failure}");
    let failure = settings("", &[], &[("turbo", "1")]).expect_err("unknown");
    assert!(failure.message.contains("`turbo`") && failure.message.contains("--set"), "{failure}");
    let failure = settings("[extra]\nx = 1", &[], &[]).expect_err("unknown section");
    assert!(failure.message.contains("`extra`"), "{failure}");
    let failure = settings("raft = 5", &[], &[]).expect_err("a section is no value");
    assert!(failure.message.contains("`raft`"), "{failure}");
}

#[test]
fn other_variables_are_left_alone() {
    let env = [("QUORUMLOG_NODES", "a:1"), ("PATH", "/bin"), ("quorumlog__x", "1")];
    settings("", &env, &[]).expect("not ours");
}

#[test]
fn a_bad_value_is_named_with_its_source() {
    let env = [("QUORUMLOG__STORAGE__SEGMENT_SIZE", "huge")];
    let failure = settings("", &env, &[]).expect_err("no size");
    assert!(failure.message.starts_with("storage.segment_size: "), "{failure}");
    assert!(failure.message.contains("QUORUMLOG__STORAGE__SEGMENT_SIZE"), "{failure}");

    let failure = settings("[storage]\nsegment_size = \"1KiB\"", &[], &[]).expect_err("too small");
    assert!(failure.message.starts_with("storage.segment_size: must be"), "{failure}");
    assert!(failure.message.ends_with("(from node.toml)"), "{failure}");

    let failure = settings("", &[], &[("log.level", "quorumlog=loud")]).expect_err("no level");
    assert!(failure.message.starts_with("log.level"), "{failure}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let failure = layers("node_id = 1\nlisten = = 2\n", &[], &[]).expect_err("no toml");
    assert!(failure.message.starts_with("node.toml line 2: "), "{failure}");
    assert!(!failure.message.contains('\n'), "{failure}");
}

#[test]
fn node_id_and_data_dir_must_be_given() {
    let failure = layers("", &[], &[]).expect("no file").settings().expect_err("no id");
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("node_id"), "{failure}");
    let hint = failure.hint.expect("hint");
    assert!(hint.contains("--node-id") && hint.contains("QUORUMLOG__NODE_ID"), "{hint}");
}

#[test]
fn a_bootstrapping_node_must_be_among_its_peers() {
    let flags = [("cluster.bootstrap", "true"), ("cluster.peers", "2=b:1 3=c:1")];
    let failure = settings("", &[], &flags).expect_err("not listed");
    assert!(failure.message.starts_with("cluster.peers: node 1"), "{failure}");
    let flags = [("cluster.bootstrap", "true"), ("cluster.peers", "1=a:1 2=b:1")];
    assert_eq!(settings("", &[], &flags).expect("listed").cluster.peers.len(), 2);
}

#[test]
fn the_sample_parses_and_equals_the_defaults() {
    let from_sample = {
        let mut layers = Layers::defaults();
        layers.text(&sample(), &file()).expect("sample");
        layers.settings().expect("sample")
    };
    let mut defaults = Layers::defaults();
    defaults.flag("--node-id", "node_id", "1").expect("id");
    defaults.flag("--data-dir", "data_dir", "/var/lib/quorumlog").expect("dir");
    let defaults = defaults.settings().expect("defaults");
    assert_eq!(from_sample, defaults);
    assert_eq!(from_sample.node, Config::new(1, "/var/lib/quorumlog"), "as the library has them");
    let server = quorumlog::server::ServerConfig::default();
    assert_eq!(from_sample.server.connections_max, server.connections_max);
    let bytes = |size: usize| ByteCount::new(size as u64);
    assert_eq!(from_sample.server.queue_bytes_max, bytes(server.queue_bytes_max));
    assert_eq!(from_sample.server.read_bytes_max, bytes(server.read_bytes_max));
    assert_eq!(from_sample.server.subscriptions_max, server.subscriptions_max);
}

#[test]
fn the_effective_settings_render_to_a_file_that_gives_them_again() {
    let flags = [
        ("storage.flush", "async"),
        ("retention.age_max", "2d"),
        ("cluster.peers", "1=a:1,a:2 2=b:1"),
        ("log.format", "json"),
    ];
    let layers = layers(REQUIRED, &[], &flags).expect("layers");
    let wanted = layers.settings().expect("settings");
    assert_eq!(wanted.node.storage.flush, Flush::Async);
    assert_eq!(wanted.node.retention.age_max, Some(Duration::from_secs(2 * 86400)));
    let text = layers.render();
    assert!(text.contains("flush = \"async\" # from --set"), "{text}");
    let mut again = Layers::defaults();
    again.text(&text, &file()).expect("renders to a file");
    assert_eq!(again.settings().expect("settings"), wanted);
}

/// Fails when a setting is added to the library or to a section here and not to the table.
#[test]
fn the_table_of_keys_is_complete() {
    let mut node = Config::new(1, "data");
    node.advertise = Some("a:1".to_owned());
    node.client_advertise = Some("a:2".to_owned());
    node.retention.size_max = Some(ByteCount::mib(64));
    node.retention.age_max = Some(Duration::from_secs(1));
    let settings = settings("", &[], &[]).expect("defaults");
    let mut table = Table::try_from(&node).expect("node");
    for (name, section) in [
        ("server", Table::try_from(&settings.server)),
        ("http", Table::try_from(&settings.http)),
        ("log", Table::try_from(&settings.log)),
        ("runtime", Table::try_from(&settings.runtime)),
        ("cluster", Table::try_from(&settings.cluster)),
    ] {
        table.insert(name.to_owned(), section.expect(name).into());
    }
    let mut leaves = Vec::new();
    flatten("", table, &mut leaves);
    let found: BTreeSet<String> = leaves.into_iter().map(|(path, _)| path).collect();
    let listed: BTreeSet<String> = keys::KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(found, listed);
}

#[test]
fn a_node_has_one_thread_for_every_four_cores_unless_told_otherwise() {
    let automatic = RuntimeSettings { worker_threads: 0 };
    for (cores, threads) in [(1, 1), (2, 1), (7, 1), (8, 2), (64, 16)] {
        assert_eq!(automatic.threads(cores), threads, "{cores} cores");
    }
    assert_eq!(RuntimeSettings { worker_threads: 3 }.threads(64), 3);
}

//! The limits in docs/operations.md are those of the code.

use quorumlog::{ByteCount, Config, LOG_NAME_BYTES_MAX};

#[test]
fn the_table_of_limits_has_the_defaults() {
    let page = include_str!("../docs/operations.md");
    let Config { limits, storage, retention, .. } = Config::new(1, "data");
    let size = |key: &str, size: ByteCount| format!("| `{key}` | {size} |");
    let expected = [
        size("limits.record_size_max", limits.record_size_max),
        size("limits.batch_size_max", limits.batch_size_max),
        size("limits.append_inflight_max", limits.append_inflight_max),
        size("limits.tail_cache_max", limits.tail_cache_max),
        size("limits.replication_request_max", limits.replication_request_max),
        size("storage.segment_size", storage.segment_size),
        size("storage.disk_reserve", storage.disk_reserve),
        format!("| `limits.batch_records_max` | {} |", limits.batch_records_max),
        format!("| `limits.connections_max` | {} |", limits.connections_max),
        format!("| `limits.append_timeout` | {:?} |", limits.append_timeout),
        "| `retention.size_max`, `retention.age_max` | none |".to_owned(),
        format!("| log name | | {LOG_NAME_BYTES_MAX} bytes"),
    ];
    for row in expected {
        assert!(page.contains(&row), "docs/operations.md has no row that begins with {row}");
    }
    assert_eq!((retention.size_max, retention.age_max), (None, None));
}

#[test]
fn the_largest_values_named_are_allowed_and_the_next_ones_are_not() {
    let mut config = Config::new(1, "data");
    config.limits.batch_size_max = ByteCount::mib(256);
    config.limits.append_inflight_max = ByteCount::mib(256);
    config.limits.record_size_max = ByteCount::mib(64);
    config.limits.batch_records_max = 65536;
    config.storage.segment_size = ByteCount::mib(1024);
    config.validate().expect("as the page says");
    let too_large: [fn(&mut Config); 4] = [
        |config| config.limits.record_size_max = ByteCount::new((64 << 20) + 1),
        |config| config.limits.batch_size_max = ByteCount::new((256 << 20) + 1),
        |config| config.limits.batch_records_max = 65537,
        |config| config.storage.segment_size = ByteCount::new((1 << 30) + 1),
    ];
    for change in too_large {
        let mut config = config.clone();
        change(&mut config);
        config.validate().expect_err("over the limit");
    }
}

//! Settings of a node: defaults, units and checks.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::ConfigError;
use crate::member::NodeId;
use crate::record::Flush;

/// Everything that a node needs to know before it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Number of this node, 1 or more.
    pub node_id: NodeId,
    /// Directory that holds everything this node stores. Made if absent.
    pub data_dir: PathBuf,
    /// `host:port` to listen on for the other nodes. Port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// `host:port` that the other nodes use to reach this one; `listen` if not given.
    #[serde(default)]
    pub advertise: Option<String>,
    /// `host:port` that clients use, told to clients of other nodes. None: the node serves no clients.
    #[serde(default)]
    pub client_advertise: Option<String>,
    /// Elections and heartbeats.
    #[serde(default)]
    pub raft: RaftConfig,
    /// Files and flushes.
    #[serde(default)]
    pub storage: StorageConfig,
    /// Bounds on what a node holds in memory and takes in.
    #[serde(default)]
    pub limits: Limits,
    /// What is kept of a log.
    #[serde(default)]
    pub retention: Retention,
}

/// Elections and heartbeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RaftConfig {
    /// How often a leader without traffic tells its followers that it is there. They must be able to answer
    /// within this time, which is a round trip and, under load, a flush: else the leader cannot tell that
    /// it still has a majority, and refuses appends.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// A follower that hears nothing for a random time between this and `election_timeout_max`
    /// stands for election.
    #[serde(with = "humantime_serde")]
    pub election_timeout_min: Duration,
    /// See `election_timeout_min`.
    #[serde(with = "humantime_serde")]
    pub election_timeout_max: Duration,
    /// How many append requests may be on their way to one follower of one log.
    pub replication_window: u32,
}

/// Files and flushes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StorageConfig {
    /// What an acknowledgement means for the disks.
    pub flush: Flush,
    /// With `flush = "async"`: how long a written record may stay in the page cache.
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// A segment is sealed when it reaches this size.
    pub segment_size: ByteCount,
    /// Appends are refused while the file system has less free space than this.
    pub disk_reserve: ByteCount,
    /// Threads that write and flush, shared by all logs of the node.
    pub writer_threads: u32,
}

/// Bounds on what a node holds in memory and takes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Largest payload of one record.
    pub record_size_max: ByteCount,
    /// Largest sum of payloads of one batch.
    pub batch_size_max: ByteCount,
    /// Most records in one batch.
    pub batch_records_max: u32,
    /// Payload bytes of one log that may wait until they are applied. Each record counts for 512 bytes more.
    pub append_inflight_max: ByteCount,
    /// Recent entries of one log kept in memory for followers and readers: their payloads, and 128 bytes for each.
    pub tail_cache_max: ByteCount,
    /// Bytes in one append request to a follower.
    pub replication_request_max: ByteCount,
    /// Inbound connections, from nodes and from clients each.
    pub connections_max: u32,
    /// How long an append waits for its commit unless the call says otherwise.
    #[serde(with = "humantime_serde")]
    pub append_timeout: Duration,
}

/// What is kept of a log. A log's newest segment is always kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// Drop the oldest sealed segments while a log is larger than this. No limit if not given.
    pub size_max: Option<ByteCount>,
    /// Drop sealed segments whose newest record is older than this. After the node was off, ages follow at twice the
    /// pace of time. No limit if not given.
    #[serde(with = "humantime_serde")]
    pub age_max: Option<Duration>,
    /// Keep up to so much more for a log's state machine that still needs it: see
    /// [`StateMachine::needs_from`](crate::StateMachine::needs_from).
    pub needed_max: ByteCount,
}

impl Default for Retention {
    fn default() -> Self {
        Self { size_max: None, age_max: None, needed_max: ByteCount::mib(4 << 10) }
    }
}

fn default_listen() -> String {
    "127.0.0.1:20911".to_owned()
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1200),
            replication_window: 4,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            flush: Flush::Sync,
            flush_interval: Duration::from_millis(200),
            segment_size: ByteCount::mib(64),
            disk_reserve: ByteCount::mib(256),
            writer_threads: 4,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            record_size_max: ByteCount::mib(4),
            batch_size_max: ByteCount::mib(8),
            batch_records_max: 4096,
            append_inflight_max: ByteCount::mib(32),
            tail_cache_max: ByteCount::mib(16),
            replication_request_max: ByteCount::mib(1),
            connections_max: 1024,
            append_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Settings for node `node_id` with its data in `data_dir`, everything else by default.
    pub fn new(node_id: NodeId, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_id,
            data_dir: data_dir.into(),
            listen: default_listen(),
            advertise: None,
            client_advertise: None,
            raft: RaftConfig::default(),
            storage: StorageConfig::default(),
            limits: Limits::default(),
            retention: Retention::default(),
        }
    }

    /// The same settings with another listen address.
    #[must_use]
    pub fn with_listen(mut self, addr: impl Into<String>) -> Self {
        self.listen = addr.into();
        self
    }

    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// The first setting that does not, and what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let raft = &self.raft;
        let limits = &self.limits;
        let storage = &self.storage;
        check(self.node_id > 0, "node_id", "must be 1 or more")?;
        check(!self.data_dir.as_os_str().is_empty(), "data_dir", "must be given")?;
        check(self.listen.contains(':'), "listen", "must be host:port")?;
        check(
            raft.heartbeat_interval >= Duration::from_millis(5),
            "raft.heartbeat_interval",
            "must be at least 5ms",
        )?;
        check(
            raft.election_timeout_min >= raft.heartbeat_interval * 2,
            "raft.election_timeout_min",
            "must be at least twice the heartbeat interval",
        )?;
        check(
            raft.election_timeout_max > raft.election_timeout_min,
            "raft.election_timeout_max",
            "must be above election_timeout_min",
        )?;
        check(
            (1..=64).contains(&raft.replication_window),
            "raft.replication_window",
            "must be 1 to 64",
        )?;
        check(
            (4 << 10..=1 << 30).contains(&storage.segment_size.bytes()),
            "storage.segment_size",
            "must be 4KiB to 1GiB",
        )?;
        check(
            (1..=16).contains(&storage.writer_threads),
            "storage.writer_threads",
            "must be 1 to 16",
        )?;
        check(
            (1..=64 << 20).contains(&limits.record_size_max.bytes()),
            "limits.record_size_max",
            "must be 1B to 64MiB",
        )?;
        check(
            (limits.record_size_max.bytes()..=256 << 20).contains(&limits.batch_size_max.bytes()),
            "limits.batch_size_max",
            "must be at least record_size_max and at most 256MiB",
        )?;
        check(
            (1..=65536).contains(&limits.batch_records_max),
            "limits.batch_records_max",
            "must be 1 to 65536",
        )?;
        check(
            limits.append_inflight_max >= limits.batch_size_max,
            "limits.append_inflight_max",
            "must be at least batch_size_max",
        )?;
        check(limits.connections_max > 0, "limits.connections_max", "must be 1 or more")?;
        check(
            self.retention.size_max.is_none_or(|size| size >= storage.segment_size),
            "retention.size_max",
            "must be at least segment_size",
        )
    }
}

fn check(holds: bool, key: &'static str, reason: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::new(key, reason)) }
}

/// A number of bytes. Reads and prints `64MiB`, `512KiB`, `1000`; exact in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteCount {
    /// That many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many times 1,048,576 bytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// As a number.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |&&(_, unit): &&(&str, u64)| self.0 >= unit && self.0.is_multiple_of(unit);
        match UNITS.iter().find(whole) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            Some(1)
        } else {
            UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
        };
        let value = number.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
        value
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no size; write 1000, 512KiB, 64MiB or 2GiB"))
    }
}

impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteCount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\", or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteCount, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteCount, E> {
                Ok(ByteCount(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteCount, E> {
                u64::try_from(bytes).map(ByteCount).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_print_what_they_parse() {
        for text in ["0B", "1000B", "1KiB", "64MiB", "3GiB", "67108865B"] {
            assert_eq!(text.parse::<ByteCount>().expect(text).to_string(), text);
        }
        assert_eq!("1024".parse(), Ok(ByteCount::new(1024)));
        assert_eq!("2 mib".parse(), Ok(ByteCount::mib(2)));
        for bad in ["", "MiB", "1.5MiB", "1MB", "-1", "99999999999999999999", "99999999TiB"] {
            assert!(bad.parse::<ByteCount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_valid_and_errors_name_the_key() {
        let mut config = Config::new(1, "data");
        config.validate().expect("defaults");
        config.raft.election_timeout_min = Duration::from_millis(50);
        let error = config.validate().expect_err("too short").to_string();
        assert!(error.starts_with("raft.election_timeout_min: "), "{error}");
    }
}

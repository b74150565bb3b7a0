//! Every setting: its key, kind, default and meaning. The one table that the configuration file,
//! the environment, `--set`, the sample and the error messages are made from.

use std::str::FromStr;

use quorumlog::{ByteCount, Flush};
use toml::Value;

use super::peers;

/// What a setting's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Up to 2^63 - 1.
    Id,
    /// Up to 2^32 - 1.
    Count,
    Switch,
    Duration,
    Size,
    Flush,
    LogFormat,
    Peers,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// As in the file, with its section: `raft.heartbeat_interval`.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// As TOML; empty if there is none.
    pub(crate) default: &'static str,
    /// As TOML, for the sample, where there is no default.
    pub(crate) example: &'static str,
    pub(crate) doc: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, example: "", doc }
}

const fn open(path: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: "", example, doc }
}

/// All settings, in the order of the sample.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    open("node_id", Kind::Id, "1", "Number of this node, 1 or more, unique in the cluster. Must be given."),
    open("data_dir", Kind::Text, "\"/var/lib/quorumlog\"", "Directory for everything that this node stores. Must be given."),
    key("listen", Kind::Text, "\"127.0.0.1:20911\"", "host:port to listen on for the other nodes."),
    open("advertise", Kind::Text, "\"10.0.0.1:20911\"", "host:port that the other nodes use to reach this one; `listen` if not given."),
    open("client_advertise", Kind::Text, "\"10.0.0.1:20921\"", "host:port that clients use to reach this node; where `server.listen` listens if not given."),

    key("raft.heartbeat_interval", Kind::Duration, "\"100ms\"", "How often a leader without traffic tells its followers that it is there."),
    key("raft.election_timeout_min", Kind::Duration, "\"600ms\"", "A follower that hears nothing for a random time from this on stands for election."),
    key("raft.election_timeout_max", Kind::Duration, "\"1s 200ms\"", "The upper end of that random time."),
    key("raft.replication_window", Kind::Count, "4", "Append requests that may be on their way to one follower of one log, 1 to 64."),

    key("storage.flush", Kind::Flush, "\"sync\"", "What an acknowledgement means: \"sync\": flushed by a majority; \"async\": in a majority's page caches."),
    key("storage.flush_interval", Kind::Duration, "\"200ms\"", "With flush = \"async\": how long a record may stay in the page cache alone."),
    key("storage.segment_size", Kind::Size, "\"64MiB\"", "A segment file is sealed at this size, 4KiB to 1GiB."),
    key("storage.disk_reserve", Kind::Size, "\"256MiB\"", "Appends are refused while the file system has less free space than this; a broker's consumers go on."),
    key("storage.writer_threads", Kind::Count, "4", "Threads that write and flush, shared by all logs, 1 to 16."),

    key("limits.record_size_max", Kind::Size, "\"4MiB\"", "Largest payload of one record, up to 64MiB."),
    key("limits.batch_size_max", Kind::Size, "\"8MiB\"", "Largest sum of payloads of one batch, up to 256MiB."),
    key("limits.batch_records_max", Kind::Count, "4096", "Most records in one batch, up to 65536."),
    key("limits.append_inflight_max", Kind::Size, "\"32MiB\"", "Payloads of one log that may wait until they are applied; each record counts for 512 bytes more."),
    key("limits.tail_cache_max", Kind::Size, "\"16MiB\"", "Recent entries of one log kept in memory for followers and readers."),
    key("limits.replication_request_max", Kind::Size, "\"1MiB\"", "Bytes in one append request to a follower."),
    key("limits.connections_max", Kind::Count, "1024", "Inbound connections from other nodes."),
    key("limits.append_timeout", Kind::Duration, "\"10s\"", "How long an append waits for its commit unless the call says otherwise."),

    open("retention.size_max", Kind::Size, "\"100GiB\"", "Drop the oldest sealed segments while a log is larger than this. No limit if not given."),
    key("retention.needed_max", Kind::Size, "\"4GiB\"", "Keep up to so much more of a log while the program on it still needs it: a broker needs delayed messages until they are due."),
    open("retention.age_max", Kind::Duration, "\"7d\"", "Drop sealed segments whose newest record is older than this. After the node was off, ages follow at twice the pace of time. No limit if not given."),

    key("server.listen", Kind::Text, "\"127.0.0.1:20921\"", "host:port to listen on for clients; empty: serve none."),
    key("server.connections_max", Kind::Count, "1024", "Clients connected at once."),
    key("server.queue_bytes_max", Kind::Size, "\"16MiB\"", "Bytes queued to one client; one that does not read is disconnected above it."),
    key("server.read_bytes_max", Kind::Size, "\"4MiB\"", "Largest response to one read."),
    key("server.subscriptions_max", Kind::Count, "4096", "Subscriptions of all clients."),

    key("http.listen", Kind::Text, "\"127.0.0.1:20931\"", "host:port for /livez, /readyz, /metrics and /v1/status; empty: off."),
    key("http.connections_max", Kind::Count, "64", "HTTP connections at once; the quietest one ends for a new one."),
    key("http.ready_lag_max", Kind::Count, "100000", "/readyz fails while more committed records than this wait to be applied here, in any log."),

    key("log.level", Kind::Text, "\"info\"", "error, warn, info, debug, trace, or directives such as \"info,quorumlog=debug\"."),
    key("log.format", Kind::LogFormat, "\"text\"", "\"text\" or \"json\", on standard error."),

    key("runtime.worker_threads", Kind::Count, "0", "Threads that run tasks; 0: one for every four cores, and at least one."),

    key("cluster.bootstrap", Kind::Switch, "false", "Found the cluster with `peers` as its voters. On one node, and ignored once it has data: leave it out when that is lost."),
    key("cluster.peers", Kind::Peers, "[]", "The first voters, this node among them, as { id = 1, peer_addr = \"host:port\", client_addr = \"host:port\" }."),
];

impl Key {
    /// The key of this path.
    pub(crate) fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The key that somebody who wrote `path` may have meant.
    pub(crate) fn nearest(path: &str) -> Option<&'static str> {
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let close = |key: &Key| {
            let whole = strsim::jaro_winkler(key.path, path);
            let name = strsim::jaro_winkler(&last(key.path), &last(path));
            whole.max(name * 0.98)
        };
        let best = KEYS.iter().max_by(|a, b| close(a).total_cmp(&close(b)))?;
        (close(best) > 0.85).then_some(best.path)
    }

    /// Name of the environment variable for it.
    pub(crate) fn variable(&self) -> String {
        format!("{}{}", super::ENV_PREFIX, self.path.replace('.', "__").to_uppercase())
    }

    /// A value written as plain text, as in the environment.
    ///
    /// # Errors
    /// What it should look like.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            Kind::Id | Kind::Count => Value::Integer(
                text.trim().parse().map_err(|_| format!("{text:?} is no whole number"))?,
            ),
            Kind::Switch => Value::Boolean(
                text.trim().parse().map_err(|_| format!("{text:?} is neither true nor false"))?,
            ),
            Kind::Peers => peers::to_value(&peers::parse_list(text)?),
            _ => Value::String(text.to_owned()),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Checks a value's type and form; whether it makes sense is checked later.
    ///
    /// # Errors
    /// What it should look like.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        match (self.kind, value) {
            (Kind::Text, Value::String(_)) | (Kind::Switch, Value::Boolean(_)) => Ok(()),
            (Kind::Count, Value::Integer(n)) if u32::try_from(*n).is_ok() => Ok(()),
            (Kind::Id, Value::Integer(n)) if *n >= 0 => Ok(()),
            (Kind::Id, _) => Err(format!("{value} is no whole number from 0 on")),
            (Kind::Count, _) => Err(format!("{value} is no whole number from 0 to {}", u32::MAX)),
            (Kind::Size, Value::Integer(n)) if *n >= 0 => Ok(()),
            (Kind::Size, Value::String(text)) => ByteCount::from_str(text).map(drop),
            (Kind::Duration, Value::String(text)) => humantime::parse_duration(text)
                .map(drop)
                .map_err(|_| format!("{text:?} is no duration; write 100ms, 10s or 7d")),
            (Kind::Flush, Value::String(text)) => {
                Flush::from_str(text).map(drop).map_err(|error| error.to_string())
            }
            (Kind::LogFormat, Value::String(text)) if text == "text" || text == "json" => Ok(()),
            (Kind::LogFormat, _) => Err(format!("{value} is neither \"text\" nor \"json\"")),
            (Kind::Peers, _) => peers::from_value(value).map(drop),
            (Kind::Text | Kind::Duration | Kind::Flush, _) => Err(format!("{value} is no text")),
            (Kind::Size, _) => Err(format!("{value} is no size; write \"64MiB\"")),
            (Kind::Switch, _) => Err(format!("{value} is neither true nor false")),
        }
    }

    /// The default, if there is one.
    pub(crate) fn default_value(&self) -> Option<Value> {
        literal(self.default)
    }
}

/// A TOML literal; none if it is empty.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let table: toml::Table = format!("v = {text}").parse().ok()?;
    table.get("v").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_and_example_fits_its_kind() {
        for key in KEYS {
            let text = if key.default.is_empty() { key.example } else { key.default };
            let value = literal(text).unwrap_or_else(|| panic!("{}: {text}", key.path));
            key.check(&value).unwrap_or_else(|why| panic!("{}: {why}", key.path));
            assert!(key.doc.ends_with('.'), "{}", key.path);
        }
    }

    #[test]
    fn a_typo_finds_the_key_that_was_meant() {
        assert_eq!(Key::nearest("raft.heartbeat_intervall"), Some("raft.heartbeat_interval"));
        assert_eq!(Key::nearest("heartbeat_interval"), Some("raft.heartbeat_interval"));
        assert_eq!(Key::nearest("http.ready_lag"), Some("http.ready_lag_max"));
        assert_eq!(Key::nearest("colour"), None);
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_with_what_is_right() {
        let refused =
            |path: &str, text: &str| Key::find(path).expect(path).parse(text).expect_err(text);
        assert!(refused("raft.heartbeat_interval", "5 apples").contains("100ms"));
        assert!(refused("storage.segment_size", "1.5MiB").contains("64MiB"));
        assert!(refused("storage.flush", "maybe").contains("`async`"));
        assert!(refused("node_id", "one").contains("whole number"));
        assert!(refused("node_id", "-1").contains("whole number"));
        assert!(refused("log.format", "xml").contains("json"));
        assert!(refused("cluster.bootstrap", "yes").contains("true"));
        assert!(refused("cluster.peers", "1").contains("ID=PEER_ADDR"));
    }
}

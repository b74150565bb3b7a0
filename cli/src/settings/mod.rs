//! Settings of a served node, merged from flags, environment, file and defaults, in this order.

mod keys;
mod peers;
mod sample;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use quorumlog::{ByteCount, Config, Member};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::failure::{Failure, Result};
pub(crate) use keys::Key;
pub(crate) use peers::parse as parse_peer;

/// Prefix of every environment variable that is a setting.
pub(crate) const ENV_PREFIX: &str = "QUORUMLOG__";

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything that `start` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) node: Config,
    pub(crate) server: ServerSettings,
    pub(crate) http: HttpSettings,
    pub(crate) log: LogSettings,
    pub(crate) runtime: RuntimeSettings,
    pub(crate) cluster: ClusterSettings,
}

/// The listener for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerSettings {
    pub(crate) listen: String,
    pub(crate) connections_max: u32,
    pub(crate) queue_bytes_max: ByteCount,
    pub(crate) read_bytes_max: ByteCount,
    pub(crate) subscriptions_max: u32,
}

/// Health, metrics and status over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpSettings {
    pub(crate) listen: String,
    pub(crate) connections_max: u32,
    pub(crate) ready_lag_max: u64,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogSettings {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// Shape of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuntimeSettings {
    pub(crate) worker_threads: u32,
}

/// Tasks hand an append on more often than they work on it, and each hand-over between threads costs a wake-up.
/// More threads pay off only where separate logs keep them busy.
const CORES_A_THREAD: usize = 4;

impl RuntimeSettings {
    /// Threads to run tasks on, on a machine with so many cores.
    pub(crate) fn threads(&self, cores: usize) -> usize {
        match self.worker_threads {
            0 => (cores / CORES_A_THREAD).max(1),
            threads => threads as usize,
        }
    }
}

/// How the cluster is founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterSettings {
    pub(crate) bootstrap: bool,
    #[serde(deserialize_with = "peers::members")]
    pub(crate) peers: Vec<Member>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// The values given so far. Later layers win, so they are added from file to flags.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    values: BTreeMap<&'static str, (Value, Origin)>,
}

impl Layers {
    /// The defaults alone.
    pub(crate) fn defaults() -> Self {
        let default = |key: &'static Key| Some((key.path, (key.default_value()?, Origin::Default)));
        Self { values: keys::KEYS.iter().filter_map(default).collect() }
    }

    /// Adds a file of TOML.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or holds an unknown key or a value of the wrong kind.
    pub(crate) fn file(&mut self, path: &Path) -> Result {
        let failed = |error: &std::io::Error| {
            Failure::usage(format!("cannot read the configuration {}: {error}", path.display()))
        };
        let size = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
        if size > FILE_BYTES_MAX {
            let shown = path.display();
            return Err(Failure::usage(format!("{shown} is too large for a configuration")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        self.text(&text, path)
    }

    fn text(&mut self, text: &str, path: &Path) -> Result {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| {
                1 + text.get(..span.start).map_or(0, |before| before.matches('\n').count())
            });
            Failure::usage(format!("{} line {line}: {}", path.display(), error.message()))
        })?;
        let mut leaves = Vec::new();
        flatten("", table, &mut leaves);
        for (key_path, value) in leaves {
            let origin = Origin::File(path.to_owned());
            let key = known(&key_path, &origin)?;
            self.put(key, value, origin)?;
        }
        Ok(())
    }

    /// Adds the variables that begin with [`ENV_PREFIX`].
    ///
    /// # Errors
    /// One names no setting, or its value is of the wrong kind.
    pub(crate) fn environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else {
                continue;
            };
            let origin = Origin::Environment(name.to_owned());
            let path = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
            let key = known(&path, &origin)?;
            let value = utf8(&value, key, &origin)?;
            self.parse(key, value, origin)?;
        }
        Ok(())
    }

    /// Adds a value given by the flag `flag`.
    ///
    /// # Errors
    /// The key is unknown, or the value is of the wrong kind.
    pub(crate) fn flag(&mut self, flag: &str, path: &str, text: &str) -> Result {
        let origin = Origin::Flag(flag.to_owned());
        let key = known(path, &origin)?;
        self.parse(key, text, origin)
    }

    fn parse(&mut self, key: &'static Key, text: &str, origin: Origin) -> Result {
        let value = key.parse(text).map_err(|why| refused(key.path, &why, &origin))?;
        self.values.insert(key.path, (value, origin));
        Ok(())
    }

    fn put(&mut self, key: &'static Key, value: Value, origin: Origin) -> Result {
        key.check(&value).map_err(|why| refused(key.path, &why, &origin))?;
        self.values.insert(key.path, (value, origin));
        Ok(())
    }

    /// Puts the layers together and checks that the settings make sense.
    ///
    /// # Errors
    /// A setting is missing or makes no sense; the key and where its value came from are named.
    pub(crate) fn settings(&self) -> Result<Settings> {
        for required in ["node_id", "data_dir"] {
            if !self.values.contains_key(required) {
                let variable = Key::find(required).map(Key::variable).unwrap_or_default();
                let flag = required.replace('_', "-");
                return Err(Failure::usage(format!("{required} is not given")).with_hint(format!(
                    "give --{flag}, {variable} or --config FILE; `--dev` needs none"
                )));
            }
        }
        let mut table = Table::new();
        for (path, (value, _)) in &self.values {
            match path.split_once('.') {
                Some((section, name)) => {
                    let section = table.entry(section).or_insert_with(|| Table::new().into());
                    if let Value::Table(section) = section {
                        section.insert(name.to_owned(), value.clone());
                    }
                }
                None => drop(table.insert((*path).to_owned(), value.clone())),
            }
        }
        let settings = Settings {
            server: section(&mut table, "server")?,
            http: section(&mut table, "http")?,
            log: section(&mut table, "log")?,
            runtime: section(&mut table, "runtime")?,
            cluster: section(&mut table, "cluster")?,
            node: typed(Value::Table(table))?,
        };
        self.check(&settings)?;
        Ok(settings)
    }

    fn check(&self, settings: &Settings) -> Result {
        let wrong = |path: &'static str, why: &str| {
            let origin = self.values.get(path).map_or(&Origin::Default, |(_, origin)| origin);
            Err(refused(path, why, origin))
        };
        if let Err(error) = settings.node.validate() {
            return wrong(error.key, &error.reason);
        }
        let Settings { node, server, http, runtime, cluster, .. } = settings;
        for (path, listen) in [("server.listen", &server.listen), ("http.listen", &http.listen)] {
            if !listen.is_empty() && !listen.contains(':') {
                return wrong(path, "must be host:port, or empty");
            }
        }
        for (path, count) in [
            ("server.connections_max", u64::from(server.connections_max)),
            ("server.queue_bytes_max", server.queue_bytes_max.bytes()),
            ("server.read_bytes_max", server.read_bytes_max.bytes()),
            ("server.subscriptions_max", u64::from(server.subscriptions_max)),
            ("http.connections_max", u64::from(http.connections_max)),
        ] {
            if count == 0 {
                return wrong(path, "must be 1 or more");
            }
        }
        if runtime.worker_threads > 1024 {
            return wrong("runtime.worker_threads", "must be 1024 or less");
        }
        crate::logging::filter(&settings.log.level)?;
        let listed = cluster.peers.iter().any(|peer| peer.id == node.node_id);
        if cluster.bootstrap && !cluster.peers.is_empty() && !listed {
            let why = format!("node {}, which bootstraps, must be among them", node.node_id);
            return wrong("cluster.peers", &why);
        }
        Ok(())
    }

    /// The file that would give these settings, with what each means and where it came from.
    pub(crate) fn render(&self) -> String {
        sample::render(|key| self.values.get(key.path).map(|(value, origin)| (value, origin)))
    }
}

/// A file with every setting at its default.
pub(crate) fn sample() -> String {
    sample::sample()
}

fn section<T: for<'de> Deserialize<'de>>(table: &mut Table, name: &str) -> Result<T> {
    typed(table.remove(name).unwrap_or_else(|| Table::new().into()))
}

fn typed<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T> {
    value.try_into().map_err(|error: toml::de::Error| {
        let text = error.to_string();
        Failure::usage(text.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

fn utf8<'a>(value: &'a OsStr, key: &Key, origin: &Origin) -> Result<&'a str> {
    value.to_str().ok_or_else(|| refused(key.path, "the value is no UTF-8", origin))
}

fn refused(path: &str, why: &str, origin: &Origin) -> Failure {
    Failure::usage(format!("{path}: {why} (from {origin})"))
}

fn known(path: &str, origin: &Origin) -> Result<&'static Key> {
    Key::find(path).ok_or_else(|| {
        let failure = Failure::usage(format!("unknown setting `{path}` (from {origin})"));
        match Key::nearest(path) {
            Some(near) => failure.with_hint(format!("did you mean `{near}`?")),
            None => failure.with_hint("`quorumlog config print --sample` lists all settings"),
        }
    })
}

/// Lists the values of a table by their whole path. Tables that are a known setting's section are
/// entered; everything else is a value, known or not.
fn flatten(prefix: &str, table: Table, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let inside = format!("{path}.");
        match value {
            Value::Table(table) if keys::KEYS.iter().any(|key| key.path.starts_with(&inside)) => {
                flatten(&path, table, leaves);
            }
            value => leaves.push((path, value)),
        }
    }
}

#[cfg(test)]
mod tests;

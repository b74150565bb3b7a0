//! How commands reach a cluster.

use std::time::Duration;

use quorumlog::client::{Client, ClientConfig};
use quorumlog::{AdminError, LogName};

use crate::failure::Result;

/// Where the cluster is, and how long to wait for it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClientArgs {
    /// Client address of a node; repeat it for more. The other nodes are found through them.
    #[arg(
        short,
        long = "node",
        value_name = "HOST:PORT",
        env = "QUORUMLOG_NODES",
        value_delimiter = ',',
        value_parser = host_port,
        default_value = "127.0.0.1:20921"
    )]
    pub(crate) nodes: Vec<String>,
    /// How long one call may take, with all its retries.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(crate) timeout: Duration,
}

impl ClientArgs {
    /// Connects to one of the nodes.
    ///
    /// # Errors
    /// None can be reached.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let mut config = ClientConfig::new(&self.nodes);
        config.timeout = self.timeout;
        Ok(Client::connect(config).await?)
    }
}

/// Makes a log unless it exists.
///
/// # Errors
/// The cluster refuses, or cannot be reached.
pub(crate) async fn ensure_log(client: &Client, name: &LogName) -> Result {
    match client.create_log(name).await {
        Ok(_) | Err(AdminError::LogExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads a name of a log from the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn log_name(text: &str) -> std::result::Result<LogName, String> {
    LogName::new(text).map_err(|error| error.to_string())
}

/// Reads a duration such as `10s`.
///
/// # Errors
/// What it should look like.
pub(crate) fn duration(text: &str) -> std::result::Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write 100ms, 10s or 2m".to_owned())
}

/// Reads `host:port`.
///
/// # Errors
/// What it should look like.
pub(crate) fn host_port(text: &str) -> std::result::Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("write HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:20921", "[::1]:1", "node-1.example:65535"] {
            assert_eq!(host_port(good), Ok(good.to_owned()));
        }
        for bad in ["", "host", ":1", "host:", "host:65536"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }
}

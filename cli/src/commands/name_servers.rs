//! How commands reach brokers.

use crate::client::host_port;

/// Where the name servers are.
#[derive(Debug, clap::Args)]
pub(super) struct NameServers {
    /// Address of a name server; repeat it for more.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, default_value = "127.0.0.1:9876")]
    pub(super) name_server: Vec<String>,
}

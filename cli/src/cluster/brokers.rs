//! Where the nodes of a local cluster are name servers and brokers.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use crate::commands::broker::PORTS_A_LOG;
use crate::failure::Result;
use crate::ports;

/// Ports of each node: one for its name server, and some for the broker of each log, in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerPorts {
    name_servers: Vec<u16>,
    brokers: Vec<u16>,
    logs: u16,
    /// `KEY=VALUE`, which a broker takes from its command line only where its defaults differ.
    settings: Vec<String>,
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl BrokerPorts {
    /// Ports that are free now.
    ///
    /// # Errors
    /// There are not enough.
    pub(crate) fn free(nodes: usize, logs: u16) -> Result<Self> {
        let of_node = usize::from(logs.max(1)) * usize::from(PORTS_A_LOG);
        let row = ports::free_row(nodes * (1 + of_node))?;
        let (name_servers, brokers) = row.split_at(nodes);
        // A broker's is the last of its ports: another one is two below.
        let brokers = brokers.iter().copied().skip(usize::from(PORTS_A_LOG) - 1);
        let brokers = brokers.step_by(of_node).collect();
        Ok(Self { name_servers: name_servers.to_vec(), brokers, logs, settings: Vec::new() })
    }

    /// The same with settings that the nodes are given.
    pub(crate) fn with_settings(mut self, settings: &[(&str, &str)]) -> Self {
        self.settings = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self
    }

    /// What the n-th node is started with, from 0.
    pub(super) fn arguments(&self, node: usize) -> Vec<OsString> {
        let port = |ports: &[u16]| ports.get(node).map(|port| local(*port).to_string());
        let mut arguments: Vec<OsString> = vec!["--logs".into(), self.logs.to_string().into()];
        for (flag, addr) in
            [("--name-server", port(&self.name_servers)), ("--broker", port(&self.brokers))]
        {
            arguments.extend(addr.into_iter().flat_map(|addr| [flag.into(), addr.into()]));
        }
        arguments.extend(self.settings.iter().flat_map(|it| ["--set".into(), it.into()]));
        arguments
    }

    /// The name servers.
    pub(crate) fn name_servers(&self) -> Vec<String> {
        self.name_servers.iter().map(|port| local(*port).to_string()).collect()
    }

    /// The broker of a log on the n-th node.
    pub(crate) fn broker(&self, node: usize, log: u16) -> Option<SocketAddr> {
        self.brokers.get(node).map(|first| local(first + log * PORTS_A_LOG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_listen_on_ports_of_their_own() {
        let ports = BrokerPorts::free(3, 2).expect("ports");
        let names = ports.name_servers().into_iter().map(|addr| addr.parse().expect("an address"));
        let mut all: Vec<SocketAddr> = names.collect();
        for node in 0..3 {
            all.extend((0..2).filter_map(|log| ports.broker(node, log)));
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
        assert_eq!(ports.broker(3, 0), None);
        let second = ports.broker(1, 0).expect("an address").to_string();
        let arguments = ports.arguments(1);
        assert!(arguments.contains(&second.into()), "{arguments:?}");
        assert_eq!(arguments.len(), 6);
        let more = ports.with_settings(&[("a.b", "1")]).arguments(1);
        assert_eq!(more[6..], [OsString::from("--set"), OsString::from("a.b=1")]);
    }
}

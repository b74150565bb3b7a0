//! Where three nodes on loopback listen and keep their data, as configuration files in a directory.

use std::path::{Path, PathBuf};

use quorumlog::Member;

use crate::failure::{Failure, Result};
use crate::ports;
use crate::settings::Layers;

/// Nodes of a local cluster.
const NODES: u16 = 3;

/// Default ports of node 1; nodes 2 and 3 take the next ones.
const PEER_PORT: u16 = 20911;
const CLIENT_PORT: u16 = 20921;
const HTTP_PORT: u16 = 20931;

/// Which ports a new plan takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// The default ones, or free ones if any of those is taken.
    DefaultOrFree,
    /// Free ones.
    Free,
}

/// A local cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) nodes: Vec<PlannedNode>,
}

/// One node of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedNode {
    pub(crate) member: Member,
    pub(crate) http_addr: String,
    pub(crate) config: PathBuf,
    pub(crate) data_dir: PathBuf,
}

impl Plan {
    /// Chooses ports and writes `node-1.toml` to `node-3.toml` into `dir`. Node 1 founds the
    /// cluster. `settings` go into each file.
    ///
    /// # Errors
    /// There are no ports, or the files cannot be written.
    pub(crate) fn create(dir: &Path, ports: Ports, settings: &[(&str, &str)]) -> Result<Self> {
        let ports = choose(ports)?;
        let member = |id: u16| {
            let at = usize::from(id - 1) * 3;
            Member::new(u64::from(id), format!("127.0.0.1:{}", ports[at]))
                .with_client_addr(format!("127.0.0.1:{}", ports[at + 1]))
        };
        let members: Vec<Member> = (1..=NODES).map(member).collect();
        let node = |member: &Member| PlannedNode {
            http_addr: format!("127.0.0.1:{}", ports[(member.id as usize - 1) * 3 + 2]),
            config: config_path(dir, member.id),
            data_dir: dir.join(format!("node-{}", member.id)),
            member: member.clone(),
        };
        let plan = Self { dir: dir.to_owned(), nodes: members.iter().map(node).collect() };
        for node in &plan.nodes {
            let text = plan.config(node, settings)?;
            std::fs::write(&node.config, text).map_err(|error| {
                Failure::io(format_args!("cannot write {}", node.config.display()), &error)
            })?;
        }
        Ok(plan)
    }

    /// The plan that an earlier run left in `dir`, if there is one.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>> {
        let mut nodes = Vec::new();
        for id in 1..=u64::from(NODES) {
            let config = config_path(dir, id);
            if !config.exists() {
                return Ok(None);
            }
            let mut layers = Layers::defaults();
            layers.file(&config)?;
            let settings = layers.settings()?;
            nodes.push(PlannedNode {
                member: Member::new(settings.node.node_id, settings.node.listen)
                    .with_client_addr(settings.server.listen),
                http_addr: settings.http.listen,
                config,
                data_dir: settings.node.data_dir,
            });
        }
        Ok(Some(Self { dir: dir.to_owned(), nodes }))
    }

    /// Where clients reach the nodes.
    pub(crate) fn client_addrs(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.member.client_addr.clone()).collect()
    }

    fn config(&self, node: &PlannedNode, settings: &[(&str, &str)]) -> Result<String> {
        let Some(data_dir) = node.data_dir.to_str() else {
            return Err(Failure::usage(format!("{} is no UTF-8", node.data_dir.display())));
        };
        let peer = |node: &PlannedNode| {
            format!("{}={},{}", node.member.id, node.member.peer_addr, node.member.client_addr)
        };
        let peers: Vec<String> = self.nodes.iter().map(peer).collect();
        let mut layers = Layers::defaults();
        for (key, value) in [
            ("node_id", node.member.id.to_string().as_str()),
            ("data_dir", data_dir),
            ("listen", &node.member.peer_addr),
            ("server.listen", &node.member.client_addr),
            ("http.listen", &node.http_addr),
            ("cluster.bootstrap", if node.member.id == 1 { "true" } else { "false" }),
            ("cluster.peers", &peers.join(" ")),
        ] {
            layers.flag("the plan of a local cluster", key, value)?;
        }
        for (key, value) in settings {
            layers.flag("the command line", key, value)?;
        }
        layers.settings()?;
        Ok(layers.render())
    }
}

fn config_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("node-{id}.toml"))
}

/// For each node: peers, clients, HTTP.
fn choose(ports: Ports) -> Result<Vec<u16>> {
    let default: Vec<u16> =
        (0..NODES).flat_map(|n| [PEER_PORT + n, CLIENT_PORT + n, HTTP_PORT + n]).collect();
    match ports {
        Ports::DefaultOrFree if ports::are_free(&default) => Ok(default),
        _ => ports::free(usize::from(NODES) * 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_found_again_as_it_was_made() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(Plan::load(dir.path()).expect("empty"), None);
        let settings = [("storage.flush", "async")];
        let plan = Plan::create(dir.path(), Ports::Free, &settings).expect("plan");
        assert_eq!(plan.nodes.len(), 3);
        assert_eq!(Plan::load(dir.path()).expect("load"), Some(plan.clone()));

        let mut founders = Vec::new();
        for node in &plan.nodes {
            let mut layers = Layers::defaults();
            layers.file(&node.config).expect("config");
            let settings = layers.settings().expect("settings");
            assert_eq!(settings.node.storage.flush, quorumlog::Flush::Async);
            assert_eq!(settings.cluster.peers.len(), 3);
            if settings.cluster.bootstrap {
                founders.push(settings.node.node_id);
            }
        }
        assert_eq!(founders, [1], "one node founds the cluster");
    }
}

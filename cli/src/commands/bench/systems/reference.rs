//! The reference: three processes of the least that an append to three nodes has to do.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quorumlog::{Flush, NodeId};
use quorumlog_reference::{Client, counts};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::NodeSample;
use crate::cluster::POLL;
use crate::commands::bench::Args;
use crate::commands::bench::appender::Appender;
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::ports;
use crate::proc::ProcessSample;
use crate::workspace::Workspace;

/// How long the nodes may take to write their files and listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The nodes, the leader first, and clients of the leader.
pub(in crate::commands::bench) struct Reference {
    nodes: Vec<ReferenceNode>,
    /// One for each connection.
    clients: Vec<Client>,
    _workspace: Workspace,
}

struct ReferenceNode {
    id: NodeId,
    addr: String,
    process: Child,
}

impl Reference {
    pub(super) async fn start(args: &Args, flush: Flush) -> Result<Self> {
        let workspace = Workspace::fresh(args.data_of("reference", flush).as_deref(), "reference")?;
        note(format_args!("starting the reference in {}", workspace.path().display()));
        let addrs: Vec<String> =
            ports::free(3)?.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut nodes = Vec::new();
        for (id, addr) in (1..).zip(&addrs) {
            let followers = if id == 1 { &addrs[1..] } else { &[] };
            let process = spawn(addr, followers, &workspace.path().join(id.to_string()), flush)?;
            nodes.push(ReferenceNode { id, addr: addr.clone(), process });
        }
        let mut system = Self { nodes, clients: Vec::new(), _workspace: workspace };
        let deadline = Instant::now() + START_TIMEOUT;
        // A node listens at once and answers once its file is written.
        for addr in &addrs {
            loop {
                system.check()?;
                match counts(addr).await {
                    Ok(_) => break,
                    Err(_) if Instant::now() < deadline => sleep(POLL).await,
                    Err(error) => return Err(Failure::io("the reference is not ready", &error)),
                }
            }
        }
        for _ in 0..args.connections {
            let client = Client::connect(&addrs[0]).await;
            let client = client.map_err(|error| Failure::io("connect to the reference", &error))?;
            system.clients.push(client);
        }
        Ok(system)
    }

    pub(super) fn appenders(&self) -> Vec<Appender> {
        self.clients.iter().cloned().map(Appender::Reference).collect()
    }

    pub(super) async fn sample(&self) -> Vec<NodeSample> {
        let mut samples = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let Some(process) = node.process.id().and_then(ProcessSample::of) else { continue };
            let flushes = counts(&node.addr).await.ok().map(|counts| counts.flushes);
            samples.push(NodeSample { node: node.id, process, flushes });
        }
        samples
    }

    pub(super) fn check(&mut self) -> Result {
        for node in &mut self.nodes {
            if let Ok(Some(status)) = node.process.try_wait() {
                let id = node.id;
                return Err(Failure::failed(format!("reference node {id} ended with {status}")));
            }
        }
        Ok(())
    }

    pub(super) async fn end(mut self) -> Result {
        for node in &mut self.nodes {
            let killed = node.process.kill().await;
            killed.map_err(|error| Failure::io("cannot end a reference node", &error))?;
        }
        Ok(())
    }
}

fn spawn(addr: &str, followers: &[String], data: &Path, flush: Flush) -> Result<Child> {
    let failed = |error: std::io::Error| Failure::io("cannot start a reference node", &error);
    std::fs::create_dir_all(data).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["reference-node", "--listen", addr, "--flush", &flush.to_string(), "--data"]);
    command.arg(data);
    for follower in followers {
        command.args(["--follower", follower]);
    }
    // Its standard input tells it when we have gone. A Ctrl-C at the terminal is for us.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
    command.spawn().map_err(failed)
}

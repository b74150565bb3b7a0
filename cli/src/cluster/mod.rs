//! Three nodes as child processes. However this process ends, they end too: by their process ids
//! when the value is dropped, and by the end of their standard input when we are killed.

pub(crate) mod brokers;
pub(crate) mod plan;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use quorumlog::client::{Client, ClientConfig};
use quorumlog::{NodeId, Status, with_sources};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{Failure, Result};
use crate::proc::ProcessSample;
use crate::settings::ENV_PREFIX;
use brokers::BrokerPorts;
use plan::{Plan, PlannedNode};

/// How often to check a condition that nothing notifies us of.
pub(crate) const POLL: Duration = Duration::from_millis(25);

/// How long nodes may take to start and elect a leader.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a node may take to drain and stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a node's log that a failure quotes.
const LOG_TAIL_BYTES: usize = 2048;

/// The running nodes of a plan.
pub(crate) struct Cluster {
    pub(crate) plan: Plan,
    /// What to run, before the arguments of the command.
    program: Vec<OsString>,
    /// If the nodes are brokers.
    brokers: Option<BrokerPorts>,
    children: BTreeMap<NodeId, Child>,
}

impl Cluster {
    /// Starts all nodes of the plan.
    ///
    /// # Errors
    /// A process cannot be started.
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        Self::start_program(plan, vec![this_binary()?.into()], None)
    }

    /// Starts all nodes of the plan as brokers.
    ///
    /// # Errors
    /// A process cannot be started.
    pub(crate) fn start_brokers(plan: Plan, ports: BrokerPorts) -> Result<Self> {
        let program = vec![this_binary()?.into()];
        Self { plan, program, brokers: Some(ports), children: BTreeMap::new() }.start_all(None)
    }

    /// Starts all nodes of the plan but one, which the caller runs.
    ///
    /// # Errors
    /// A process cannot be started.
    pub(crate) fn start_without(plan: Plan, own: NodeId) -> Result<Self> {
        Self::start_program(plan, vec![this_binary()?.into()], Some(own))
    }

    fn start_program(plan: Plan, program: Vec<OsString>, own: Option<NodeId>) -> Result<Self> {
        Self { plan, program, brokers: None, children: BTreeMap::new() }.start_all(own)
    }

    fn start_all(mut self, own: Option<NodeId>) -> Result<Self> {
        for id in self.ids().into_iter().filter(|id| own != Some(*id)) {
            self.start_node(id)?;
        }
        Ok(self)
    }

    /// The nodes, running or not.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.plan.nodes.iter().map(|node| node.member.id).collect()
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(crate) fn start_node(&mut self, id: NodeId) -> Result {
        let node = self.planned(id)?;
        let log_path = log_path(node);
        let failed =
            |error: std::io::Error| Failure::io(format_args!("cannot start node {id}"), &error);
        let log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(failed)?;
        let [program, args @ ..] = self.program.as_slice() else {
            return Err(Failure::failed("there is no program to run"));
        };
        let number = self.plan.nodes.iter().position(|node| node.member.id == id);
        let (as_what, more) = match self.brokers.as_ref().zip(number) {
            Some((brokers, number)) => ("broker", brokers.arguments(number)),
            None => ("start", Vec::new()),
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .arg(as_what)
            .args(more)
            .arg("--config")
            .arg(&node.config)
            .arg("--stop-at-eof")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // A Ctrl-C at the terminal is for us; we stop the nodes.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with(ENV_PREFIX)) {
                command.env_remove(name);
            }
        }
        self.children.insert(id, command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Process id of a node that runs.
    pub(crate) fn pid(&self, id: NodeId) -> Option<u32> {
        self.children.get(&id)?.id()
    }

    /// What the process of a node has used so far.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn process(&self, id: NodeId) -> Result<ProcessSample> {
        let process = self.pid(id).and_then(ProcessSample::of);
        process.ok_or_else(|| Failure::failed(format!("node {id} cannot be looked at")))
    }

    /// Kills a node with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) async fn kill(&mut self, id: NodeId) -> Result {
        let Some(mut child) = self.children.remove(&id) else {
            return Err(Failure::failed(format!("node {id} does not run")));
        };
        let killed = child.kill().await;
        killed.map_err(|error| Failure::io(format_args!("cannot kill node {id}"), &error))
    }

    /// Asks all nodes with SIGTERM to stop, and waits until they have.
    ///
    /// # Errors
    /// One did not stop in time, and was killed, or stopped with a failure.
    pub(crate) async fn stop(&mut self) -> Result {
        for pid in self.children.values().filter_map(process_id) {
            // One that has just ended by itself is found out below.
            let _ = kill_process(pid, Signal::TERM);
        }
        let mut result = Ok(());
        for (id, mut child) in std::mem::take(&mut self.children) {
            let problem = match timeout(STOP_TIMEOUT, child.wait()).await {
                Ok(Ok(status)) if status.success() => continue,
                Ok(Ok(status)) => self.ended(id, status),
                Ok(Err(error)) => Failure::io(format_args!("node {id}"), &error),
                Err(_) => {
                    let _ = child.kill().await;
                    Failure::failed(format!("node {id} did not stop within {STOP_TIMEOUT:?}"))
                }
            };
            result = result.and(Err(problem));
        }
        result
    }

    /// Fails if a node has ended by itself, quoting the end of what it said.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn check(&mut self) -> Result {
        let ended = self.children.iter_mut().find_map(|(id, child)| {
            let status = child.try_wait().ok().flatten()?;
            Some((*id, status))
        });
        match ended {
            None => Ok(()),
            Some((id, status)) => {
                self.children.remove(&id);
                Err(self.ended(id, status))
            }
        }
    }

    fn ended(&self, id: NodeId, status: ExitStatus) -> Failure {
        let said = self.planned(id).map(|node| tail(&log_path(node))).unwrap_or_default();
        let failure = Failure::failed(format!("node {id} ended with {status}"));
        if said.is_empty() { failure } else { failure.with_hint(format!("it said:\n{said}")) }
    }

    /// A client, once every node answers and knows a leader.
    ///
    /// # Errors
    /// A node ended, or they are not ready in time.
    pub(crate) async fn ready(&mut self, call_timeout: Duration) -> Result<Client> {
        let mut config = ClientConfig::new(self.plan.client_addrs());
        config.timeout = call_timeout;
        let deadline = Instant::now() + START_TIMEOUT;
        let mut last = "no node answered".to_owned();
        let mut client = None;
        while Instant::now() < deadline {
            self.check()?;
            match &client {
                None => match Client::connect(config.clone()).await {
                    Ok(connected) => client = Some(connected),
                    Err(error) => last = with_sources(&error),
                },
                Some(connected) => match self.unready(connected).await {
                    None => return Ok(connected.clone()),
                    Some(reason) => last = reason,
                },
            }
            sleep(POLL).await;
        }
        let message = format!("the nodes were not ready within {START_TIMEOUT:?}: {last}");
        Err(Failure::failed(message)
            .with_hint(format!("their logs are in {}", self.plan.dir.display())))
    }

    /// Why the cluster is not ready, if so.
    async fn unready(&self, client: &Client) -> Option<String> {
        let answers = client.statuses().await;
        for node in &self.plan.nodes {
            let id = node.member.id;
            let answer = answers.iter().find(|(member, _)| member.id == id);
            match answer {
                None => return Some(format!("node {id} is not a member yet")),
                Some((_, Err(error))) => {
                    return Some(format!("node {id}: {}", with_sources(error)));
                }
                Some((_, Ok(logs))) if !has_leader(logs) => {
                    return Some(format!("node {id} knows no leader"));
                }
                Some(_) => {}
            }
        }
        None
    }

    fn planned(&self, id: NodeId) -> Result<&PlannedNode> {
        let node = self.plan.nodes.iter().find(|node| node.member.id == id);
        node.ok_or_else(|| Failure::failed(format!("node {id} is not planned")))
    }
}

impl Drop for Cluster {
    /// Kills what still runs, and waits for its end, so that nobody writes into the data directories
    /// any more.
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            let _ = child.start_kill();
        }
        for pid in self.children.values().filter_map(process_id) {
            // Left to be collected by the runtime, which owns the child.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
    }
}

fn this_binary() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| Failure::io("cannot find this program's file", &error))
}

/// Of a child that was not collected yet.
fn process_id(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

fn has_leader(logs: &[Status]) -> bool {
    logs.first().is_some_and(|system| system.leader.is_some())
}

fn log_path(node: &PlannedNode) -> PathBuf {
    node.config.with_extension("log")
}

/// The last lines of a file; empty if it cannot be read.
fn tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let begin = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES as u64);
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::with_capacity(LOG_TAIL_BYTES);
        file.take(LOG_TAIL_BYTES as u64).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(if begin == 0 { text } else { text.split_once('\n').map_or("", |t| t.1).to_owned() })
    };
    read().unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests;

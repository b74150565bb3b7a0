//! Whole nodes with brokers, and clients that speak RocketMQ's protocol as stock clients do.
//!
//! Producers and consumers note in a [`Ledger`] what they asked and were told, and each node's state machines what they
//! applied. Once the faults are over, everything that the brokers hold is read again and [`judge`] compares.

mod admin;
mod agreement;
mod consumers;
mod judge;
mod ledger;
mod locks;
mod message;
mod producers;
mod scan;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorumlog::seam::Transport;
use quorumlog::{LogName, Node, NodeBuilder, with_sources};
use quorumlog_broker::simulation::Observer;
use quorumlog_broker::{Broker, BrokerConfig, BrokerPorts};

use super::node::host_of;
use super::profile::Profile;
use super::random::Random;
use super::shared::{LogState, Shared};
pub(crate) use judge::judge;
pub(crate) use ledger::Ledger;
pub(crate) use scan::scan;

/// Indexes at which the nodes' states are compared: those that this divides.
const STATES_EVERY: u64 = 2;
/// Queues that a topic gets in each log.
const QUEUES: u32 = 3;
/// Queues that the first topic gets in addition, when the administrator makes it grow.
const GROWN: u32 = 2;
/// The topics that producers send to.
const TOPICS: [&str; 2] = ["orders", "bills"];

/// How the names of groups begin.
const GROUP_PREFIX: &str = "group-";

/// Where a group gets messages again.
fn retry_topic(group: &str) -> String {
    format!("%RETRY%{group}")
}

/// Where a group's dead letters are.
fn dead_topic(group: &str) -> String {
    format!("%DLQ%{group}")
}

/// The name of a log, and of its broker.
pub(crate) fn name_of(log: u32) -> String {
    format!("broker-{log}")
}

/// The log of this name, if it is a broker's.
pub(crate) fn is_broker(name: &LogName) -> bool {
    name.as_str().starts_with("broker-")
}

/// Where a node serves one log. The world gives the first hosts, which are the nodes, their addresses in turn.
fn addr_of(node: u64, log: u32) -> String {
    format!("10.0.0.{node}:{}", 10_911 + 3 * log)
}

fn config(id: u64, profile: &Profile) -> BrokerConfig {
    let mut config = BrokerConfig::default();
    config.name_server_listen = format!("10.0.0.{id}:9876");
    config.listen = (0..profile.logs as u32).map(|log| addr_of(id, log)).collect();
    config.vip_channel = false;
    config.default_queues = QUEUES;
    config.suppress_duplicates = suppresses(profile);
    config.send_timeout = Duration::from_millis(profile.timeout_ms);
    config
}

/// Opens a node and its broker.
///
/// # Errors
/// Why it cannot be opened.
pub(crate) async fn open(
    id: u64,
    transport: &Arc<dyn Transport>,
    builder: NodeBuilder,
    shared: &Arc<Shared>,
) -> Result<Broker, String> {
    let config = config(id, &shared.profile);
    let ports = BrokerPorts::bind(&**transport, config).await;
    let ports = ports.map_err(|error| with_sources(&error))?;
    let ledger = Arc::clone(shared);
    let observer = Observer::new(STATES_EVERY, move |log, applied| {
        agreement::compare(&ledger, id, log, applied);
    });
    ports.open_observed(builder, observer).await.map_err(|error| with_sources(&error))
}

/// Waits until a node has the brokers' logs, and adds them to those that are looked at.
pub(crate) async fn add_logs(shared: &Shared, node: &Node) {
    for number in 0..shared.profile.logs as u32 {
        let Ok(name) = LogName::new(name_of(number)) else { return };
        let id = loop {
            match node.log(&name) {
                Some(log) => break log.id(),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        drop::<Arc<LogState>>(shared.add_log(name, id));
    }
}

/// Notes where logs begin now.
pub(crate) fn note_begins(shared: &Shared) {
    let begins = begins_now(shared);
    let begun = &mut shared.broker.facts().begun;
    for (log, begin) in begins {
        let most = begun.entry(log).or_default();
        *most = begin.max(*most);
    }
}

/// Where each broker's log begins, on the node where it ever began last.
fn begins(shared: &Shared) -> BTreeMap<u32, u64> {
    note_begins(shared);
    shared.broker.facts().begun.clone()
}

/// Where each broker's log begins, on the node where it begins last.
fn begins_now(shared: &Shared) -> BTreeMap<u32, u64> {
    let statuses: Vec<_> = shared.nodes().iter().flat_map(|(_, node)| node.statuses()).collect();
    let logs = shared.logs();
    let begin = |number: u32| {
        let log = logs.iter().find(|log| log.name.as_str() == name_of(number))?;
        let of_log = statuses.iter().filter(|status| status.log_id == log.id.0);
        of_log.map(|status| status.begin).max()
    };
    let numbers = 0..shared.profile.logs as u32;
    numbers.filter_map(|number| Some((number, begin(number)?))).collect()
}

/// Whether the brokers of a seed store one copy of a message that is sent again.
fn suppresses(profile: &Profile) -> bool {
    Random::of(profile.seed, "suppressed duplicates").percent(50)
}

/// What the tasks of one client share.
#[derive(Clone)]
struct Caller {
    number: u64,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
}

impl Caller {
    /// A connection to a log's broker on some node: on one that does not lead, the broker passes on what is asked.
    async fn connect(&self, log: u32, random: &mut Random) -> Option<wire::Connection> {
        let node = 1 + random.below(self.shared.profile.voters);
        wire::Connection::open(&self.transport, node, log).await
    }

    /// Queues that a producers' topic has, as far as the administrator was told.
    fn queues_of(&self, topic: &str) -> u32 {
        let has_grown = topic == TOPICS[0] && self.shared.broker.facts().has_grown;
        QUEUES + if has_grown { GROWN } else { 0 }
    }

    /// The latest term of a log that a node has told.
    fn term(&self, log: u32) -> u64 {
        let logs = self.shared.logs();
        let log = logs.iter().find(|held| held.name.as_str() == name_of(log));
        let nodes = self.shared.nodes();
        let statuses = nodes.iter().flat_map(|(_, node)| node.statuses());
        let terms = statuses.filter(|status| log.is_some_and(|log| log.id.0 == status.log_id));
        terms.map(|status| status.term).max().unwrap_or(0)
    }

    /// Something took place that runs of this profile are about.
    fn happened(&self, what: &str) {
        if let Some(log) = self.shared.first_log() {
            log.recorder.bit(what, 1);
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a client until it is told to stop.
pub(crate) async fn run(
    number: u64,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
) -> Result<(), Failure> {
    let seed = shared.profile.seed;
    let random = |what: &str| Random::of(seed, &format!("broker {what} {number}"));
    let caller = Caller { number, transport, shared };
    let mut tasks = vec![
        tokio::spawn(producers::produce(caller.clone(), random("producer"))),
        tokio::spawn(producers::produce(caller.clone(), random("second producer"))),
        tokio::spawn(consumers::consume(caller.clone(), random("consumer"))),
        tokio::spawn(locks::lock(caller.clone(), random("locks"))),
    ];
    if number == 1 {
        tasks.push(tokio::spawn(admin::administer(caller, random("administrator"))));
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// What to say of something that a client met on a node.
fn lane(node: u64) -> String {
    host_of(node)
}

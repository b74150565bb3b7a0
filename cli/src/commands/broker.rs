//! `broker`: a node that programs written for RocketMQ use.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use quorumlog_broker::BrokerConfig;

use crate::client::{duration, host_port};
use crate::cluster::plan::Plan;
use crate::commands::start::{self, Flag, NodeArgs};
use crate::failure::{Failure, Result};
use crate::output::note;

const AFTER_HELP: &str = "\
Examples:
  quorumlog broker --dev
  quorumlog broker --dev --name-server 127.0.0.1:9976 --broker 127.0.0.1:11911
  quorumlog broker --node-id 1 --data-dir data/1 --bootstrap \\
    --peer 1=127.0.0.1:20911 --peer 2=127.0.0.1:20912 --peer 3=127.0.0.1:20913

Then give a stock client the name server: producer.setNamesrvAddr(\"127.0.0.1:9876\").
With --dev give clients all three name servers: node 2 listens one port above node 1 for its name
server, and thirty ports above for its brokers. Each log's broker listens three ports above that of
the log before. It also listens two ports below its own port, where Java clients before 4.5 connect
(RocketMQ's VIP channel). All nodes of a cluster need the same --logs.
Whatever a configuration file says, limits.record_size_max is 5MiB, limits.append_timeout is 5s and
limits.tail_cache_max is 4MiB. Use --set to change them.";

/// Run a node, or three with --dev, as name server and broker for RocketMQ clients.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Address of the name server.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, default_value = "127.0.0.1:9876")]
    name_server: String,
    /// Address of the broker of the first log.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, default_value = "127.0.0.1:10911")]
    broker: String,
    /// Address that clients are told, if it is not that of --broker.
    #[arg(long, value_name = "IP")]
    advertise_ip: Option<IpAddr>,
    /// Logs, each with its own broker and its own leader.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    logs: u16,
    /// Queues that a new topic gets in each log.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    queues: u32,
    /// Refuse messages for topics that nobody created.
    #[arg(long)]
    no_auto_create: bool,
    /// How long a send waits for its message to be flushed and replicated, before its producer is told what is known of it.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    send_timeout: Duration,
    /// Store one copy of a message that a producer sends again.
    #[arg(long)]
    suppress_duplicates: bool,
    /// Most connections to the name server, and to the broker of each log. If all are in use, an idle one ends for a new one.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    connections_max: u32,
    /// End a connection when neither end has sent a byte for this long.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    idle_timeout: Duration,
    /// Do not listen on the port two below each broker's port.
    #[arg(long)]
    no_vip_channel: bool,
}

/// Ports between the brokers of two logs: each also has the port two below its own.
pub(crate) const PORTS_A_LOG: u16 = 3;
/// Ports between the brokers of two nodes on one machine: enough for the most logs.
const PORTS_A_NODE: u16 = 30;

/// The brokers of one node, or of three.
#[derive(Debug, Clone)]
pub(crate) struct BrokerPlan {
    name_server: SocketAddr,
    broker: SocketAddr,
    logs: u16,
    config: BrokerConfig,
}

/// Runs the command.
///
/// # Errors
/// As `start`.
pub(crate) fn run(args: Args, verbose: u8) -> Result {
    let mut config = BrokerConfig::default();
    config.advertise = args.advertise_ip;
    config.default_queues = args.queues;
    config.auto_create_topics = !args.no_auto_create;
    config.send_timeout = args.send_timeout;
    config.suppress_duplicates = args.suppress_duplicates;
    config.vip_channel = !args.no_vip_channel;
    config.connections_max = args.connections_max as usize;
    config.idle_timeout = args.idle_timeout;
    let plan = BrokerPlan {
        name_server: resolve("--name-server", &args.name_server)?,
        broker: resolve("--broker", &args.broker)?,
        logs: args.logs,
        config,
    };
    start::run_with(args.node, verbose, Some(plan))
}

/// Settings of a node with a broker: messages may be as large as RocketMQ's, and their senders wait for less long. It has
/// several logs, which are small together what one log is elsewhere.
pub(crate) fn broker_settings() -> [Flag; 3] {
    let setting = |key: &str, value: &str| ("broker".to_owned(), key.to_owned(), value.to_owned());
    [
        setting("limits.record_size_max", "5MiB"),
        setting("limits.append_timeout", "5s"),
        setting("limits.tail_cache_max", "4MiB"),
    ]
}

fn resolve(flag: &str, addr: &str) -> Result<SocketAddr> {
    let failed = |detail: String| Failure::usage(format!("{flag} {addr}: {detail}"));
    let mut found = addr.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("it names no address".to_owned()))
}

impl BrokerPlan {
    /// The broker of the n-th node on this machine, from 0.
    ///
    /// # Errors
    /// There are no such ports.
    pub(crate) fn of_node(&self, node: usize) -> Result<BrokerConfig> {
        let node = u16::try_from(node).unwrap_or(u16::MAX);
        let port = |first: SocketAddr, further: Option<u16>| {
            let port = further.and_then(|further| first.port().checked_add(further));
            let port =
                port.ok_or_else(|| Failure::usage(format!("{first}: no port so far above")))?;
            Ok::<_, Failure>(SocketAddr::new(first.ip(), port).to_string())
        };
        let mut config = self.config.clone();
        config.name_server_listen = port(self.name_server, Some(node))?;
        let above = |log: u16| node.checked_mul(PORTS_A_NODE)?.checked_add(log * PORTS_A_LOG);
        let of_log = |log| port(self.broker, above(log));
        config.listen = (0..self.logs).map(of_log).collect::<Result<_>>()?;
        Ok(config)
    }

    /// Says what can be done now.
    pub(crate) fn hints(&self, plan: &Plan, keeps: bool) {
        let logs = self.logs;
        note(format_args!("three nodes serve {logs} logs; data in {}", plan.dir.display()));
        if !keeps {
            note("the data is removed at the end; keep it with --data DIR");
        }
        let servers = (0..plan.nodes.len()).filter_map(|node| self.of_node(node).ok());
        let servers: Vec<_> = servers.map(|config| config.name_server_listen).collect();
        note("give RocketMQ's clients these name servers:");
        note(format_args!("  {}", servers.join(";")));
        note("Ctrl-C stops all three");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(broker: &str, logs: u16) -> BrokerPlan {
        BrokerPlan {
            name_server: "127.0.0.1:9876".parse().expect("an address"),
            broker: broker.parse().expect("an address"),
            logs,
            config: BrokerConfig::default(),
        }
    }

    #[test]
    fn the_nodes_of_one_machine_listen_on_ports_of_their_own() {
        let plan = plan("127.0.0.1:10911", 2);
        let first = plan.of_node(0).expect("ports");
        assert_eq!(first.name_server_listen, "127.0.0.1:9876");
        assert_eq!(first.listen, ["127.0.0.1:10911", "127.0.0.1:10914"]);
        let third = plan.of_node(2).expect("ports");
        assert_eq!(third.name_server_listen, "127.0.0.1:9878");
        assert_eq!(third.listen, ["127.0.0.1:10971", "127.0.0.1:10974"]);
    }

    #[test]
    fn ports_that_do_not_exist_are_refused() {
        assert!(plan("127.0.0.1:65535", 2).of_node(0).is_err());
        assert!(plan("127.0.0.1:65530", 1).of_node(1).is_err());
    }

    #[test]
    fn no_port_of_a_broker_is_the_vip_channel_of_another_on_any_node() {
        let plan = plan("127.0.0.1:10911", 9);
        let listen = (0..3).flat_map(|node| plan.of_node(node).expect("ports").listen);
        let ports = listen.map(|addr| addr.parse::<SocketAddr>().expect("an address").port());
        let mut all: Vec<u16> = ports.flat_map(|port| [port - 2, port]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * 9 * 3);
    }
}

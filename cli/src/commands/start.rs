//! `start`: runs a node until SIGTERM or SIGINT.

use std::os::fd::AsFd;
use std::path::PathBuf;

use quorumlog::{Flush, Member};
use quorumlog_broker::BrokerConfig;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::cli::{block_on, cores};
use crate::client::host_port;
use crate::cluster::plan::Ports;
use crate::commands::broker::{BrokerPlan, broker_settings};
use crate::commands::dev;
use crate::failure::{Failure, Result};
use crate::settings::{Layers, Settings, parse_peer};
use crate::signals::StopSignals;
use crate::{logging, recorder, serve};

const AFTER_HELP: &str = "\
Examples:
  quorumlog start --dev
  quorumlog start --dev --data /var/tmp/quorumlog
  quorumlog start --config /etc/quorumlog.toml
  quorumlog start --node-id 1 --data-dir data/1 --bootstrap \\
    --peer 1=127.0.0.1:20911,127.0.0.1:20921 \\
    --peer 2=127.0.0.1:20912,127.0.0.1:20922 \\
    --peer 3=127.0.0.1:20913,127.0.0.1:20923
  quorumlog start --node-id 2 --data-dir data/2 --listen 127.0.0.1:20912 \\
    --client-listen 127.0.0.1:20922 --http-listen 127.0.0.1:20932
  quorumlog start --config node.toml --set raft.heartbeat_interval=50ms

Flags win over the environment (QUORUMLOG__RAFT__HEARTBEAT_INTERVAL=50ms), the environment over the
file, the file over the defaults. `quorumlog config print --sample` lists all settings.
Found a cluster on one node only. Give the other nodes their listen addresses, and the founder finds
them.
On SIGTERM and SIGINT the node hands leadership over, finishes what is in flight, flushes, and ends
with 0.";

/// Run a node until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    node: NodeArgs,
}

/// Which node, or three, and their settings.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// Configuration file (TOML).
    #[arg(short, long, value_name = "FILE", conflicts_with = "dev")]
    config: Option<PathBuf>,
    /// Number of this node, unique in the cluster.
    #[arg(long, value_name = "ID", conflicts_with = "dev")]
    node_id: Option<u64>,
    /// Directory for everything that this node stores.
    #[arg(long, value_name = "DIR", conflicts_with = "dev")]
    data_dir: Option<PathBuf>,
    /// Address to listen on for the other nodes.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "dev")]
    listen: Option<String>,
    /// Address that the other nodes use, if it differs from --listen.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "dev")]
    advertise: Option<String>,
    /// Address to listen on for clients.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "dev")]
    client_listen: Option<String>,
    /// Address that clients use, if it differs from --client-listen.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "dev")]
    client_advertise: Option<String>,
    /// Address for health, metrics and status.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "dev")]
    http_listen: Option<String>,
    /// What an acknowledgement means: sync or async.
    #[arg(long, value_name = "MODE")]
    flush: Option<Flush>,
    /// error, warn, info, debug, trace, or directives such as info,quorumlog=debug.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json.
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// Any setting, by its key in the file. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Found the cluster with the peers as its voters. Set this on one node only. A restart with the node's data ignores it;
    /// leave it out when a node that lost its data is replaced, or that node founds a second cluster.
    #[arg(long, conflicts_with = "dev")]
    bootstrap: bool,
    /// A first voter; list this node too. Can be repeated.
    #[arg(long, value_name = "ID=PEER_ADDR[,CLIENT_ADDR]", value_parser = parse_peer, conflicts_with = "dev")]
    peer: Vec<Member>,
    /// Run three nodes on loopback in this process, with a log `default`.
    #[arg(long)]
    dev: bool,
    /// With --dev: keep the data here and continue from it next time. If not given, it is temporary.
    #[arg(long, value_name = "DIR", requires = "dev")]
    data: Option<PathBuf>,
    /// With --dev: take free ports even if the default ones are free.
    #[arg(long, requires = "dev")]
    free_ports: bool,
    /// Stop when standard input ends: whoever started this node as a child has gone.
    #[arg(long, hide = true)]
    stop_at_eof: bool,
}

/// Runs the command.
///
/// # Errors
/// The settings make no sense, the node cannot open, or its last flush failed.
pub(crate) fn run(args: Args, verbose: u8) -> Result {
    run_with(args.node, verbose, None)
}

/// Runs one node, or three, with a broker on each if there are ports for it.
///
/// # Errors
/// As `run`.
pub(crate) fn run_with(args: NodeArgs, verbose: u8, broker: Option<BrokerPlan>) -> Result {
    let mut overrides = args.overrides(verbose);
    if broker.is_some() {
        // In front, so that --set wins.
        overrides.splice(0..0, broker_settings());
    }
    if args.dev {
        let ports = if args.free_ports { Ports::Free } else { Ports::DefaultOrFree };
        return dev::run(args.data.as_deref(), ports, &overrides, broker.as_ref());
    }
    let broker = broker.map(|plan| plan.of_node(0)).transpose()?;
    let mut layers = Layers::defaults();
    if let Some(path) = &args.config {
        layers.file(path)?;
    }
    layers.environment(std::env::vars_os())?;
    for (flag, key, value) in args.node_flags()?.iter().chain(&overrides) {
        layers.flag(flag, key, value)?;
    }
    let settings = layers.settings()?;
    logging::init(&settings.log.level, settings.log.format)?;
    quorumlog::log_panics();
    block_on(settings.runtime.threads(cores()), serve(settings, broker, args.stop_at_eof))
}

const TASK_PANICKED: &str = "a task of the process panicked";

/// A setting given by a flag: the flag, the key, the value as text.
pub(crate) type Flag = (String, String, String);

impl NodeArgs {
    /// Flags that also make sense for the three nodes of `--dev`.
    fn overrides(&self, verbose: u8) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut put = |flag: &str, key: &str, value: &str| {
            flags.push((flag.to_owned(), key.to_owned(), value.to_owned()));
        };
        if verbose > 0 {
            let level = logging::level_of_verbosity(verbose + 1);
            put("--verbose", "log.level", level);
        }
        if let Some(flush) = self.flush {
            put("--flush", "storage.flush", &flush.to_string());
        }
        if let Some(level) = &self.log_level {
            put("--log-level", "log.level", level);
        }
        if let Some(format) = &self.log_format {
            put("--log-format", "log.format", format);
        }
        for (key, value) in &self.set {
            put("--set", key, value);
        }
        flags
    }

    /// Flags of one node.
    fn node_flags(&self) -> Result<Vec<Flag>> {
        let path = self.data_dir.as_ref().map(|dir| {
            dir.to_str()
                .map(str::to_owned)
                .ok_or_else(|| Failure::usage("--data-dir: the path is no UTF-8"))
        });
        let given = [
            ("--node-id", "node_id", self.node_id.map(|id| id.to_string())),
            ("--data-dir", "data_dir", path.transpose()?),
            ("--listen", "listen", self.listen.clone()),
            ("--advertise", "advertise", self.advertise.clone()),
            ("--client-listen", "server.listen", self.client_listen.clone()),
            ("--client-advertise", "client_advertise", self.client_advertise.clone()),
            ("--http-listen", "http.listen", self.http_listen.clone()),
            ("--bootstrap", "cluster.bootstrap", self.bootstrap.then(|| "true".to_owned())),
            ("--peer", "cluster.peers", peer_list(&self.peer)),
        ];
        let flag = |(flag, key, value): (&str, &str, Option<String>)| {
            value.map(|value| (flag.to_owned(), key.to_owned(), value))
        };
        Ok(given.into_iter().filter_map(flag).collect())
    }
}

fn peer_list(peers: &[Member]) -> Option<String> {
    let text = |peer: &Member| match peer.client_addr.as_str() {
        "" => format!("{}={}", peer.id, peer.peer_addr),
        client => format!("{}={},{client}", peer.id, peer.peer_addr),
    };
    (!peers.is_empty()).then(|| peers.iter().map(text).collect::<Vec<_>>().join(" "))
}

fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

async fn serve(settings: Settings, broker: Option<BrokerConfig>, stop_at_eof: bool) -> Result {
    let mut signals = StopSignals::new().map_err(|error| Failure::io("signals", &error))?;
    let metrics = recorder::install()?;
    let mut served = tokio::select! {
        served = serve::open(&settings, broker, metrics.clone()) => served?,
        signal = signals.next() => {
            return Err(Failure::failed(format!("{signal} before the node had opened")));
        }
    };
    let node = served.node.clone();
    let member = served.node.member();
    tracing::info!(
        node = member.id,
        peers = member.peer_addr,
        clients = served.client_addr,
        http = served.http_addr.map(|addr| addr.to_string()),
        brokers = served.broker_addrs(),
        data = %settings.node.data_dir.display(),
        "node started"
    );
    // A parent that stops us sends a signal and closes our standard input, which may be seen first.
    let (reason, mut signals_allowed) = tokio::select! {
        signal = signals.next() => (signal, 0),
        () = parent_gone(stop_at_eof) => ("end of standard input", 1),
        () = recorder::upkeep(metrics) => ("upkeep ended", 0),
        () = served.task_panicked() => (TASK_PANICKED, 0),
        reason = node.retired() => {
            served.shutdown().await?;
            return Err(Failure::failed(format!("this node takes no part in the cluster: {reason}"))
                .with_hint("stop the other process, or start this one with its own data"));
        }
    };
    tracing::info!(reason, "stopping: handing leadership over and flushing");
    let mut shutdown = std::pin::pin!(served.shutdown());
    loop {
        tokio::select! {
            result = &mut shutdown => break result?,
            signal = signals.next() => match signals_allowed {
                0 => {
                    let message = format!("a second {signal} cut the shutdown short");
                    return Err(Failure::failed(message));
                }
                _ => signals_allowed -= 1,
            },
        }
    }
    tracing::info!("stopped");
    if reason == TASK_PANICKED {
        return Err(Failure::failed("a task of the process panicked; the log says where"));
    }
    Ok(())
}

/// Resolves when the other end of the pipe that is standard input has gone; never if not asked to.
async fn parent_gone(watch: bool) {
    let pipe = watch
        .then(|| std::io::stdin().as_fd().try_clone_to_owned())
        .and_then(std::result::Result::ok)
        .and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok());
    let Some(mut pipe) = pipe else { return std::future::pending().await };
    let mut scratch = [0; 64];
    while pipe.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::LogFormat;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: NodeArgs,
    }

    fn flags(line: &str) -> Vec<Flag> {
        let args = Line::try_parse_from(line.split(' ')).expect(line).args;
        let mut flags = args.node_flags().expect("flags");
        flags.extend(args.overrides(0));
        flags
    }

    #[test]
    fn every_flag_names_a_setting_that_takes_it() {
        let line = "start --node-id 1 --data-dir d --listen a:1 --advertise b:1 --client-listen a:2 \
                    --client-advertise b:2 --http-listen a:3 --flush async --log-level debug \
                    --log-format json --set raft.replication_window=8 --bootstrap \
                    --peer 1=a:1,a:2 --peer 2=c:1";
        let mut layers = Layers::defaults();
        let flags = flags(line);
        assert_eq!(flags.len(), 13);
        for (flag, key, value) in &flags {
            layers.flag(flag, key, value).unwrap_or_else(|failure| panic!("{flag}: {failure}"));
        }
        let settings = layers.settings().expect("settings");
        assert_eq!(settings.node.raft.replication_window, 8);
        assert_eq!(settings.log.format, LogFormat::Json);
        let peers = [Member::new(1, "a:1").with_client_addr("a:2"), Member::new(2, "c:1")];
        assert_eq!(settings.cluster.peers, peers);
    }

    #[test]
    fn set_wins_over_the_named_flag() {
        let mut layers = Layers::defaults();
        for (flag, key, value) in
            flags("start --node-id 1 --data-dir d --set storage.flush=async --flush sync")
        {
            layers.flag(&flag, &key, &value).expect("flag");
        }
        assert_eq!(layers.settings().expect("settings").node.storage.flush, Flush::Async);
    }

    #[test]
    fn dev_takes_no_settings_of_a_single_node() {
        for line in ["start --dev --node-id 1", "start --dev --bootstrap", "start --data d"] {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}

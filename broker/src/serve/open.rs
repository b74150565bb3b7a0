//! Opening a node's broker.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::Budgets;
use super::listener::{Bounds, addr_of, listen};
use super::log_broker::{LogBroker, Outside};
use super::places::Places;
use super::routes::Brokers;
use super::settings::BrokerConfig;
use super::vip;
use crate::LOG_PREFIX;
use crate::serve::wall_clock::WallClock;
use crate::state::Machines;
use quorumlog::LogName;
use quorumlog::Node;
use quorumlog::seam::{Acceptor, Transport};

/// A node's broker. Dropping it ends its connections.
#[derive(Debug)]
pub struct Broker {
    name_server: Option<SocketAddr>,
    addrs: Vec<SocketAddr>,
    vip_channels: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// The logs' brokers find each other by it.
    _brokers: Arc<Brokers>,
}

/// The addresses of a broker, bound before its node is opened: one that is taken is found before anything on disk changes.
pub struct BrokerPorts {
    config: Arc<BrokerConfig>,
    logs: Vec<Box<dyn Acceptor>>,
    name_server: Option<Box<dyn Acceptor>>,
}

impl fmt::Debug for BrokerPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerPorts").field("config", &self.config).finish_non_exhaustive()
    }
}

impl BrokerPorts {
    /// Binds them. Clients that connect wait until [`Broker::open_on`].
    ///
    /// # Errors
    /// As [`Broker::open`].
    pub async fn bind(transport: &dyn Transport, config: BrokerConfig) -> io::Result<Self> {
        if config.listen.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on"));
        }
        if config.vip_channel {
            vip::check(&config)?;
        }
        let mut logs = Vec::new();
        for addr in &config.listen {
            logs.push(transport.bind_for_clients(addr).await?);
        }
        let name_server = match config.name_server_listen.as_str() {
            "" => None,
            addr => Some(transport.bind_for_clients(addr).await?),
        };
        Ok(Self { config: Arc::new(config), logs, name_server })
    }
}

impl Broker {
    /// Serves clients. The node must have been opened with the state machines of `machines`; logs that the cluster does
    /// not have yet are made as soon as it is founded.
    ///
    /// # Errors
    /// An address cannot be listened on, or there are none, or one log's VIP channel is another log's address. Or the system
    /// has no random number.
    pub async fn open(node: Node, machines: Machines, config: BrokerConfig) -> io::Result<Self> {
        let ports = BrokerPorts::bind(&*node.transport(), config).await?;
        Self::open_on(ports, node, machines).await
    }

    /// Serves clients, as [`open`](Self::open), on addresses that are bound already.
    ///
    /// # Errors
    /// The system does not tell a bound address, or has no random number.
    pub async fn open_on(ports: BrokerPorts, node: Node, machines: Machines) -> io::Result<Self> {
        let BrokerPorts { config, logs: listeners, name_server } = ports;
        let transport = node.transport();
        let brokers =
            Brokers::new(Arc::clone(&config), node.watch_elsewhere(), Arc::clone(&transport));
        let brokers = Arc::new(brokers);
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let budgets = Arc::new(Budgets::new(&config));
        let numbers = Arc::new(AtomicU64::new(1));
        let bounds = || Bounds {
            budgets: Arc::clone(&budgets),
            places: Places::new(config.connections_max),
            idle_timeout: config.idle_timeout,
            numbers: Arc::clone(&numbers),
        };
        let mut logs = Vec::new();
        let (mut addrs, mut vip_channels) = (Vec::new(), Vec::new());
        for (number, listener) in (0_u32..).zip(listeners) {
            let name = format!("{LOG_PREFIX}{number}");
            let log_name = LogName::new(name.as_str());
            let log_name = log_name.map_err(|error| io::Error::other(error.to_string()))?;
            let bound = addr_of(&*listener)?;
            let addr = advertised(bound, config.advertise);
            let (clock, transport) = (WallClock::new(node.clock()), Arc::clone(&transport));
            let outside = Outside { random: clock.random()?, clock, transport };
            let config_of_log = Arc::clone(&config);
            let broker = LogBroker::new((number, name), addr, config_of_log, &brokers, outside);
            let broker = Arc::new(broker);
            keep_up(&mut tasks, &node, &machines, &broker, &log_name);
            let (bounds, vip) = (bounds(), vip_listener(&*node.transport(), bound, &config).await);
            vip_channels.extend(vip.iter().filter_map(|vip| addr_of(&**vip).ok()));
            for listener in std::iter::once(listener).chain(vip) {
                let service = Arc::clone(&broker);
                let serving = listen(listener, service, bounds.clone(), stopping.clone());
                tasks.spawn(node.supervise_once("broker listener", serving));
            }
            addrs.push(addr);
            logs.push(broker);
        }
        brokers.set_logs(logs);
        let mut name_server_addr = None;
        if let Some(listener) = name_server {
            let addr = addr_of(&*listener)?;
            node.note_name_server(advertised(addr, config.advertise));
            name_server_addr = Some(addr);
            let service = Arc::clone(&brokers);
            let serving = listen(listener, service, bounds(), stopping);
            tasks.spawn(node.supervise_once("name server", serving));
        }
        Ok(Self {
            name_server: name_server_addr,
            addrs,
            vip_channels,
            stop,
            tasks,
            _brokers: brokers,
        })
    }

    /// Where the name server listens.
    pub fn name_server(&self) -> Option<SocketAddr> {
        self.name_server
    }

    /// Where clients are told to come, for each log.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Where logs are served for clients that use the VIP channel: for each log that has one.
    pub fn vip_channels(&self) -> &[SocketAddr] {
        &self.vip_channels
    }

    /// Ends all connections. Shut the node down first: what is under way is finished then.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        self.tasks.shutdown().await;
    }
}

/// A listener for a log's VIP channel, if it should have one and the port is free.
async fn vip_listener(
    transport: &dyn Transport,
    addr: SocketAddr,
    config: &BrokerConfig,
) -> Option<Box<dyn Acceptor>> {
    let vip = vip::port(addr.port()).filter(|_| config.vip_channel)?;
    let vip = SocketAddr::new(addr.ip(), vip);
    match transport.bind_for_clients(&vip.to_string()).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%addr, %vip, %error, "no VIP channel: clients that use it cannot reach this broker");
            None
        }
    }
}

/// Starts what a log's broker does by itself.
fn keep_up(
    tasks: &mut JoinSet<()>,
    node: &Node,
    machines: &Machines,
    broker: &Arc<LogBroker>,
    name: &LogName,
) {
    let (log, of_log, machines, name) =
        (broker.clone(), node.clone(), machines.clone(), name.clone());
    tasks.spawn(node.supervise("broker leadership", move || {
        log.clone().follow(of_log.clone(), machines.clone(), name.clone())
    }));
    let log = broker.clone();
    tasks.spawn(node.supervise("broker housekeeping", move || log.clone().keep_house()));
    let log = broker.clone();
    tasks.spawn(node.supervise("broker offsets", move || log.clone().write_offsets()));
    let log = broker.clone();
    tasks.spawn(node.supervise("broker registry", move || log.clone().follow_registry()));
    let log = broker.clone();
    tasks.spawn(node.supervise("delayed delivery", move || log.clone().deliver_delayed()));
}

/// What clients are told. A listener on all addresses is told as loopback unless the configuration says otherwise.
fn advertised(listen: SocketAddr, advertise: Option<IpAddr>) -> SocketAddr {
    let ip = match advertise {
        Some(ip) => ip,
        None if listen.ip().is_unspecified() => {
            tracing::warn!(%listen, "clients are told to come to loopback; set an address to advertise");
            Ipv4Addr::LOCALHOST.into()
        }
        None => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

//! Opening a node's broker.

#[cfg(test)]
mod rewound;
#[cfg(test)]
pub(crate) mod single;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use quorumlog::seam::{Acceptor, Transport};
use quorumlog::{LogName, Node, NodeBuilder, OpenError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::LOG_PREFIX;
use crate::handle::NameServer;
use crate::log::{Brokers, LogBroker, Outside, WallClock};
use crate::net::{Bounds, Budgets, Places, addr_of, listen, vip};
use crate::settings::BrokerConfig;
use crate::state::Machines;
use crate::tasks::{deliver_delayed, follow_registry};

/// Why a node with a broker could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenBrokerError {
    /// The node could not be opened.
    #[error(transparent)]
    Node(#[from] OpenError),
    /// An address cannot be listened on, or there are none, or one log's VIP channel is another log's address. Or the system
    /// has no random number.
    #[error("cannot serve RocketMQ clients")]
    Serve(#[from] io::Error),
}

/// A node and its broker. Dropping it ends the broker's connections.
#[derive(Debug)]
pub struct Broker {
    node: Node,
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
    /// Binds them. Clients that connect wait until [`open`](Self::open).
    ///
    /// # Errors
    /// An address cannot be listened on, or there are none, or one log's VIP channel is another log's address.
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

    /// Opens the node and serves clients, as [`Broker::open`], on these addresses.
    ///
    /// # Errors
    /// The node cannot be opened; or the system does not tell a bound address, or has no random number.
    pub async fn open(self, node: NodeBuilder) -> Result<Broker, OpenBrokerError> {
        self.open_with(node, Machines::default()).await
    }

    /// The same, and tells an observer of each record that a log's state is given.
    ///
    /// # Errors
    /// As `open`.
    #[cfg(feature = "simulation")]
    pub async fn open_observed(
        self,
        node: NodeBuilder,
        observer: crate::simulation::Observer,
    ) -> Result<Broker, OpenBrokerError> {
        self.open_with(node, Machines::observed(observer)).await
    }

    async fn open_with(
        self,
        node: NodeBuilder,
        machines: Machines,
    ) -> Result<Broker, OpenBrokerError> {
        let of_logs = machines.clone();
        let node = node.state_machines_with_files(move |log, files| of_logs.machine(log, files));
        // In a box, or each future that opens a broker would have room for a whole start.
        let node = Box::pin(node.open()).await?;
        Ok(Broker::serve(self, node, machines).await?)
    }
}

impl Broker {
    /// Opens a node and serves clients. Its logs that are named `broker-0` and so on are the broker's, and have the broker's
    /// state machines; `node` may have others for other logs. Logs that the cluster does not have yet are made as soon as
    /// it is founded.
    ///
    /// # Errors
    /// What a clients' address is wrong with, before anything on disk changes; the node cannot be opened.
    pub async fn open(config: BrokerConfig, node: NodeBuilder) -> Result<Self, OpenBrokerError> {
        let ports = BrokerPorts::bind(&**node.transport_in_use(), config).await?;
        ports.open(node).await
    }

    async fn serve(ports: BrokerPorts, node: Node, machines: Machines) -> io::Result<Self> {
        let BrokerPorts { config, logs: listeners, name_server } = ports;
        let transport = node.transport();
        let brokers = Arc::new(Brokers::default());
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
            let elsewhere = node.watch_elsewhere();
            let service =
                NameServer::new(Arc::clone(&config), Arc::clone(&brokers), elsewhere, transport);
            let serving = listen(listener, Arc::new(service), bounds(), stopping);
            tasks.spawn(node.supervise_once("name server", serving));
        }
        Ok(Self {
            node,
            name_server: name_server_addr,
            addrs,
            vip_channels,
            stop,
            tasks,
            _brokers: brokers,
        })
    }

    /// The node. Handles are cheap to clone.
    pub fn node(&self) -> &Node {
        &self.node
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
    tasks.spawn(node.supervise("broker offsets", move || {
        let consumed = log.consumed.clone();
        async move { consumed.write().await }
    }));
    let log = broker.clone();
    tasks.spawn(node.supervise("broker registry", move || {
        let log = log.clone();
        async move { follow_registry(&log.replica, &log.topics).await }
    }));
    let log = broker.clone();
    tasks.spawn(node.supervise("delayed delivery", move || {
        let log = log.clone();
        async move { deliver_delayed(&log.replica, &log.topics).await }
    }));
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

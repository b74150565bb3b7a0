//! One node with its listeners: peers, clients, HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use metrics_exporter_prometheus::PrometheusHandle;
use quorumlog::seam::{Acceptor, TcpTransport, Transport};
use quorumlog::server::{self, ServerConfig};
use quorumlog::{AdminError, Member, Node, with_sources};
use quorumlog_broker::{Broker, BrokerConfig, BrokerPorts, OpenBrokerError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::failure::{Failure, Result};
use crate::http::{self, Health};
use crate::settings::{ServerSettings, Settings};

/// A node that serves. Dropping it stops without draining.
pub(crate) struct Served {
    pub(crate) node: Node,
    /// Where it listens for clients; none if it serves none.
    pub(crate) client_addr: Option<String>,
    /// Where it listens for HTTP; none if that is off.
    pub(crate) http_addr: Option<SocketAddr>,
    broker: Option<Broker>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Opens the node, binds all listeners, founds the cluster if so told and as soon as the other founders run, and serves.
///
/// # Errors
/// A port is taken, the data directory cannot be used, or the cluster cannot be founded.
pub(crate) async fn open(
    settings: &Settings,
    broker: Option<BrokerConfig>,
    metrics: PrometheusHandle,
) -> Result<Served> {
    let transport: Arc<dyn Transport> = Arc::new(TcpTransport);
    let mut config = settings.node.clone();
    // Ports first: one that is taken is found before anything on disk is touched.
    let http = listen_http(&settings.http.listen).await?;
    let clients = listen_clients(&transport, &settings.server).await?;
    let client_addr = clients.as_ref().map(|acceptor| acceptor.local_addr());
    if config.client_advertise.as_ref().is_none_or(String::is_empty)
        && let Some(addr) = &client_addr
    {
        config.client_advertise = Some(reachable(addr, config.advertise.as_deref()));
    }
    let ports = match broker {
        Some(config) => Some(bind_broker(&*transport, config).await?),
        None => None,
    };
    let builder = Node::builder(config).transport(transport);
    let (node, broker) = match ports {
        Some(ports) => {
            let broker = ports.open(builder).await.map_err(|error| match error {
                OpenBrokerError::Node(error) => error.into(),
                other => Failure::failed(with_sources(&other)),
            })?;
            (broker.node().clone(), Some(broker))
        }
        None => (builder.open().await?, None),
    };

    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    found(&node, settings, &mut tasks, stopped.clone()).await?;
    if let Some(acceptor) = clients {
        let (node, config) = (node.clone(), server_config(&settings.server));
        let mut stopped = stopped.clone();
        tasks.spawn(async move {
            let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
            server::run(node, acceptor, config, stopped).await;
        });
    }
    let mut http_addr = None;
    if let Some(listener) = http {
        http_addr = listener.local_addr().ok();
        let ready_lag_max = settings.http.ready_lag_max;
        let health = Health { node: node.clone(), metrics, ready_lag_max };
        tasks.spawn(http::serve(listener, settings.http.connections_max, health, stopped));
    }
    Ok(Served { node, client_addr, http_addr, broker, stop, tasks })
}

async fn bind_broker(transport: &dyn Transport, config: BrokerConfig) -> Result<BrokerPorts> {
    let addrs = format!("{} {}", config.name_server_listen, config.listen.join(" "));
    BrokerPorts::bind(transport, config).await.map_err(|error| {
        Failure::failed(format!("cannot listen on one of {addrs}: {error}"))
            .with_hint("is a name server or a broker running already? choose other ports")
    })
}

impl Served {
    /// Where the broker listens, the name server first; none if there is no broker.
    pub(crate) fn broker_addrs(&self) -> Option<String> {
        let broker = self.broker.as_ref()?;
        let addrs = broker.name_server().into_iter().chain(broker.addrs().iter().copied());
        Some(addrs.map(|addr| addr.to_string()).collect::<Vec<_>>().join(" "))
    }

    /// Resolves once a task of the process has panicked: without that task nobody can watch or stop the node.
    pub(crate) async fn task_panicked(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the process failed");
                return;
            }
        }
        std::future::pending().await
    }

    /// Hands leadership over, waits for what is in flight, flushes, then closes the listeners.
    ///
    /// # Errors
    /// The last flush failed.
    pub(crate) async fn shutdown(mut self) -> Result {
        let result = self.node.shutdown().await;
        if let Some(broker) = self.broker.take() {
            broker.shutdown().await;
        }
        let _ = self.stop.send(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the process failed");
            }
        }
        result.map_err(|error| Failure::from(&*error).while_doing("the node stopped uncleanly"))
    }
}

async fn listen_http(addr: &str) -> Result<Option<TcpListener>> {
    if addr.is_empty() {
        return Ok(None);
    }
    let bound = TcpListener::bind(addr).await;
    bound.map(Some).map_err(|error| cannot_listen("http.listen", addr, &error))
}

async fn listen_clients(
    transport: &Arc<dyn Transport>,
    settings: &ServerSettings,
) -> Result<Option<Box<dyn Acceptor>>> {
    let addr = &settings.listen;
    if addr.is_empty() {
        return Ok(None);
    }
    let bound = server::listen(transport, addr).await;
    bound.map(Some).map_err(|error| cannot_listen("server.listen", addr, &error))
}

fn cannot_listen(key: &str, addr: &str, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen on {addr} ({key}): {error}"))
        .with_hint(format!("is a node running already? choose another port with --set {key}=..."))
}

fn server_config(settings: &ServerSettings) -> ServerConfig {
    let bytes = |count: quorumlog::ByteCount| usize::try_from(count.bytes()).unwrap_or(usize::MAX);
    let mut config = ServerConfig::default();
    config.connections_max = settings.connections_max;
    config.queue_bytes_max = bytes(settings.queue_bytes_max);
    config.read_bytes_max = bytes(settings.read_bytes_max);
    config.subscriptions_max = settings.subscriptions_max;
    config
}

/// Founds the cluster if so told and not done in an earlier run. Other founders are waited for in a task.
async fn found(
    node: &Node,
    settings: &Settings,
    tasks: &mut JoinSet<()>,
    mut stopped: watch::Receiver<bool>,
) -> Result {
    let cluster = &settings.cluster;
    if !cluster.bootstrap || node.is_bootstrapped() {
        return Ok(());
    }
    let members: Vec<Member> =
        if cluster.peers.is_empty() { vec![node.member()] } else { cluster.peers.clone() };
    let alone = members.len() == 1;
    let (founder, founders) = (node.clone(), members.clone());
    let mut founding = Box::pin(async move { founder.bootstrap(founders).await });
    // What is wrong with the settings is told at once.
    let begun =
        if alone { Some(founding.as_mut().await) } else { founding.as_mut().now_or_never() };
    match begun {
        Some(Ok(()) | Err(AdminError::AlreadyBootstrapped)) => return Ok(()),
        Some(Err(error)) => {
            return Err(Failure::failed(format!(
                "cannot found the cluster: {}",
                with_sources(&error)
            )));
        }
        None => {}
    }
    let node = node.clone();
    tasks.spawn(async move {
        let founding = async {
            let mut result = founding.await;
            while let Err(error @ AdminError::Unreachable { .. }) = result {
                tracing::warn!(error = with_sources(&error), "the cluster waits for its founders");
                result = node.bootstrap(members.iter().cloned()).await;
            }
            if let Err(error) = result {
                tracing::error!(error = with_sources(&error), "cannot found the cluster");
            }
        };
        tokio::select! {
            () = founding => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    });
    Ok(())
}

/// The address that clients elsewhere can use for a listener on `listen`: an unspecified host is
/// replaced by the host that peers use.
fn reachable(listen: &str, advertise: Option<&str>) -> String {
    let unspecified = listen.parse().is_ok_and(|addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    });
    let host = advertise.and_then(|addr| addr.rsplit_once(':')).map(|(host, _)| host);
    match (unspecified, host, listen.rsplit_once(':')) {
        (true, Some(host), Some((_, port))) => format!("{host}:{port}"),
        (true, None, _) => {
            tracing::warn!(listen, "clients are told this address; set client_advertise");
            listen.to_owned()
        }
        _ => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_that_they_can_reach() {
        assert_eq!(reachable("127.0.0.1:9", Some("a.example:1")), "127.0.0.1:9");
        assert_eq!(reachable("0.0.0.0:9", Some("a.example:1")), "a.example:9");
        assert_eq!(reachable("[::]:9", Some("[fd00::1]:1")), "[fd00::1]:9");
        assert_eq!(reachable("0.0.0.0:9", None), "0.0.0.0:9");
    }
}

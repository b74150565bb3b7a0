//! A cluster of one node with a broker, for tests.

use super::{Broker, BrokerConfig, Machines};
use quorumlog::Node;
use quorumlog::{ByteCount, Config};

pub(super) struct Single {
    pub(super) node: Node,
    pub(super) broker: Broker,
    _directory: tempfile::TempDir,
}

impl Single {
    /// One log and a name server, on ports of loopback that the system chooses, unless `change` says otherwise.
    pub(super) async fn start(change: impl FnOnce(&mut Config, &mut BrokerConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
        config.storage.disk_reserve = ByteCount::new(0);
        let mut settings = BrokerConfig {
            name_server_listen: "127.0.0.1:0".to_owned(),
            listen: vec!["127.0.0.1:0".to_owned()],
            ..BrokerConfig::default()
        };
        change(&mut config, &mut settings);
        let machines = Machines::default();
        let of_log = machines.clone();
        let builder = Node::builder(config)
            .state_machines_with_files(move |log, files| of_log.machine(log, files));
        let node = builder.open().await.expect("a new node opens");
        node.bootstrap([node.member()]).await.expect("a new cluster can be founded");
        let broker = Broker::open(node.clone(), machines, settings).await.expect("free ports");
        Self { node, broker, _directory: directory }
    }
}

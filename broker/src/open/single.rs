//! A cluster of one node with a broker, for tests.

use quorumlog::{ByteCount, Config, Node};

use crate::{Broker, BrokerConfig};

pub(crate) struct Single {
    pub(crate) node: Node,
    pub(crate) broker: Broker,
    _directory: tempfile::TempDir,
}

impl Single {
    /// One log and a name server, on ports of loopback that the system chooses, unless `change` says otherwise.
    pub(crate) async fn start(change: impl FnOnce(&mut Config, &mut BrokerConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
        config.storage.disk_reserve = ByteCount::new(0);
        let mut settings = BrokerConfig {
            name_server_listen: "127.0.0.1:0".to_owned(),
            listen: vec!["127.0.0.1:0".to_owned()],
            ..BrokerConfig::default()
        };
        change(&mut config, &mut settings);
        let broker = Broker::open(settings, Node::builder(config)).await.expect("free ports");
        let node = broker.node().clone();
        node.bootstrap([node.member()]).await.expect("a new cluster can be founded");
        Self { node, broker, _directory: directory }
    }
}

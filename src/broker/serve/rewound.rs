//! A log that goes back while its broker serves clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Broker, BrokerConfig};
use crate::broker::client::{BrokerClient, Link};
use crate::broker::remoting::codes::{request, response};
use crate::broker::state::Machines;
use crate::config::{ByteCount, Config};
use crate::node::Node;
use crate::seam::TcpTransport;

const PATIENCE: Duration = Duration::from_secs(20);
const TOPIC: &str = "orders";

/// A cluster of one node with a broker, and messages 0 to 4 in a queue, of which a group has consumed three.
struct Single {
    node: Node,
    broker: Broker,
    client: BrokerClient,
    link: Arc<Link>,
    _directory: tempfile::TempDir,
}

impl Single {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
        config.storage.disk_reserve = ByteCount::new(0);
        let machines = Machines::default();
        let of_log = machines.clone();
        let builder = Node::builder(config)
            .state_machines_with_files(move |log, files| of_log.machine(log, files));
        let node = builder.open().await.expect("a new node opens");
        node.bootstrap([node.member()]).await.expect("a new cluster can be founded");
        let settings = BrokerConfig {
            // Clients know where it is.
            name_server_listen: String::new(),
            listen: vec!["127.0.0.1:0".to_owned()],
            ..BrokerConfig::default()
        };
        let broker = Broker::open(node.clone(), machines, settings).await.expect("free ports");
        let addr = broker.addrs()[0];
        let client = BrokerClient::connect(addr, "group").await.expect("it listens");
        let link =
            Arc::new(Link::connect(&TcpTransport, &addr.to_string()).await.expect("it listens"));
        let single = Self { node, broker, client, link, _directory: directory };
        for number in 0..5 {
            assert_eq!(single.send(number).await, number);
        }
        single.consumed(3).await;
        single
    }

    async fn send(&self, number: u64) -> u64 {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "it does not lead");
            let body = Bytes::from(format!("message {number}"));
            match self.client.send(TOPIC, 0, body).await {
                Ok(sent) => return sent.offset,
                // Nothing was stored: it does not lead yet.
                Err(error) => assert!(error.to_string().contains("try again"), "{error}"),
            }
        }
    }

    async fn consumed(&self, offset: u64) {
        let offset = offset.to_string();
        let fields = [
            ("consumerGroup", "group"),
            ("topic", TOPIC),
            ("queueId", "0"),
            ("commitOffset", offset.as_str()),
        ];
        let code = request::UPDATE_CONSUMER_OFFSET;
        let done = self.link.call(code, fields.into_iter().collect(), Bytes::new(), PATIENCE).await;
        assert_eq!(done.expect("it answers").head.code, response::SUCCESS);
    }

    /// Asks again and again how far the group has consumed, and fails if another answer comes than how far it has.
    fn ask_for_offsets(&self) -> JoinHandle<()> {
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            loop {
                let fields = [("consumerGroup", "group"), ("topic", TOPIC), ("queueId", "0")];
                let code = request::QUERY_CONSUMER_OFFSET;
                let fields = fields.into_iter().collect();
                let answer = link.call(code, fields, Bytes::new(), PATIENCE).await;
                let head = answer.expect("it answers").head;
                match head.code {
                    response::SUCCESS => {
                        assert_eq!(head.fields.number("offset").expect("an offset"), 3);
                    }
                    code => assert_ne!(code, response::QUERY_NOT_FOUND, "{:?}", head.remark),
                }
            }
        })
    }

    fn log(&self) -> crate::CommitLog {
        self.node.log("broker-0").expect("it was made")
    }

    /// The log goes back to its beginning, as if a leader had another entry at the last index, and is led again.
    async fn goes_back(&self) {
        let log = self.log();
        let before = log.status();
        let stable = log.watermarks().begin + 2;
        self.node.inner.clone().contradicted(log.id(), stable);
        let mut statuses = log.watch_status();
        loop {
            let now = statuses.current();
            if now.rewinds > before.rewinds && now.role == crate::Role::Leader {
                return;
            }
            statuses.changed().await.expect("it is not closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_log_that_goes_back_are_told_what_it_holds_and_nothing_of_the_way_there() {
    let single = Single::start().await;
    let asking = single.ask_for_offsets();
    for round in 0..6 {
        let end = 5 + round;
        let begun = Instant::now();
        let (client, wait) = (single.client.clone(), PATIENCE);
        let pulling = tokio::spawn(async move { client.pull((TOPIC, 0), end, 1, wait).await });
        single.goes_back().await;
        assert_eq!(single.send(end).await, end, "the queue goes on where the log ends");
        let pulled = pulling.await.expect("no panic").expect("it is served");
        // A pull that was under way may have to come again.
        let next = if pulled.messages.is_empty() { end } else { end + 1 };
        assert_eq!(pulled.next, next, "it was not sent anywhere else");
        assert!(begun.elapsed() < PATIENCE, "nobody woke it");
    }
    assert!(!asking.is_finished(), "{:?}", asking.await);
    asking.abort();
    single.node.shutdown().await.expect("a healthy node shuts down");
    single.broker.shutdown().await;
}

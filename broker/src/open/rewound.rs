//! A log that goes back while its broker serves clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorumlog::seam::TcpTransport;
use tokio::task::JoinHandle;

use crate::net::Link;
use crate::open::single::Single;
use crate::remoting::codes::{request, response};
use crate::tools::BrokerClient;

const PATIENCE: Duration = Duration::from_secs(20);
const TOPIC: &str = "orders";

/// A cluster of one node with a broker, and messages 0 to 4 in a queue, of which a group has consumed three.
struct Filled {
    single: Single,
    client: BrokerClient,
    link: Arc<Link>,
}

impl Filled {
    async fn start() -> Self {
        // Clients know where it is.
        let single = Single::start(|_, settings| settings.name_server_listen = String::new()).await;
        let addr = single.broker.addrs()[0];
        let client = BrokerClient::connect(addr, "group").await.expect("it listens");
        let link =
            Arc::new(Link::connect(&TcpTransport, &addr.to_string()).await.expect("it listens"));
        let filled = Self { single, client, link };
        for number in 0..5 {
            assert_eq!(filled.send(number).await, number);
        }
        filled.consumed(3).await;
        filled
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

    fn log(&self) -> quorumlog::CommitLog {
        self.single.node.log(&"broker-0".parse().expect("a valid name")).expect("it was made")
    }

    /// The log goes back to its beginning, as if a leader had another entry at the last index, and is led again.
    async fn goes_back(&self) {
        let log = self.log();
        let before = log.status();
        let stable = log.watermarks().begin + 2;
        self.single.node.contradict(log.id(), stable);
        let mut statuses = log.watch_status();
        loop {
            let now = statuses.current();
            if now.rewinds > before.rewinds && now.role == quorumlog::Role::Leader {
                return;
            }
            statuses.changed().await.expect("it is not closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_log_that_goes_back_are_told_what_it_holds_and_nothing_of_the_way_there() {
    let filled = Filled::start().await;
    let asking = filled.ask_for_offsets();
    for round in 0..6 {
        let end = 5 + round;
        let begun = Instant::now();
        let (client, wait) = (filled.client.clone(), PATIENCE);
        let pulling = tokio::spawn(async move { client.pull((TOPIC, 0), end, 1, wait).await });
        filled.goes_back().await;
        assert_eq!(filled.send(end).await, end, "the queue goes on where the log ends");
        let pulled = pulling.await.expect("no panic").expect("it is served");
        // A pull that was under way may have to come again.
        let next = if pulled.messages.is_empty() { end } else { end + 1 };
        assert_eq!(pulled.next, next, "it was not sent anywhere else");
        assert!(begun.elapsed() < PATIENCE, "nobody woke it");
    }
    assert!(!asking.is_finished(), "{:?}", asking.await);
    asking.abort();
    filled.single.node.shutdown().await.expect("a healthy node shuts down");
    filled.single.broker.shutdown().await;
}

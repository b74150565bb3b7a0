//! Settings of a node's broker.

use std::net::IpAddr;
use std::time::Duration;

/// What a node's broker serves, and how. `listen`, but for its ports, and `auto_create_topics` must be the same on all
/// nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// Name of the cluster, as clients see it.
    pub cluster: String,
    /// `host:port` of the name server. Empty: none.
    pub name_server_listen: String,
    /// `host:port` of each log's broker: as many logs as addresses.
    pub listen: Vec<String>,
    /// Serve each log on the port two below its own as well: RocketMQ's VIP channel, which Java clients before 4.5 use unless
    /// they are told not to. Ports that are given must leave room for it.
    pub vip_channel: bool,
    /// The address that clients are told instead of the host that is listened on.
    pub advertise: Option<IpAddr>,
    /// Queues that a topic gets in each log unless told otherwise.
    pub default_queues: u32,
    /// Make topics as messages come for them.
    pub auto_create_topics: bool,
    /// Store one copy of a message that a producer sends again, as long as its key is among the last 65,536 of its log.
    /// A program that sends one message object twice on purpose gets one copy, too.
    pub suppress_duplicates: bool,
    /// How long a send waits for its message to be flushed and replicated. Then its producer is told what is known of it.
    pub send_timeout: Duration,
    /// Largest body of a message, or of a batch.
    pub message_bytes_max: usize,
    /// Connections to the name server, and to each log's broker, at once. When there are so many, one that is idle ends
    /// for a new one.
    pub connections_max: usize,
    /// A connection ends when neither end has sent a byte for so long. Stock clients send something every 30 s.
    pub idle_timeout: Duration,
    /// Bytes of requests that the node works on or passes on. When there are so many, connections that have a request
    /// under way wait before they bring another one.
    pub request_bytes_max: usize,
    /// Bytes of answers that wait for their clients to take them. When there are so many, connections that have answers
    /// waiting get no more, and those that take too little end.
    pub answer_bytes_max: usize,
    /// Bytes that pulls hold while they wait for messages, about 2 KiB each. When there are so many, connections that have
    /// pulls waiting get no more: their clients pause before they pull again.
    pub waiting_bytes_max: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            cluster: "DefaultCluster".to_owned(),
            name_server_listen: "127.0.0.1:9876".to_owned(),
            listen: vec!["127.0.0.1:10911".to_owned()],
            vip_channel: true,
            advertise: None,
            default_queues: 4,
            auto_create_topics: true,
            suppress_duplicates: false,
            send_timeout: Duration::from_secs(5),
            message_bytes_max: 4 << 20,
            connections_max: 1024,
            // RocketMQ's serverChannelMaxIdleTimeSeconds.
            idle_timeout: Duration::from_secs(120),
            request_bytes_max: 64 << 20,
            answer_bytes_max: 64 << 20,
            waiting_bytes_max: 128 << 20,
        }
    }
}

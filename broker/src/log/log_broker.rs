//! One log's broker on one node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use quorumlog::repeated::Repeated;
use quorumlog::seam::Transport;

use super::brokers::Brokers;
use super::consume_offsets::ConsumeOffsets;
use super::lease_clock::LeaseClock;
use super::metrics::Requests;
use super::replica::Replica;
use super::throughput::Throughput;
use super::topics::Topics;
use super::wall_clock::WallClock;
use crate::clients::Clients;
use crate::net::LongAnswers;
use crate::record::UniqueIds;
use crate::settings::BrokerConfig;

/// What a broker has from its node's seams.
pub(crate) struct Outside {
    pub(crate) clock: WallClock,
    pub(crate) transport: Arc<dyn Transport>,
    /// Drawn at its start.
    pub(crate) random: u128,
}

/// One log's broker on one node.
pub(crate) struct LogBroker {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) topics: Topics,
    pub(crate) consumed: Arc<ConsumeOffsets>,
    pub(crate) leases: LeaseClock,
    pub(crate) clients: Clients,
    pub(crate) unique_ids: UniqueIds,
    /// Whose turn it is among the queues, for messages that leave the choice to the broker.
    pub(crate) queue_turn: AtomicU32,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) requests: Requests,
    /// Codes of requests that are not served, as they are logged.
    pub(crate) not_served: Repeated,
    pub(crate) throughput: Throughput,
    /// Wall clock at which this broker was started.
    pub(crate) started_ms: i64,
    pub(crate) long_answers: Arc<LongAnswers>,
}

impl LogBroker {
    pub(crate) fn new(
        named: (u32, String),
        addr: SocketAddr,
        config: Arc<BrokerConfig>,
        brokers: &Arc<Brokers>,
        Outside { clock, transport, random }: Outside,
    ) -> Self {
        let started_ms = clock.now_ms();
        let replica = Arc::new(Replica::new(named, addr, Arc::clone(&config), clock));
        let consumed = Arc::new(ConsumeOffsets::new(&replica));
        let topics = Topics::new(&replica, brokers, &consumed, &transport);
        Self {
            config,
            replica,
            topics,
            consumed,
            leases: LeaseClock::default(),
            clients: Clients::default(),
            unique_ids: UniqueIds::new(addr, random),
            queue_turn: AtomicU32::new(0),
            transport,
            requests: Requests::default(),
            not_served: Repeated::default(),
            throughput: Throughput::default(),
            started_ms,
            long_answers: Arc::clone(brokers.long_answers()),
        }
    }
}

//! Sends requests to a node, and measures what they cost it.

use std::collections::BTreeSet;

use peak_alloc::PeakAlloc;
use quorumlog::{ByteCount, CommitLog, Config, Node};
use quorumlog_broker::{Broker, BrokerConfig, GroupAdmin};

use crate::client::Client;
use crate::requests::{Fields, frame};

#[global_allocator]
pub(crate) static MEMORY: PeakAlloc = PeakAlloc;

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;
/// What a request may cost that asks for something small.
pub(crate) const SMALL: usize = MIB;
/// How often a request is repeated that seems to have cost too much.
const ATTEMPTS_MAX: usize = 3;

/// A node with a broker, and what was measured of it.
pub(crate) struct Costs {
    pub(crate) log: CommitLog,
    pub(crate) client: Client,
    name_server: Client,
    pub(crate) measured: BTreeSet<i32>,
    broker: Broker,
    _directory: tempfile::TempDir,
}

impl Costs {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
        config.storage.disk_reserve = ByteCount::new(0);
        config.limits.record_size_max = ByteCount::mib(5);
        config.limits.tail_cache_max = ByteCount::mib(1);
        let mut settings = BrokerConfig::default();
        settings.name_server_listen = "127.0.0.1:0".to_owned();
        settings.listen = vec!["127.0.0.1:0".to_owned()];
        settings.suppress_duplicates = true;
        let broker = Broker::open(settings, Node::builder(config)).await.expect("free ports");
        let node = broker.node().clone();
        node.bootstrap([node.member()]).await.expect("a new cluster can be founded");
        let mut client = Client::connect(broker.addrs()[0]).await;
        let name_server = Client::connect(broker.name_server().expect("it has one")).await;
        // It is answered once this node leads.
        while client.call(&frame(30, &[("topic", "x"), ("queueId", "0")], b"")).await.0 != 0 {}
        let log = node.log(&"broker-0".parse().expect("a valid name")).expect("the broker made it");
        Self { log, client, name_server, measured: BTreeSet::new(), broker, _directory: directory }
    }

    /// The tool that looks at groups.
    pub(crate) fn groups(&self) -> GroupAdmin {
        GroupAdmin::new(self.broker.name_server().map(|addr| addr.to_string()))
    }

    /// Another connection.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.broker.addrs()[0]).await
    }

    /// Sends a request and holds what it cost against its bounds. `code` is that of its answer.
    pub(crate) async fn measure(
        &mut self,
        what: &str,
        request: i32,
        (fields, body): (Fields<'_>, &[u8]),
        code: i64,
        (memory, record): (usize, usize),
    ) {
        self.measured.insert(request);
        let frame = frame(request, fields, body);
        let from = self.log.watermarks().committed;
        let to_name_server = matches!(request, 105 | 106 | 206 | 216);
        let client = if to_name_server { &mut self.name_server } else { &mut self.client };
        let (answered, remark, bytes, mut peak) = client.peak_of(&frame).await;
        assert_eq!(answered, code, "{request}, {what}: {remark}");
        // What the node does in the background is measured along: the least of a few is the request's.
        for _ in 0..ATTEMPTS_MAX {
            if peak > memory {
                peak = peak.min(client.peak_of(&frame).await.3);
            }
        }
        let mut largest = 0;
        let mut next = from;
        while next < self.log.watermarks().committed {
            let records = self.log.read(next, MIB).await.expect("the log is read");
            let Some(last) = records.last() else { break };
            next = last.index + 1;
            largest = records.iter().map(|record| record.payload.len()).fold(largest, usize::max);
        }
        eprintln!(
            "{request:>3} {what:<60} {:>8} bytes asked, {bytes:>8} answered, {:>6} KiB of memory, records of {largest}",
            frame.len(),
            peak / KIB
        );
        assert!(
            peak <= memory,
            "{request}, {what}: {peak} bytes of memory, and {memory} are allowed"
        );
        assert!(
            largest <= record,
            "{request}, {what}: a record of {largest}, and {record} is allowed"
        );
    }

    /// Sends a request that is over a limit: it is refused, and costs a few times its own bytes.
    pub(crate) async fn refused(
        &mut self,
        what: &str,
        request: i32,
        fields: Fields<'_>,
        body: &[u8],
    ) {
        let bytes = fields.iter().map(|(_, value)| value.len()).sum::<usize>() + body.len();
        let code = if matches!(request, 10 | 310 | 320) { 13 } else { 29 };
        self.measure(what, request, (fields, body), code, (8 * bytes + SMALL, 0)).await;
    }
}

//! What each request of the native protocol may cost a node: the memory that the largest input takes at most, in relation
//! to its size, and the same for many appends whose answers nobody reads; and what clients that take no answers cost others.
//!
//! One test in a separate program: it counts the memory of the whole process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use quorumlog::seam::{Acceptor, TcpTransport, Transport};
use quorumlog::server::{self, ServerConfig};
use quorumlog::{ByteCount, CommitLog, Config, LogName, Node};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What a request may cost that asks for something small.
const SMALL: usize = MIB;
/// How often a request is repeated that seems to have cost too much.
const ATTEMPTS_MAX: usize = 3;
/// `limits.append_inflight_max` and `limits.tail_cache_max` of the node.
const INFLIGHT: usize = 8 * MIB;
const TAIL: usize = 4 * MIB;
/// `server.subscriptions_max` of the node.
const SUBSCRIPTIONS: u32 = 8;
/// `server.queued_bytes_max` of the node.
const QUEUED: usize = 16 * MIB;
/// What a record of a batch may hold beside its payload.
const RECORD: usize = 512;

const APPEND: u8 = 1;
const BATCH: u8 = 2;
const READ: u8 = 3;
const SUBSCRIBE: u8 = 5;
const APPENDED: u8 = 64;
const RECORDS: u8 = 65;
const APPEND_FAILED: u8 = 96;
const READ_FAILED: u8 = 97;
const ADMIN_FAILED: u8 = 98;
const HELLO: u8 = 0xF0;
const CREDIT: u8 = 0xF4;

fn frame(kind: u8, log: u64, correlation: u64, head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = [0; 36];
    header[..4].copy_from_slice(b"QLFC");
    (header[4], header[5]) = (2, kind);
    header[8..16].copy_from_slice(&log.to_le_bytes());
    header[16..24].copy_from_slice(&correlation.to_le_bytes());
    header[24..28].copy_from_slice(&u32::try_from(head.len()).expect("small").to_le_bytes());
    header[28..32].copy_from_slice(&u32::try_from(body.len()).expect("small").to_le_bytes());
    let crc = crc32fast::hash(&[&header, head].concat());
    [&header, &crc.to_le_bytes()[..], head, body].concat()
}

fn hello() -> Vec<u8> {
    let mut head = vec![0; 16 + 8 + 16 + 8];
    head.extend(u32::MAX.to_le_bytes());
    frame(HELLO, 0, 0, &head, b"")
}

/// So many empty records at once.
fn empty_batch(log: u64, records: usize) -> Vec<u8> {
    let mut head = vec![0; 5];
    head.extend((records as u64).to_le_bytes());
    frame(BATCH, log, 1, &head, &vec![0; 8 * records])
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn connect(addr: &str) -> Self {
        let mut stream = TcpStream::connect(addr).await.expect("it listens");
        stream.write_all(&hello()).await.expect("it is taken");
        let mut client = Self { stream };
        assert_eq!(client.answer().await.0, HELLO);
        client
    }

    /// Kind of the next answer, and bytes of its body, which are dropped.
    async fn answer(&mut self) -> (u8, usize) {
        let mut header = [0; 40];
        let read = self.stream.read_exact(&mut header);
        let read = tokio::time::timeout(Duration::from_secs(60), read).await;
        read.expect("an answer in time").expect("an answer");
        let length = |at: usize| {
            u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let mut left = length(24) + length(28);
        let mut room = [0; 4 * KIB];
        while left > 0 {
            let step = left.min(room.len());
            left -= self.stream.read(&mut room[..step]).await.expect("a body");
        }
        (header[5], length(28))
    }
}

struct Costs {
    client: Client,
    addr: String,
    log: CommitLog,
    id: u64,
    measured: BTreeSet<u8>,
    node: Node,
    _directory: tempfile::TempDir,
}

impl Costs {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
        config.storage.disk_reserve = ByteCount::new(0);
        config.limits.append_inflight_max = ByteCount::new(INFLIGHT as u64);
        config.limits.tail_cache_max = ByteCount::new(TAIL as u64);
        let node = Node::open(config).await.expect("a new node opens");
        node.bootstrap([node.member()]).await.expect("a new cluster can be founded");
        let name = LogName::new("orders").expect("a name");
        let log = node.create_log(&name).await.expect("a new log");
        log.append("leads").await.expect("one node");
        let transport: Arc<dyn Transport> = Arc::new(TcpTransport);
        let acceptor = server::listen(&transport, "127.0.0.1:0").await.expect("a free port");
        let addr = Acceptor::local_addr(&*acceptor);
        let mut limits = ServerConfig::default();
        limits.subscriptions_max = SUBSCRIPTIONS;
        limits.queued_bytes_max = QUEUED;
        tokio::spawn(server::run(node.clone(), acceptor, limits, std::future::pending()));
        let client = Client::connect(&addr).await;
        let id = log.id().0;
        Self { client, addr, log, id, measured: BTreeSet::new(), node, _directory: directory }
    }

    /// Sends `bytes` and holds what the answer cost against its bound.
    async fn measure(&mut self, what: &str, request: u8, bytes: &[u8], kind: u8, bound: usize) {
        self.measured.insert(request);
        let mut least = usize::MAX;
        let mut answered = 0;
        // What the node does in the background is measured along: the least of a few is the request's.
        for _ in 0..ATTEMPTS_MAX {
            if least <= bound {
                break;
            }
            MEMORY.reset_peak_usage();
            let before = MEMORY.current_usage();
            self.client.stream.write_all(bytes).await.expect("it is taken");
            let answer = self.client.answer().await;
            assert_eq!(answer.0, kind, "{request}, {what}");
            answered = answer.1;
            least = least.min(MEMORY.peak_usage().saturating_sub(before));
        }
        eprintln!(
            "{request:>3} {what:<40} {:>8} bytes asked, {answered:>8} answered, {:>6} KiB of memory",
            bytes.len(),
            least / KIB
        );
        assert!(least <= bound, "{request}, {what}: {least} bytes of memory, {bound} are allowed");
    }
}

async fn appends(costs: &mut Costs) {
    let id = costs.id;
    let one = frame(APPEND, id, 1, &[0; 9], b"");
    costs.measure("an empty record", APPEND, &one, APPENDED, SMALL).await;
    let batch = empty_batch(id, 4096);
    costs.measure("4096 empty records", BATCH, &batch, APPENDED, 4096 * RECORD + SMALL).await;
    // Refused for its count. The frame is received, and that is all.
    let batch = empty_batch(id, MIB);
    let bound = batch.len() + 2 * SMALL;
    costs.measure("a million empty records", BATCH, &batch, APPEND_FAILED, bound).await;

    // More than the node lets in. Some are refused, and no more are held than it says.
    let batch = empty_batch(id, 4096);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(&costs.addr).await);
    }
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let batch = &batch;
    let sending = clients.into_iter().map(|mut client| async move {
        for _ in 0..100 {
            client.stream.write_all(batch).await.expect("it is taken");
        }
        let mut appended = 0;
        for _ in 0..100 {
            match client.answer().await.0 {
                APPENDED => appended += 1,
                refused => assert_eq!(refused, APPEND_FAILED),
            }
        }
        appended
    });
    let appended: u32 = futures_util::future::join_all(sending).await.into_iter().sum();
    let peak = MEMORY.peak_usage().saturating_sub(before);
    eprintln!("400 batches at once, {appended} of them appended: {} KiB of memory", peak / KIB);
    let bound = INFLIGHT + TAIL + 4 * MIB;
    assert!(peak <= bound, "400 batches: {peak} bytes of memory, {bound} are allowed");
}

async fn reading(costs: &mut Costs) {
    let id = costs.id;
    let begin = costs.log.watermarks().begin;
    // As many as a read gives.
    for _ in 0..24 {
        costs.client.stream.write_all(&empty_batch(id, 4096)).await.expect("it is taken");
        assert_eq!(costs.client.answer().await.0, APPENDED);
    }
    let read = [begin.to_le_bytes(), (4 * MIB as u64).to_le_bytes()].concat();
    let read = frame(READ, id, 1, &read, b"");
    // A record in memory is a handle and its position; with its header it counts for 48 bytes.
    costs.measure("4 MiB of empty records", READ, &read, 65, 5 * 4 * MIB).await;
    let subscribe = frame(SUBSCRIBE, id, 7, &[0; 10], b"");
    let all = [subscribe, frame(CREDIT, 0, 7, &1_u32.to_le_bytes(), b"")].concat();
    costs.measure("a subscription", SUBSCRIBE, &all, 65, 4 * MIB).await;
    for (kind, answer, what) in [
        (4, 66, "a read barrier"),
        (6, 67, "the states of all logs"),
        (7, 68, "the list of logs"),
        (10, 69, "the list of members"),
        (16, 71, "the state of the node"),
    ] {
        let request = frame(kind, if kind == 4 { id } else { 0 }, 1, b"", b"");
        costs.measure(what, kind, &request, answer, SMALL).await;
    }
}

/// Clients that take a small answer and no large one hold nobody up that takes its answers.
async fn unread(costs: &Costs) {
    let begin = costs.log.watermarks().begin;
    let read = |correlation: u64, bytes: usize| {
        let head = [begin.to_le_bytes(), (bytes as u64).to_le_bytes()].concat();
        frame(READ, costs.id, correlation, &head, b"")
    };
    let mut greedy = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(&costs.addr).await;
        client.stream.write_all(&read(1, 1)).await.expect("it is taken");
        assert_eq!(client.answer().await.0, RECORDS);
        let large: Vec<u8> = (2..60).flat_map(|n| read(n, 4 * MIB)).collect();
        client.stream.write_all(&large).await.expect("it is taken");
        greedy.push(client);
    }
    let mut honest = Client::connect(&costs.addr).await;
    let mut slowest = Duration::ZERO;
    let since = Instant::now();
    // Long enough for the first of those to be cut off, and for many reads before.
    while since.elapsed() < Duration::from_millis(1500) {
        let asked = Instant::now();
        honest.stream.write_all(&read(1, 64 * KIB)).await.expect("it is taken");
        assert_eq!(honest.answer().await.0, RECORDS);
        slowest = slowest.max(asked.elapsed());
    }
    eprintln!("a read beside {} clients that take no answers: {slowest:?}", greedy.len());
    assert!(slowest < Duration::from_millis(500), "a read took {slowest:?}");
}

/// All connections together have so many subscriptions, and one that ends leaves its place to others.
async fn subscriptions(costs: &Costs) {
    let subscribe = |correlation: u64| frame(SUBSCRIBE, costs.id, correlation, &[0; 10], b"");
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(Client::connect(&costs.addr).await);
    }
    for client in &mut clients {
        for correlation in 0..u64::from(SUBSCRIPTIONS / 2) {
            client.stream.write_all(&subscribe(correlation)).await.expect("it is taken");
        }
        // They have come when what is behind them is answered.
        client.stream.write_all(&frame(7, 0, 1, b"", b"")).await.expect("it is taken");
        assert_eq!(client.answer().await.0, 68);
    }
    let mut other = Client::connect(&costs.addr).await;
    other.stream.write_all(&subscribe(1)).await.expect("it is taken");
    assert_eq!(other.answer().await.0, READ_FAILED, "there is no place");
    drop(clients.pop());
    // The node sees the end of the connection a moment later.
    loop {
        let again = [subscribe(2), frame(CREDIT, 0, 2, &1_u32.to_le_bytes(), b"")].concat();
        other.stream.write_all(&again).await.expect("it is taken");
        match other.answer().await.0 {
            65 => break,
            refused => assert_eq!(refused, READ_FAILED),
        }
    }
}

async fn changes(costs: &mut Costs) {
    let text = |bytes: usize| [&(bytes as u64).to_le_bytes()[..], &vec![b'x'; bytes]].concat();
    let long = 32 * KIB;
    for (kind, what) in [(8, "a log with a long name"), (9, "to delete such a log")] {
        let request = frame(kind, 0, 1, &text(long), b"");
        costs.measure(what, kind, &request, ADMIN_FAILED, SMALL).await;
    }
    for (kind, answer, what) in [
        (12, ADMIN_FAILED, "to promote nobody"),
        (13, ADMIN_FAILED, "to remove nobody"),
        (14, ADMIN_FAILED, "to hand a log to nobody"),
        (15, ADMIN_FAILED, "to hand all to nobody"),
    ] {
        let request = frame(kind, costs.id, 1, &99_u64.to_le_bytes(), b"");
        costs.measure(what, kind, &request, answer, SMALL).await;
    }
    let member = [99_u64.to_le_bytes().to_vec(), text(long), text(long)].concat();
    let request = frame(11, 0, 1, &member, b"");
    costs.measure("a member with long addresses", 11, &request, ADMIN_FAILED, SMALL).await;
    // Ends the subscription from above.
    costs.client = Client::connect(&costs.addr).await;
    let unknown = frame(READ, 77, 1, &[0; 16], b"");
    costs.measure("a log that is not there", READ, &unknown, READ_FAILED, SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_costs_no_more_than_its_bound() {
    let mut costs = Costs::start().await;
    subscriptions(&costs).await;
    appends(&mut costs).await;
    reading(&mut costs).await;
    unread(&costs).await;
    changes(&mut costs).await;
    assert_eq!(costs.measured, (1..=16).collect(), "each kind of request has a row");
    costs.node.shutdown().await.expect("a healthy node");
}

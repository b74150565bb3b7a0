//! What each request may cost. For every code that a broker or a name server serves: the largest and the most expensive
//! input that passes its checks, the memory that it takes at most, and the largest record that it leads to. A request over
//! the limits is refused, with an answer.
//!
//! One test in a separate program: it counts the memory of the whole process.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Buf as _;
use peak_alloc::PeakAlloc;
use quorumlog::broker::{Broker, BrokerConfig, Machines};
use quorumlog::{ByteCount, CommitLog, Config, Node};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use requests::{Fields, batch, frame, heartbeat, locks, name, send, topics_to_adopt};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What a request may cost that asks for something small.
const SMALL: usize = MIB;
/// Ours, between brokers: a decision on a topic.
const DECIDE: i32 = 0x514C_0003;
/// How often a request is repeated that seems to have cost too much.
const ATTEMPTS_MAX: usize = 3;

/// A connection that keeps nothing of an answer but its code.
struct Client {
    stream: TcpStream,
    header: Vec<u8>,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        Self { stream, header: Vec::with_capacity(MIB) }
    }

    /// Code and remark of the next answer, and bytes of its body.
    async fn answer(&mut self) -> (i64, String, usize) {
        loop {
            let mut lengths = [0; 8];
            let read =
                tokio::time::timeout(Duration::from_secs(60), self.stream.read_exact(&mut lengths));
            read.await.expect("an answer in time").expect("an answer");
            let header = (&lengths[4..]).get_u32() as usize;
            let mut left = (&lengths[..]).get_u32() as usize - 4 - header;
            self.header.resize(header, 0);
            self.stream.read_exact(&mut self.header).await.expect("a header");
            let body = left;
            let mut room = [0; 4 * KIB];
            while left > 0 {
                let step = left.min(room.len());
                left -= self.stream.read(&mut room[..step]).await.expect("a body");
            }
            let head: Value = serde_json::from_slice(&self.header).expect("JSON");
            if head["flag"].as_i64() == Some(1) {
                let remark = head["remark"].as_str().unwrap_or_default().to_owned();
                return (head["code"].as_i64().expect("a code"), remark, body);
            }
        }
    }

    async fn call(&mut self, frame: &[u8]) -> (i64, String, usize) {
        self.stream.write_all(frame).await.expect("it is taken");
        self.answer().await
    }

    /// `call`, and by how much the memory of the process grew meanwhile.
    async fn peak_of(&mut self, frame: &[u8]) -> (i64, String, usize, usize) {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let (code, remark, bytes) = self.call(frame).await;
        (code, remark, bytes, MEMORY.peak_usage().saturating_sub(before))
    }

    /// Many requests, of which none may fail.
    async fn all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut under_way = 0;
        for frame in frames {
            self.stream.write_all(&frame).await.expect("it is taken");
            under_way += 1;
            if under_way == 256 {
                for _ in 0..std::mem::take(&mut under_way) {
                    let (code, remark, _) = self.answer().await;
                    assert_eq!(code, 0, "{remark}");
                }
            }
        }
        for _ in 0..under_way {
            let (code, remark, _) = self.answer().await;
            assert_eq!(code, 0, "{remark}");
        }
    }
}

/// A node with a broker, and what was measured of it.
struct Costs {
    log: CommitLog,
    client: Client,
    name_server: Client,
    measured: BTreeSet<i32>,
    _broker: Broker,
    _directory: tempfile::TempDir,
}

impl Costs {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = Config::new(1, directory.path()).with_listen("127.0.0.1:0");
        config.storage.disk_reserve = ByteCount::new(0);
        config.limits.record_size_max = ByteCount::mib(5);
        config.limits.tail_cache_max = ByteCount::mib(1);
        let machines = Machines::default();
        let of_log = machines.clone();
        let builder = Node::builder(config)
            .state_machines_with_files(move |log, files| of_log.machine(log, files));
        let node = builder.open().await.expect("a new node opens");
        let mut settings = BrokerConfig::default();
        settings.name_server_listen = "127.0.0.1:0".to_owned();
        settings.listen = vec!["127.0.0.1:0".to_owned()];
        settings.suppress_duplicates = true;
        node.bootstrap([node.member()]).await.expect("a new cluster can be founded");
        let broker = Broker::open(node.clone(), machines, settings).await.expect("free ports");
        let mut client = Client::connect(broker.addrs()[0]).await;
        let name_server = Client::connect(broker.name_server().expect("it has one")).await;
        // It is answered once this node leads.
        while client.call(&frame(30, &[("topic", "x"), ("queueId", "0")], b"")).await.0 != 0 {}
        let log = node.log("broker-0").expect("the broker made it");
        Self {
            log,
            client,
            name_server,
            measured: BTreeSet::new(),
            _broker: broker,
            _directory: directory,
        }
    }

    /// Sends a request and holds what it cost against its bounds. `code` is that of its answer.
    async fn measure(
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
    async fn refused(&mut self, what: &str, request: i32, fields: Fields<'_>, body: &[u8]) {
        let bytes = fields.iter().map(|(_, value)| value.len()).sum::<usize>() + body.len();
        let code = if matches!(request, 10 | 310 | 320) { 13 } else { 29 };
        self.measure(what, request, (fields, body), code, (8 * bytes + SMALL, 0)).await;
    }
}

/// Codes that the source serves: what is named where requests are told apart.
fn served() -> BTreeMap<i32, String> {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/broker").join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let codes = read("remoting/codes.rs");
    let number = |name: &str| -> i32 {
        let line = codes.lines().find(|line| line.contains(&format!(" {name}: i32")));
        let value = line.and_then(|line| line.split(['=', ';']).nth(1)).expect(name).trim();
        match value.strip_prefix("0x") {
            Some(hex) => i32::from_str_radix(&hex.replace('_', ""), 16).expect(name),
            None => value.parse().expect(name),
        }
    };
    let sources = read("serve/dispatch.rs") + &read("serve/routes.rs");
    let names = sources.split("request::").skip(1).map(|rest| {
        rest.split(|it: char| !it.is_ascii_uppercase() && !it.is_ascii_digit() && it != '_')
            .next()
            .unwrap_or_default()
    });
    let names = names.filter(|name| name.len() > 2);
    names.map(|name| (number(name), name.to_owned())).collect()
}

async fn messages(costs: &mut Costs) {
    let key = |bytes: usize| format!("UNIQ_KEY\u{1}{}\u{2}", "k".repeat(bytes - 10));
    let body = vec![7; 4 * MIB];
    let record = 4 * MIB + 33 * KIB;
    for code in [10, 310] {
        let properties = key(32_767);
        let fields = send("T", "0", &properties);
        costs
            .measure(
                "the largest message, with the longest key",
                code,
                (&fields, &body),
                0,
                (32 * MIB, record),
            )
            .await;
        let delayed = format!("{}DELAY\u{1}18\u{2}", key(32_600));
        let fields = send("T", "0", &delayed);
        costs
            .measure("the largest message, delayed", code, (&fields, &body), 0, (32 * MIB, record))
            .await;
        costs
            .refused("a body over the limit", code, &send("T", "0", ""), &vec![0; 4 * MIB + 1])
            .await;
        costs.refused("properties over the limit", code, &send("T", "0", &key(32_768)), b"x").await;
    }
    let keys = format!("KEYS\u{1}{}\u{2}", "k ".repeat(16_000));
    costs
        .measure(
            "a message with 16,000 keys",
            10,
            (&send("T", "0", &keys), b"x"),
            0,
            (8 * MIB, 34 * KIB),
        )
        .await;
    let topic = "t".repeat(127);
    let fields = send(&topic, "1", "");
    costs
        .measure(
            "4,096 messages of a batch",
            320,
            (&fields, &batch(4096, 0)),
            0,
            (8 * MIB, MIB + 512 * KIB),
        )
        .await;
    costs
        .measure(
            "a batch of 4 MiB",
            320,
            (&fields, &batch(1024, 4 * KIB - 22)),
            0,
            (32 * MIB, 5 * MIB),
        )
        .await;
    costs.refused("4,097 messages of a batch", 320, &fields, &batch(4097, 0)).await;
    let fields = [("offset", "0"), ("group", "g"), ("delayLevel", "1")];
    costs.measure("a message that is not there", 36, (&fields, b""), 1, (SMALL, 0)).await;
}

/// Questions about messages: what they cost is what they read.
async fn reading(costs: &mut Costs) {
    let large = vec![7; 4 * MIB];
    costs.client.all([frame(10, &send("Large", "0", "KEYS\u{1}k\u{2}"), &large)]).await;
    let last = (costs.log.watermarks().committed - 1) << 12;
    let (last, group) = (last.to_string(), name(2));
    let answer = 16 * MIB;
    let back = [
        ("offset", last.as_str()),
        ("group", group.as_str()),
        ("delayLevel", "18"),
        ("originMsgId", &"i".repeat(30_000)),
    ];
    costs
        .measure(
            "the largest message is handed back",
            36,
            (&back, b""),
            0,
            (32 * MIB, 4 * MIB + 64 * KIB),
        )
        .await;
    let pull = |flags: &'static str, tags: &'static str| {
        [
            ("consumerGroup", "g"),
            ("topic", "Large"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "1024"),
            ("sysFlag", flags),
            ("subscription", tags),
            ("commitOffset", "1"),
        ]
    };
    let tags: &'static str = Box::leak("t||".repeat(1024).into_boxed_str());
    for code in [11, 361] {
        costs.measure("an offset goes along", code, (&pull("1", "*"), b""), 0, (answer, KIB)).await;
        // It is answered once the offset is applied.
        costs.client.call(&frame(14, &pull("1", "*"), b"")).await;
        costs
            .measure("the largest message", code, (&pull("0", "*"), b""), 0, (answer, 4 * KIB))
            .await;
        costs
            .measure("the longest subscription", code, (&pull("4", tags), b""), 20, (SMALL, 0))
            .await;
        let over: &'static str = Box::leak("t||".repeat(1025).into_boxed_str());
        costs.refused("a subscription over the limit", code, &pull("4", over), b"").await;
        let group = name(0) + "g";
        let mut fields: Vec<(&str, &str)> = pull("0", "*").to_vec();
        fields[0].1 = &group;
        costs.refused("a group over the limit", code, &fields, b"").await;
    }
    costs.measure("the largest message", 33, (&[("offset", &last)], b""), 0, (answer, 0)).await;
    let query = [
        ("topic", "Large"),
        ("key", "k"),
        ("maxNum", "64"),
        ("beginTimestamp", "0"),
        ("endTimestamp", "9000000000000"),
    ];
    costs.measure("the largest message by key", 12, (&query, b""), 0, (answer, 0)).await;
    let of_queue = [("topic", "Large"), ("queueId", "0"), ("timestamp", "1")];
    for code in [29, 30, 31] {
        costs.measure("a queue", code, (&of_queue, b""), 0, (answer, 0)).await;
    }
    costs.measure("all values", 28, (&[], b""), 0, (answer, 0)).await;
}

async fn topics(costs: &mut Costs) {
    for n in 0..16 {
        let topic = format!("{n:0>127}");
        let fields = [
            ("topic", topic.as_str()),
            ("readQueueNums", "1024"),
            ("writeQueueNums", "1024"),
            ("perm", "6"),
        ];
        costs.measure("a topic of 1,024 queues", 17, (&fields, b""), 0, (SMALL, KIB)).await;
    }
    let over = [("topic", "T"), ("readQueueNums", "1025"), ("writeQueueNums", "8"), ("perm", "6")];
    costs.refused("a topic of 1,025 queues", 17, &over, b"").await;
    costs
        .refused("the name of a topic over the limit", 17, &[("topic", &"t".repeat(128))], b"")
        .await;
    let topic = format!("{:0>127}", 0);
    costs
        .client
        .all((0..1024).map(|n: u32| frame(10, &send(&topic, &n.to_string(), ""), b"x")))
        .await;
    costs.measure("1,024 queues", 202, (&[("topic", &topic)], b""), 0, (4 * MIB, 0)).await;
    costs.measure("one topic", 351, (&[("topic", &topic)], b""), 0, (SMALL, 0)).await;
    costs.measure("a route", 105, (&[("topic", &topic)], b""), 0, (SMALL, 0)).await;
    costs
        .measure(
            "the longest name that a frame's fields hold",
            105,
            (&[("topic", &"t".repeat(65_000))], b""),
            17,
            (SMALL, 0),
        )
        .await;
    costs
        .measure(
            "1,024 topics to take over",
            DECIDE,
            (&[], &topics_to_adopt(1024)),
            0,
            (8 * MIB, 512 * KIB),
        )
        .await;
    costs.refused("more than a decision may hold", DECIDE, &[], &topics_to_adopt(4000)).await;
    costs.measure("the cluster", 106, (&[], b""), 0, (SMALL, 0)).await;
    costs.measure("all topics", 206, (&[], b""), 0, (32 * MIB, 0)).await;
    costs.measure("a topic", 216, (&[("topic", "T")], b""), 0, (SMALL, 0)).await;
}

async fn offsets(costs: &mut Costs) {
    let of = |group: &str, topic: &str, queue: &str, offset: &str| -> Vec<u8> {
        frame(
            15,
            &[
                ("consumerGroup", group),
                ("topic", topic),
                ("queueId", queue),
                ("commitOffset", offset),
            ],
            b"",
        )
    };
    let topics: Vec<_> = (0..16).map(|n| format!("{n:0>127}")).collect();
    let all = name(0);
    costs.client.all(topics.iter().map(|topic| of(&all, topic, "0", "1"))).await;
    let fields = [
        ("consumerGroup", all.as_str()),
        ("topic", topics[0].as_str()),
        ("queueId", "1"),
        ("commitOffset", "7"),
    ];
    costs.measure("the longest names", 15, (&fields, b""), 0, (SMALL, KIB)).await;
    costs.measure("the longest names", 14, (&fields, b""), 0, (SMALL, 0)).await;
    let over = name(0) + "g";
    let fields =
        [("consumerGroup", over.as_str()), ("topic", "T"), ("queueId", "0"), ("commitOffset", "7")];
    costs.refused("a group over the limit", 15, &fields, b"").await;
    costs
        .measure(
            "all that a group consumes, in 16,384 queues",
            208,
            (&[("consumerGroup", &all)], b""),
            0,
            (16 * MIB, 0),
        )
        .await;
    costs.measure("the topics of a group", 343, (&[("group", &all)], b""), 0, (SMALL, 0)).await;
    let reset =
        [("group", all.as_str()), ("topic", &topics[0]), ("timestamp", "0"), ("isForce", "true")];
    costs.measure("a reset of 1,024 queues", 222, (&reset, b""), 0, (8 * MIB, 257 * KIB)).await;
    costs.client.all((1..8_000).map(|n| of(&name(n), &topics[1], "0", "1"))).await;
    costs.measure("8,000 groups with the longest names", 201, (&[], b""), 0, (32 * MIB, 0)).await;
    costs.client.all((8_000..58_000).map(|n| of(&name(n), &topics[1], "0", "1"))).await;
    costs
        .measure(
            "58,000 groups with the longest names",
            300,
            (&[("topic", &topics[1])], b""),
            0,
            (32 * MIB, 0),
        )
        .await;
    costs.measure("more groups than one answer holds", 201, (&[], b""), 1, (20 * MIB, 0)).await;
    costs
        .measure(
            "the offsets of 58,000 groups",
            215,
            (&[("topic", &topics[1])], b""),
            0,
            (32 * MIB, KIB),
        )
        .await;
}

async fn clients(costs: &mut Costs) {
    let id = name(0);
    let large = heartbeat(&id, 1024, 14, "*");
    assert!((700 * KIB..MIB).contains(&large.len()), "{} bytes", large.len());
    costs
        .measure("1,024 groups with 14 subscriptions each", 34, (&[], &large), 0, (48 * MIB, 0))
        .await;
    let wide = heartbeat("b", 1, 24, &"tag-000000000000000000000000||".repeat(1024));
    costs.measure("the longest expressions", 34, (&[], &wide), 0, (16 * MIB, 0)).await;
    for (what, body) in [
        ("1,025 groups", heartbeat("c", 1025, 0, "*")),
        ("1,025 subscriptions", heartbeat("c", 1, 1025, "*")),
        ("a client's id over the limit", heartbeat(&"c".repeat(256), 1, 1, "*")),
        ("an expression over the limit", heartbeat("c", 1, 1, &"t".repeat(32 * KIB + 1))),
        ("too many tags", heartbeat("c", 1, 1, &"t||".repeat(1025))),
    ] {
        costs.refused(what, 34, &[], &body).await;
    }
    let beat = |n: usize| json!({ "clientID": name(n), "consumerDataSet": [{ "groupName": "crowd", "subscriptionDataSet": [{ "topic": "T" }] }] });
    costs.client.all((1..8193).map(|n| frame(34, &[], beat(n).to_string().as_bytes()))).await;
    costs
        .measure(
            "one client more than a group may have",
            34,
            (&[], beat(8193).to_string().as_bytes()),
            1,
            (SMALL, 0),
        )
        .await;
    costs
        .measure("8,192 clients", 38, (&[("consumerGroup", "crowd")], b""), 0, (16 * MIB, 0))
        .await;
    costs
        .measure("8,192 clients", 203, (&[("consumerGroup", "crowd")], b""), 0, (32 * MIB, 0))
        .await;
    let member = name(1);
    let gone = [("clientID", member.as_str()), ("consumerGroup", "crowd")];
    costs.measure("it leaves 8,191 others", 35, (&gone, b""), 0, (4 * MIB, 0)).await;
    let before = MEMORY.current_usage();
    let beats = (0..40).map(|n| heartbeat(&format!("{n:0>20}"), 1024, 14, "*"));
    let mut refused = 0;
    for beat in beats {
        refused += costs.client.call(&frame(34, &[], &beat)).await.0;
    }
    let kept = MEMORY.current_usage() - before;
    eprintln!("40 of the largest heartbeats, {refused} of them refused: {} KiB stay", kept / KIB);
    assert!(kept <= 128 * MIB && refused > 0, "{kept} bytes stay");
    let check = json!({ "subscriptionData": { "expressionType": "TAG", "subString": "t".repeat(60 * KIB) } }).to_string();
    costs.measure("the longest expression", 46, (&[], check.as_bytes()), 0, (SMALL, 0)).await;
    let most = locks(&id, 4096);
    assert!(most.len() < MIB, "{} bytes", most.len());
    for code in [41, 42] {
        costs.measure("4,096 queues", code, (&[], &most), 0, (24 * MIB, MIB)).await;
        costs.refused("4,097 queues", code, &[], &locks(&id, 4097)).await;
        costs
            .refused("a client's id over the limit", code, &[], &locks(&"c".repeat(256), 4096))
            .await;
        costs
            .refused("a client's id of 900 KiB", code, &[], &locks(&"c".repeat(900 * KIB), 16))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_costs_no_more_than_its_bound() {
    let mut costs = Costs::start().await;
    messages(&mut costs).await;
    reading(&mut costs).await;
    topics(&mut costs).await;
    clients(&mut costs).await;
    offsets(&mut costs).await;
    costs
        .measure("from a client", 0x514C_0001, (&[("client", "127.0.0.1:1")], b""), 0, (SMALL, 0))
        .await;
    let served = served();
    for (code, name) in &served {
        assert!(costs.measured.contains(code), "{name} ({code}) has no row");
        if matches!(code, 10 | 310 | 320) {
            continue;
        }
        let large = [("x", "x".repeat(64 * KIB))];
        let fields: Vec<_> = large.iter().map(|(name, value)| (*name, value.as_str())).collect();
        costs.refused("fields over the limit", *code, &fields, b"").await;
        costs.refused("a body of 2 MiB", *code, &[], &vec![b' '; 2 * MIB]).await;
    }
    assert!(served.len() >= 33, "{served:?}");
}

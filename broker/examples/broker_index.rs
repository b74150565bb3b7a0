//! What many small messages cost a broker: memory, a restart, and finding one of them again by key and by time.
//!
//! `cargo run --release --features broker --example broker_index -- DIRECTORY MESSAGES` fills a directory up to so many
//! messages and prints the figures; run it again for those of a restart. Without arguments a few go to a directory
//! that is removed at the end.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _};
use quorumlog::{ByteCount, Config, Flush, Node};
use quorumlog_broker::{Broker, BrokerConfig, TopicAdmin};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Without arguments.
const MESSAGES: u64 = 64_000;
const QUEUES: u64 = 100;
const BATCH: u64 = 64;
const CONNECTIONS: u64 = 16;
const BODY: &[u8] = &[b'x'; 100];
const TIMEOUT: Duration = Duration::from_secs(30);

/// One connection, one request at a time.
struct Client(TcpStream);

impl Client {
    /// The answer's header and body.
    async fn call(&mut self, code: i32, fields: Value, body: &[u8]) -> Result<(Value, Vec<u8>)> {
        let header = json!({
            "code": code, "language": "JAVA", "version": 401, "opaque": 1, "flag": 0,
            "serializeTypeCurrentRPC": "JSON", "extFields": fields,
        });
        let header = header.to_string();
        let mut frame = Vec::with_capacity(8 + header.len() + body.len());
        frame.put_u32((4 + header.len() + body.len()) as u32);
        frame.put_u32(header.len() as u32);
        frame.put_slice(header.as_bytes());
        frame.put_slice(body);
        self.0.write_all(&frame).await?;
        let length = self.0.read_u32().await? as usize;
        let mut frame = vec![0; length];
        self.0.read_exact(&mut frame).await?;
        let header = (&frame[..]).get_u32() as usize;
        let body = frame.split_off(4 + header);
        Ok((serde_json::from_slice(&frame[4..])?, body))
    }
}

/// Messages `first..first + BATCH` for one queue.
async fn send(client: &mut Client, first: u64) -> Result<()> {
    let mut body = Vec::new();
    for number in first..first + BATCH {
        let properties = format!("KEYS\u{1}k{number}\u{2}UNIQ_KEY\u{1}{number:032X}\u{2}");
        body.put_u32((22 + BODY.len() + properties.len()) as u32);
        body.put_slice(&[0; 12]);
        body.put_u32(BODY.len() as u32);
        body.put_slice(BODY);
        body.put_u16(properties.len() as u16);
        body.put_slice(properties.as_bytes());
    }
    let queue = (first / BATCH % QUEUES).to_string();
    let fields = json!({
        "a": "load", "b": "T", "c": "TBW102", "d": "4", "e": queue, "f": "0", "g": "1700000000000",
        "h": "0", "i": "", "j": "0", "k": "false", "l": "16", "m": "true", "n": "broker-0",
    });
    let (answer, _) = client.call(320, fields, &body).await?;
    match answer["code"].as_i64() {
        Some(0) => Ok(()),
        _ => Err(answer.to_string().into()),
    }
}

async fn load(broker: &Broker, from: u64, messages: u64) -> Result<()> {
    let addr = *broker.addrs().first().ok_or("no broker")?;
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for sender in 0..CONNECTIONS {
        let mut client = Client(TcpStream::connect(addr).await?);
        senders.spawn(async move {
            let batches = from / BATCH + sender..messages.div_ceil(BATCH);
            for batch in batches.step_by(CONNECTIONS as usize) {
                send(&mut client, batch * BATCH).await?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    println!("sent {} messages in {:.1} s", messages - from, started.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until the topic's last queue answers, and says what there is.
async fn served(broker: &Broker) -> Result<(Client, u64)> {
    let deadline = Instant::now() + TIMEOUT;
    let addr = *broker.addrs().first().ok_or("no broker")?;
    let mut client = Client(TcpStream::connect(addr).await?);
    let mut all = 0;
    for queue in 0..QUEUES {
        loop {
            let fields = json!({"topic": "T", "queueId": queue.to_string()});
            let (answer, _) = client.call(30, fields, b"").await?;
            if let Some(offset) = answer["extFields"]["offset"].as_str() {
                all += offset.parse::<u64>()?;
                break;
            }
            if Instant::now() > deadline {
                return Err(answer.to_string().into());
            }
        }
    }
    Ok((client, all))
}

fn print_memory(when: &str) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| status.lines().find(|line| line.starts_with(name));
    let kib = |line: &str| line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    let mib = |name: &str| field(name).and_then(kib).unwrap_or(0) / 1024;
    println!(
        "{when}: {} MiB resident, of them {} anonymous and {} of files; at most {}",
        mib("VmRSS"),
        mib("RssAnon"),
        mib("RssFile"),
        mib("VmHWM")
    );
    Ok(())
}

async fn look(client: &mut Client, messages: u64) -> Result<()> {
    for part in [0, 1, 2, 3] {
        let number = (messages - 1) * part / 3;
        let fields = json!({
            "topic": "T", "key": format!("k{number}"), "maxNum": "8", "beginTimestamp": "0",
            "endTimestamp": i64::MAX.to_string(),
        });
        let started = Instant::now();
        let (answer, body) = client.call(12, fields, b"").await?;
        let took = started.elapsed();
        let key = format!("{number:032X}");
        let found = body.windows(key.len()).filter(|window| *window == key.as_bytes()).count();
        println!("key k{number}: code {}, {found} found in {took:.1?}", answer["code"]);
        let stored = body.get(56..64).map(|mut bytes| bytes.get_i64()).unwrap_or_default();
        let fields = json!({"topic": "T", "queueId": "7", "timestamp": stored.to_string()});
        let started = Instant::now();
        let (answer, _) = client.call(29, fields, b"").await?;
        let (took, offset) = (started.elapsed(), &answer["extFields"]["offset"]);
        println!("time {stored}: offset {offset} of queue 7 in {took:.1?}");
    }
    Ok(())
}

/// Reads a queue from its beginning to its end.
async fn pull(client: &mut Client) -> Result<()> {
    let started = Instant::now();
    let (mut from, mut bytes) = (0, 0);
    loop {
        let fields = json!({
            "consumerGroup": "g", "topic": "T", "queueId": "7", "queueOffset": from.to_string(),
            "maxMsgNums": "1024", "sysFlag": "4", "commitOffset": "0", "subscription": "*",
            "suspendTimeoutMillis": "0", "subVersion": "0",
        });
        let (answer, body) = client.call(11, fields, b"").await?;
        if answer["code"] != 0 {
            break;
        }
        bytes += body.len();
        from = answer["extFields"]["nextBeginOffset"].as_str().unwrap_or("0").parse::<u64>()?;
    }
    let took = started.elapsed();
    println!("pulled {from} messages of one queue, {} MiB, in {took:.1?}", bytes >> 20);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let directory = arguments.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let messages: u64 = arguments.next().map_or(Ok(MESSAGES), |number| number.parse())?;
    let is_new = !directory.join("NODE").exists();

    let started = Instant::now();
    let mut config = Config::new(1, &directory).with_listen("127.0.0.1:0");
    config.storage.disk_reserve = ByteCount::new(0);
    // The figures are not about the disk.
    config.storage.flush = Flush::Async;
    let mut settings = BrokerConfig::default();
    settings.name_server_listen = "127.0.0.1:0".to_owned();
    settings.listen = vec!["127.0.0.1:0".to_owned()];
    let broker = Broker::open(settings, Node::builder(config)).await?;
    let node = broker.node().clone();
    if is_new {
        node.bootstrap([node.member()]).await?;
        let name_server = broker.name_server().ok_or("no name server")?;
        let admin = TopicAdmin::new([name_server.to_string()]);
        let deadline = Instant::now() + TIMEOUT;
        while let Err(error) = admin.put("T", QUEUES as u32).await {
            if Instant::now() > deadline {
                return Err(error.into());
            }
        }
    }
    let (mut client, mut all) = served(&broker).await?;
    println!("serving {all} messages after {:.2} s", started.elapsed().as_secs_f64());
    print_memory(&format!("with {all} messages"))?;
    if all < messages {
        load(&broker, all, messages).await?;
        (client, all) = served(&broker).await?;
        print_memory(&format!("with {all} messages"))?;
    }
    look(&mut client, all).await?;
    pull(&mut client).await?;
    print_memory("after that")?;
    // Ended without a word, as a process that is killed.
    Ok(())
}

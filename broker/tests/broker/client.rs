//! A client that says what stock clients say, and no more.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::within;

pub(crate) const SEND: i32 = 310;
pub(crate) const SEND_BATCH: i32 = 320;
pub(crate) const PULL: i32 = 11;
pub(crate) const QUERY_OFFSET: i32 = 14;
pub(crate) const UPDATE_OFFSET: i32 = 15;
pub(crate) const HEARTBEAT: i32 = 34;
pub(crate) const ROUTE: i32 = 105;

/// An answer, or a request of the broker.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) code: i64,
    pub(crate) remark: String,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> i64 {
        let text = self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        text.parse().unwrap_or_else(|error| panic!("{name} {text}: {error}"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails the test unless it says that it is done.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    opaque: i32,
    /// What the broker said unasked while an answer was waited for.
    pub(crate) unasked: Vec<Frame>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(addr)).await.expect("it listens");
        stream.set_nodelay(true).expect("a TCP connection");
        Self { stream, opaque: 0, unasked: Vec::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the broker takes it");
    }

    async fn start(&mut self, code: i32, flag: i32, fields: &[(&str, &str)], body: &[u8]) {
        self.opaque += 1;
        let fields: BTreeMap<_, _> = fields.iter().copied().collect();
        let header = json!({
            "code": code, "language": "JAVA", "version": 401, "opaque": self.opaque, "flag": flag,
            "serializeTypeCurrentRPC": "JSON", "extFields": fields,
        });
        let header = header.to_string();
        let mut frame = Vec::new();
        frame.put_u32(4 + header.len() as u32 + body.len() as u32);
        frame.put_u32(header.len() as u32);
        frame.put_slice(header.as_bytes());
        frame.put_slice(body);
        self.write(&frame).await;
    }

    /// Sends a frame with a header as it stands, in an encoding. The number is the one that its answer must have.
    pub(crate) async fn ask_with(
        &mut self,
        opaque: i32,
        encoding: u32,
        header: &[u8],
        body: &[u8],
    ) {
        self.opaque = opaque;
        let mut frame = Vec::new();
        frame.put_u32(4 + header.len() as u32 + body.len() as u32);
        frame.put_u32(encoding << 24 | header.len() as u32);
        frame.put_slice(header);
        frame.put_slice(body);
        self.write(&frame).await;
    }

    /// Asks without waiting for the answer.
    pub(crate) async fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) {
        self.start(code, 0, fields, body).await;
    }

    /// Asks for something that is not answered.
    pub(crate) async fn oneway(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) {
        self.start(code, 2, fields, body).await;
    }

    /// The answer to the last request.
    pub(crate) async fn answer(&mut self) -> Frame {
        self.answer_or_end().await.expect("an answer")
    }

    /// The answer to the last request; none if the connection ends instead.
    pub(crate) async fn answer_or_end(&mut self) -> Option<Frame> {
        loop {
            let (frame, opaque, flag) = self.read().await?;
            if flag & 1 == 1 {
                assert_eq!(opaque, i64::from(self.opaque), "{frame:?}");
                return Some(frame);
            }
            self.unasked.push(frame);
        }
    }

    /// The answers to so many requests, in whatever order they come.
    pub(crate) async fn answers(&mut self, count: usize) -> Vec<Frame> {
        let mut answers = Vec::new();
        while answers.len() < count {
            let (frame, _, flag) = self.read().await.expect("an answer");
            if flag & 1 == 1 { answers.push(frame) } else { self.unasked.push(frame) }
        }
        answers
    }

    /// The broker's next request.
    pub(crate) async fn told(&mut self) -> Frame {
        if !self.unasked.is_empty() {
            return self.unasked.remove(0);
        }
        let (frame, _, flag) = self.read().await.expect("a request");
        assert_eq!(flag & 1, 0, "{frame:?}");
        frame
    }

    pub(crate) async fn call(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Frame {
        self.ask(code, fields, body).await;
        self.answer().await
    }

    /// The next frame; none at the end of the connection.
    async fn read(&mut self) -> Option<(Frame, i64, i64)> {
        let mut length = [0; 4];
        let read = within("a frame", self.stream.read_exact(&mut length)).await;
        read.ok()?;
        let mut frame = vec![0; (&length[..]).get_u32() as usize];
        within("a frame", self.stream.read_exact(&mut frame)).await.ok()?;
        let header = (&frame[..]).get_u32() as usize;
        let head: Value = serde_json::from_slice(&frame[4..4 + header]).expect("a JSON header");
        let fields = head["extFields"].as_object().into_iter().flatten();
        let fields = fields.map(|(name, value)| {
            (name.clone(), value.as_str().expect("fields are text").to_owned())
        });
        let found = Frame {
            code: head["code"].as_i64().expect("a code"),
            remark: head["remark"].as_str().unwrap_or_default().to_owned(),
            fields: fields.collect(),
            body: frame[4 + header..].to_vec(),
        };
        let number = |name: &str| head[name].as_i64().unwrap_or_default();
        Some((found, number("opaque"), number("flag")))
    }

    /// Waits until the broker ends the connection.
    pub(crate) async fn ended(&mut self) {
        assert!(self.read().await.is_none(), "the connection goes on");
    }

    /// Sends a message to a queue.
    pub(crate) async fn send(&mut self, topic: &str, queue: u32, body: &str) -> Frame {
        self.send_with(topic, queue, body, "TAGS\u{1}TagA\u{2}").await
    }

    pub(crate) async fn send_with(
        &mut self,
        topic: &str,
        queue: u32,
        body: &str,
        properties: &str,
    ) -> Frame {
        let queue = queue.to_string();
        self.call(SEND, &send_fields(topic, &queue, properties), body.as_bytes()).await
    }

    /// Pulls what is there.
    pub(crate) async fn pull(&mut self, topic: &str, queue: u32, from: i64) -> Frame {
        self.start_pull(topic, queue, from, 0, "*").await;
        self.answer().await
    }

    /// Begins a pull that waits for so many milliseconds, with its own subscription.
    pub(crate) async fn start_pull(
        &mut self,
        topic: &str,
        queue: u32,
        from: i64,
        wait_ms: u64,
        tags: &str,
    ) {
        let (queue, from, wait) = (queue.to_string(), from.to_string(), wait_ms.to_string());
        let flags = if wait_ms > 0 { "6" } else { "4" };
        let fields = [
            ("consumerGroup", "readers"),
            ("topic", topic),
            ("queueId", queue.as_str()),
            ("queueOffset", from.as_str()),
            ("maxMsgNums", "32"),
            ("sysFlag", flags),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", wait.as_str()),
            ("subscription", tags),
            ("subVersion", "0"),
            ("expressionType", "TAG"),
        ];
        self.ask(PULL, &fields, b"").await;
    }
}

/// The fields of a send by the second version's names, without that of the broker, as older clients have it.
pub(crate) fn send_fields<'a>(
    topic: &'a str,
    queue: &'a str,
    properties: &'a str,
) -> [(&'static str, &'a str); 13] {
    [
        ("a", "writers"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", queue),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("l", "16"),
        ("m", "false"),
    ]
}

/// The body of a send of several messages without properties.
pub(crate) fn batch(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.put_u32(22 + part.len() as u32);
        out.put_bytes(0, 12);
        out.put_u32(part.len() as u32);
        out.put_slice(part.as_bytes());
        out.put_u16(0);
    }
    out
}

/// A message as a client decodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) queue: u32,
    pub(crate) offset: u64,
    pub(crate) physical: u64,
    pub(crate) reconsumed: u32,
    pub(crate) topic: String,
    pub(crate) body: String,
    pub(crate) properties: BTreeMap<String, String>,
}

/// The messages of a pull's body.
pub(crate) fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let number = |at: usize| (&bytes[at..]).get_u32();
        let long = |at: usize| (&bytes[at..]).get_u64();
        let size = number(0) as usize;
        assert_eq!(number(4), 0xDAA3_20A7, "the magic");
        assert_eq!(number(36) & 0x30, 0, "IPv4 addresses");
        let length = number(84) as usize;
        let body = &bytes[88..88 + length];
        assert_eq!(number(8), crc32fast::hash(body) & 0x7FFF_FFFF, "the body's CRC");
        let topic_end = 89 + length + bytes[88 + length] as usize;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let properties = text(&bytes[topic_end + 2..size]);
        let properties = properties.split('\u{2}').filter_map(|pair| pair.split_once('\u{1}'));
        messages.push(Message {
            queue: number(12),
            offset: long(20),
            physical: long(28),
            reconsumed: number(72),
            topic: text(&bytes[89 + length..topic_end]),
            body: text(body),
            properties: properties.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        });
        bytes = &bytes[size..];
    }
    messages
}

/// Their bodies.
pub(crate) fn bodies(frame: &Frame) -> Vec<String> {
    messages(&frame.body).into_iter().map(|message| message.body).collect()
}

/// When they were stored.
#[cfg(feature = "simulation")]
pub(crate) fn stored_times(frame: &Frame) -> Vec<i64> {
    let mut bytes = &frame.body[..];
    let mut times = Vec::new();
    while !bytes.is_empty() {
        let size = (&bytes[..]).get_u32() as usize;
        times.push((&bytes[56..]).get_i64());
        bytes = &bytes[size..];
    }
    times
}

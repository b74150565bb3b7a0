//! RocketMQ's remoting protocol as stock clients speak it, on the simulated network: one request at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use quorumlog::seam::{Duplex, Transport};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::addr_of;

pub(super) mod code {
    pub(crate) const PULL: i32 = 11;
    pub(crate) const MAX_OFFSET: i32 = 30;
    pub(crate) const QUERY_OFFSET: i32 = 14;
    pub(crate) const PUT_TOPIC: i32 = 17;
    pub(crate) const UPDATE_OFFSET: i32 = 15;
    pub(crate) const SEND_BACK: i32 = 36;
    pub(crate) const LOCK: i32 = 41;
    pub(crate) const UNLOCK: i32 = 42;
    pub(crate) const DELETE_TOPIC: i32 = 215;
    pub(crate) const RESET: i32 = 222;
    pub(crate) const SEND: i32 = 310;
    pub(crate) const SEND_BATCH: i32 = 320;
}

/// What answers say.
pub(super) mod answer {
    pub(crate) const OK: i64 = 0;
    pub(crate) const FLUSH_DISK_TIMEOUT: i64 = 10;
    pub(crate) const SLAVE_NOT_AVAILABLE: i64 = 11;
    pub(crate) const FLUSH_SLAVE_TIMEOUT: i64 = 12;
    pub(crate) const NO_TOPIC: i64 = 17;
    pub(crate) const PULL_NOT_FOUND: i64 = 19;
    pub(crate) const PULL_AGAIN: i64 = 20;
    pub(crate) const OFFSET_MOVED: i64 = 21;
    pub(crate) const QUERY_NOT_FOUND: i64 = 22;
}

/// How long stock clients wait for an answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(3_000);
const CONNECT: Duration = Duration::from_millis(1_000);
/// Longest frame that is believed.
const FRAME_MAX: usize = 4 << 20;
/// The flag of an answer, and of a request that wants none.
const ANSWER: i64 = 1;
const ONEWAY: i32 = 2;

/// An answer, or something that the broker says unasked.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) code: i64,
    pub(super) fields: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Frame {
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.fields.get(name)?.parse().ok()
    }
}

/// A connection to one log's broker on one node.
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    opaque: i32,
    pub(super) node: u64,
}

impl Connection {
    pub(super) async fn open(transport: &Arc<dyn Transport>, node: u64, log: u32) -> Option<Self> {
        let dialled = timeout(CONNECT, transport.dial(&addr_of(node, log))).await;
        let stream = dialled.ok()?.ok()?;
        Some(Self { stream, opaque: 0, node })
    }

    /// Has something answered. None if the connection ended or no answer came in time: whether it was done is not known, and
    /// the connection is of no use any more.
    pub(super) async fn call(
        &mut self,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Frame> {
        self.call_for(PATIENCE, code, fields, body).await
    }

    pub(super) async fn call_for(
        &mut self,
        patience: Duration,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Frame> {
        let called = async {
            self.write(code, 0, fields, body).await?;
            loop {
                let (frame, opaque, flag) = self.read().await?;
                if flag & ANSWER == ANSWER && opaque == i64::from(self.opaque) {
                    return Some(frame);
                }
            }
        };
        timeout(patience, called).await.ok()?
    }

    /// Asks for something that is not answered. False if it is certain that it was not sent as a whole.
    pub(super) async fn oneway(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> bool {
        let written = timeout(PATIENCE, self.write(code, ONEWAY, fields, body)).await;
        matches!(written, Ok(Some(())))
    }

    async fn write(
        &mut self,
        code: i32,
        flag: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Option<()> {
        self.opaque += 1;
        let fields: BTreeMap<_, _> = fields.iter().copied().collect();
        let header = json!({
            "code": code, "language": "JAVA", "version": 401, "opaque": self.opaque, "flag": flag,
            "serializeTypeCurrentRPC": "JSON", "extFields": fields,
        });
        let header = header.to_string();
        let mut frame = Vec::with_capacity(8 + header.len() + body.len());
        frame.put_u32(4 + header.len() as u32 + body.len() as u32);
        frame.put_u32(header.len() as u32);
        frame.put_slice(header.as_bytes());
        frame.put_slice(body);
        self.stream.write_all(&frame).await.ok()?;
        self.stream.flush().await.ok()
    }

    /// The next frame, its number and its flags; none at the end of the connection.
    async fn read(&mut self) -> Option<(Frame, i64, i64)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let length = (&length[..]).get_u32() as usize;
        if !(4..=FRAME_MAX).contains(&length) {
            return None;
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await.ok()?;
        parse(&frame)
    }
}

/// None for bytes that are no frame, as on a link that corrupts them.
fn parse(frame: &[u8]) -> Option<(Frame, i64, i64)> {
    let length = (frame.get(..4)?).get_u32() as usize;
    let head: Value = serde_json::from_slice(frame.get(4..4 + length)?).ok()?;
    let fields = head["extFields"].as_object().into_iter().flatten();
    let fields =
        fields.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let found = Frame {
        code: head["code"].as_i64()?,
        fields: fields.collect(),
        body: frame.get(4 + length..)?.to_vec(),
    };
    let number = |name: &str| head[name].as_i64().unwrap_or_default();
    Some((found, number("opaque"), number("flag")))
}

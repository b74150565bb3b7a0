//! A client that sends and pulls as stock clients do, for tools that put load on a broker: it follows no leader and
//! tries nothing twice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorumlog::Outcome;
use quorumlog::seam::{Clock, SystemClock, TcpTransport};

use crate::net::Link;
use crate::record::put_hex;
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, Fields};

/// How long an answer may take beyond what was asked for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to one log's broker. Many requests may be under way at once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BrokerClient {
    link: Arc<Link>,
    group: String,
    keys: Arc<AtomicU64>,
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Its number in the queue; of a batch that of the first.
    pub offset: u64,
    /// The id to look it up by; of a batch all of them, with commas between.
    pub id: String,
}

/// What a pull found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulled {
    /// Offset to go on from.
    pub next: u64,
    /// The messages as RocketMQ stores them, one after another; empty if none came in time.
    pub messages: Bytes,
}

/// Why a send was not confirmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The broker's answer is not `SUCCESS`.
    #[error("the answer is {code}: {remark}")]
    Answered {
        /// The code, as in RocketMQ's `ResponseCode`.
        code: i32,
        /// What the broker says about it.
        remark: String,
        /// Whether the messages may have been stored all the same.
        outcome: Outcome,
    },
    /// No answer came, or none that makes sense. The messages may have been stored, or may yet be.
    #[error("no answer: the messages may have been stored, or may yet be")]
    Interrupted(#[source] io::Error),
}

impl SendError {
    /// Whether the messages may have been stored.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Answered { outcome, .. } => *outcome,
            Self::Interrupted(_) => Outcome::Unknown,
        }
    }

    fn answered(answer: &Command) -> Self {
        let code = answer.head.code;
        // The leader has it, and no majority was known to.
        let waits = matches!(
            code,
            response::FLUSH_DISK_TIMEOUT
                | response::FLUSH_SLAVE_TIMEOUT
                | response::SLAVE_NOT_AVAILABLE
        );
        let is_unknown = waits || answer.tells_unknown_outcome();
        let outcome = if is_unknown { Outcome::Unknown } else { Outcome::NotAppended };
        Self::Answered { code, remark: answer.remark().to_owned(), outcome }
    }
}

fn refused(answer: &Command) -> io::Error {
    io::Error::other(format!("the answer is {}: {}", answer.head.code, answer.remark()))
}

fn number(answer: &Command, name: &str) -> io::Result<u64> {
    let number = answer.head.fields.number(name).ok().and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name}")))
}

impl BrokerClient {
    /// Connects; `group` is the name of the producers or the consumers that it is one of.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(addr: SocketAddr, group: impl Into<String>) -> io::Result<Self> {
        let link = Arc::new(Link::connect(&TcpTransport, &addr.to_string()).await?);
        // No two clients give one key, or close to it.
        let keys = Arc::new(AtomicU64::new(SystemClock.random()? as u64));
        Ok(Self { link, group: group.into(), keys })
    }

    /// Sends a message to a queue, and waits for SEND_OK. The topic is made if the broker makes topics.
    ///
    /// # Errors
    /// [`SendError::outcome`] says whether it may have been stored.
    ///
    /// # Cancel safety
    /// If the future is dropped the outcome is unknown.
    pub async fn send(&self, topic: &str, queue: u32, body: Bytes) -> Result<Sent, SendError> {
        let mut properties = self.unique_key();
        properties.push_str("WAIT\u{1}true\u{2}");
        let fields = self.send_fields(topic, queue, &properties, "false");
        self.sent(request::SEND_MESSAGE_V2, fields, body).await
    }

    /// Sends messages to a queue as one batch: all of them are stored, or none.
    ///
    /// # Errors
    /// As `send`.
    ///
    /// # Cancel safety
    /// As `send`.
    pub async fn send_batch(
        &self,
        topic: &str,
        queue: u32,
        bodies: &[Bytes],
    ) -> Result<Sent, SendError> {
        let mut batch = BytesMut::new();
        for body in bodies {
            let properties = self.unique_key();
            batch.put_u32((22 + body.len() + properties.len()) as u32);
            // The magic, the checksum and the flag are left to the broker.
            batch.put_bytes(0, 12);
            batch.put_u32(body.len() as u32);
            batch.put_slice(body);
            batch.put_u16(properties.len() as u16);
            batch.put_slice(properties.as_bytes());
        }
        let fields = self.send_fields(topic, queue, "", "true");
        self.sent(request::SEND_BATCH_MESSAGE, fields, batch.freeze()).await
    }

    /// Pulls at most `count` messages from an offset on. If there are none, the broker waits for one so long.
    ///
    /// # Errors
    /// The broker refuses, or the connection ended.
    pub async fn pull(
        &self,
        (topic, queue): (&str, u32),
        from: u64,
        count: u32,
        wait: Duration,
    ) -> io::Result<Pulled> {
        // Bit 4: the pull carries its subscription; bit 2: it may wait.
        let flags = if wait.is_zero() { "4" } else { "6" };
        let fields = [
            ("consumerGroup", self.group.as_str()),
            ("topic", topic),
            ("queueId", &queue.to_string()),
            ("queueOffset", &from.to_string()),
            ("maxMsgNums", &count.to_string()),
            ("sysFlag", flags),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", &wait.as_millis().to_string()),
            ("subscription", "*"),
            ("subVersion", "0"),
            ("expressionType", "TAG"),
        ];
        let fields = fields.into_iter().collect();
        let answer =
            self.link.call(request::PULL_MESSAGE, fields, Bytes::new(), wait + TIMEOUT).await?;
        match answer.head.code {
            response::SUCCESS
            | response::PULL_NOT_FOUND
            | response::PULL_RETRY_IMMEDIATELY
            | response::PULL_OFFSET_MOVED => {
                Ok(Pulled { next: number(&answer, "nextBeginOffset")?, messages: answer.body })
            }
            _ => Err(refused(&answer)),
        }
    }

    fn unique_key(&self) -> String {
        let number = self.keys.fetch_add(1, Ordering::Relaxed);
        let mut key = String::with_capacity(64);
        key.push_str("UNIQ_KEY\u{1}0000000000000000");
        put_hex(&mut key, number, 16);
        key.push('\u{2}');
        key
    }

    /// The fields of a send by the short names of the second version.
    fn send_fields(&self, topic: &str, queue: u32, properties: &str, batch: &str) -> Fields {
        let now = SystemClock.now_ms().to_string();
        let fields = [
            ("a", self.group.as_str()),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", &queue.to_string()),
            ("f", "0"),
            ("g", &now),
            ("h", "0"),
            ("i", properties),
            ("j", "0"),
            ("k", "false"),
            ("l", "0"),
            ("m", batch),
        ];
        fields.into_iter().collect()
    }

    async fn sent(&self, code: i32, fields: Fields, body: Bytes) -> Result<Sent, SendError> {
        let answer = self.link.call(code, fields, body, TIMEOUT).await;
        let answer = answer.map_err(SendError::Interrupted)?;
        if answer.head.code != response::SUCCESS {
            return Err(SendError::answered(&answer));
        }
        let id = answer.head.fields.get("msgId").unwrap_or_default().to_owned();
        let offset = number(&answer, "queueOffset").map_err(SendError::Interrupted)?;
        Ok(Sent { offset, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::codes::names;

    #[test]
    fn the_outcome_of_a_send_is_unknown_where_the_broker_does_not_say_that_nothing_was_stored() {
        let outcome = |code: i32, fields: Fields| {
            let mut answer = Command::request(0, 1, fields);
            answer.head.code = code;
            SendError::answered(&answer).outcome()
        };
        for code in [
            response::FLUSH_DISK_TIMEOUT,
            response::FLUSH_SLAVE_TIMEOUT,
            response::SLAVE_NOT_AVAILABLE,
        ] {
            assert_eq!(outcome(code, Fields::default()), Outcome::Unknown, "{code}");
        }
        let unknown = || [(names::OUTCOME, names::UNKNOWN)].into_iter().collect();
        assert_eq!(outcome(response::SYSTEM_ERROR, unknown()), Outcome::Unknown);
        for code in [response::SYSTEM_ERROR, response::MESSAGE_ILLEGAL, response::TOPIC_NOT_EXIST] {
            assert_eq!(outcome(code, Fields::default()), Outcome::NotAppended, "{code}");
        }
        let broken = SendError::Interrupted(io::ErrorKind::ConnectionReset.into());
        assert_eq!(broken.outcome(), Outcome::Unknown);
    }
}

//! Sends: single messages and batches. The answer comes when the message is committed and has its place.

mod back;
mod status;
mod store;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

pub(super) use back::SendBack;
pub(super) use store::Begun;
use store::{check_properties, illegal};

use crate::log::{LeaseClock, LogBroker, Replica, Topics};
use crate::mutant::Mutant;
use crate::net::Connection;
use crate::record::{Message, Properties, UniqueIds, names, split_batch};
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, Field, Reply};
use crate::request::{
    AUTO_CREATE_TOPIC, Failure, TRANSACTION_BITS, check_topic, dead_topic, delay, features,
    group_of_retry, is_reserved, level,
};
use crate::settings::BrokerConfig;
use crate::state::{PARTS_MAX, TopicConfig};

/// Attempts that a group's consumers make with one message unless they say otherwise.
pub(crate) const RECONSUME_MAX: i32 = 16;

/// The fields of a send, by their long names and by the short ones of the second version.
#[derive(Debug)]
struct Header<'a> {
    topic: &'a str,
    default_topic: &'a str,
    default_queues: i32,
    queue: i32,
    system_flag: i32,
    born_ms: i64,
    flag: i32,
    properties: &'a str,
    reconsumed: i32,
    reconsume_max: i32,
    batch: bool,
}

impl<'a> Header<'a> {
    fn read(command: &'a Command) -> Result<Self, Failure> {
        let head = &command.head;
        // By their first letters, in one pass: every message has a dozen of them.
        let mut letters = [None; 26];
        if head.code != request::SEND_MESSAGE {
            for (name, value) in head.fields.iter() {
                if let [letter @ b'a'..=b'z'] = name.as_bytes() {
                    letters[usize::from(letter - b'a')] = Some(value);
                }
            }
        }
        let field = |letter: &'static str, name: &'static str| match letters
            [usize::from(letter.as_bytes()[0] - b'a')]
        {
            Some(text) => Field::new(letter, Some(text)),
            None => head.fields.field(name),
        };
        Ok(Self {
            topic: field("b", "topic").text()?,
            default_topic: field("c", "defaultTopic").get().unwrap_or_default(),
            default_queues: field("d", "defaultTopicQueueNums").int_or(4)?,
            queue: field("e", "queueId").int()?,
            system_flag: field("f", "sysFlag").int_or(0)?,
            born_ms: field("g", "bornTimestamp").number_or(0)?,
            flag: field("h", "flag").int_or(0)?,
            properties: field("i", "properties").get().unwrap_or_default(),
            reconsumed: field("j", "reconsumeTimes").int_or(0)?,
            reconsume_max: field("l", "maxReconsumeTimes").int_or(RECONSUME_MAX)?,
            batch: head.code == request::SEND_BATCH_MESSAGE || field("m", "batch").flag(),
        })
    }
}

/// What a send may touch.
pub(super) struct Sender<'a> {
    pub(super) config: &'a BrokerConfig,
    pub(super) replica: &'a Replica,
    pub(super) topics: &'a Topics,
    pub(super) leases: &'a LeaseClock,
    pub(super) unique_ids: &'a UniqueIds,
    /// Whose turn it is among the queues, for messages that leave the choice to the broker.
    pub(super) queue_turn: &'a AtomicU32,
}

impl<'a> Sender<'a> {
    pub(super) fn of(broker: &'a LogBroker) -> Self {
        Self {
            config: &broker.config,
            replica: &broker.replica,
            topics: &broker.topics,
            leases: &broker.leases,
            unique_ids: &broker.unique_ids,
            queue_turn: &broker.queue_turn,
        }
    }

    pub(super) async fn send(
        &self,
        connection: &Connection,
        command: &Command,
    ) -> Result<Reply, Failure> {
        let header = Header::read(command)?;
        self.check(&header, &command.body)?;
        let topic = self.stored_topic(&header)?;
        let config = match self.known_topic(&topic)? {
            Some(config) => config,
            None => self.make_topic(&topic, &header).await?,
        };
        let begun = self.put(connection, command, &header, &topic, config)?;
        begun.acknowledged(self.replica).await
    }

    /// The first half of `send`, if it waits for nothing. None says nothing but that `send` has to do it.
    pub(super) fn begin_send(&self, connection: &Connection, command: &Command) -> Option<Begun> {
        let header = Header::read(command).ok()?;
        self.check(&header, &command.body).ok()?;
        let topic = self.stored_topic(&header).ok()?;
        let config = self.known_topic(&topic).ok()??;
        self.put(connection, command, &header, &topic, config).ok()
    }

    /// Puts the messages of a send on their way.
    fn put(
        &self,
        connection: &Connection,
        command: &Command,
        header: &Header<'_>,
        topic: &str,
        config: TopicConfig,
    ) -> Result<Begun, Failure> {
        let queue = self.choose_queue(topic, config, header.queue)?;
        let client = connection.client();
        // What comes again on a retry topic keeps its key.
        let once = self.config.suppress_duplicates
            && !header.batch
            && group_of_retry(header.topic).is_none();
        if !header.batch {
            let (body, properties) = (command.body.clone(), header.properties);
            let mut message =
                self.fill(header, topic, queue, header.flag, body, properties, client);
            if topic == header.topic {
                delay(&mut message, self.replica.clock.now_ms());
            } else {
                // A dead letter is there at once.
                message.properties = without(&message.properties, names::DELAY);
            }
            return Begun::begin(self.replica, &mut [message], once);
        }
        let mut batch = Vec::new();
        for part in split_batch(command.body.clone(), PARTS_MAX)? {
            check_properties(&part.properties)?;
            features::check(&part.properties, 0, 0)?;
            check_undelayed(&part.properties)?;
            let properties = &part.properties;
            batch.push(self.fill(header, topic, queue, part.flag, part.body, properties, client));
        }
        if batch.is_empty() {
            return Err(illegal("the batch is empty"));
        }
        Begun::begin(self.replica, &mut batch, once)
    }

    fn check(&self, header: &Header<'_>, body: &Bytes) -> Result<(), Failure> {
        check_topic(header.topic)?;
        if is_reserved(header.topic) {
            let remark = format!("Sending message to topic[{}] is forbidden.", header.topic);
            return Err(Failure::refused(response::NO_PERMISSION, remark));
        }
        if body.len() > self.config.message_bytes_max {
            let (size, limit) = (body.len(), self.config.message_bytes_max);
            return Err(illegal(format!(
                "msg body size {size} is not legal, the limit is {limit}"
            )));
        }
        check_properties(header.properties)?;
        if header.batch && header.topic.starts_with("%RETRY%") {
            return Err(illegal("batch request does not support retry group"));
        }
        if header.batch && !Mutant::BatchDelayIgnored.is_active() {
            check_undelayed(header.properties)?;
        }
        features::check(header.properties, header.system_flag, header.reconsumed)
    }

    /// Where the message goes. A consumer sends one to its retry topic itself if it could not hand it back, or takes
    /// messages in order and has tried this one as often as it wants to: such a group holds locks, and gets a dead letter
    /// at once, as one that was tried too often (RocketMQ: `SendMessageProcessor.handleRetryAndDLQ`).
    fn stored_topic<'h>(&self, header: &Header<'h>) -> Result<Cow<'h, str>, Failure> {
        let Some(group) = group_of_retry(header.topic) else { return Ok(header.topic.into()) };
        let in_order = !Mutant::OrderlyRetried.is_active()
            && self.replica.shared()?.state().holds_locks(group, self.leases.now_ms());
        Ok(match in_order || header.reconsumed > header.reconsume_max {
            true => dead_topic(group).into(),
            false => header.topic.into(),
        })
    }

    /// The topic's settings, if this log has it.
    fn known_topic(&self, topic: &str) -> Result<Option<TopicConfig>, Failure> {
        Ok(self.replica.shared()?.state().topic(topic).map(|topic| topic.config))
    }

    /// The topic's settings; it is made if it may be.
    async fn make_topic(&self, topic: &str, header: &Header<'_>) -> Result<TopicConfig, Failure> {
        let template = match header.default_topic {
            AUTO_CREATE_TOPIC if self.config.auto_create_topics => Some(self.config.default_queues),
            _ => None,
        };
        let wanted = u32::try_from(header.default_queues).unwrap_or(1).max(1);
        let made = template.map(|queues| TopicConfig::with_queues(wanted.min(queues)));
        self.topics.ensure_topic(topic, made).await
    }

    fn choose_queue(&self, topic: &str, config: TopicConfig, queue: i32) -> Result<u32, Failure> {
        if config.perm & 2 == 0 {
            let remark = format!("the broker[{}] sending message is forbidden", self.replica.name);
            return Err(Failure::refused(response::NO_PERMISSION, remark));
        }
        match u32::try_from(queue) {
            Ok(queue) if queue < config.queues() => Ok(queue),
            Ok(_) if group_of_retry(topic).is_some() || topic.starts_with("%DLQ%") => Ok(0),
            Ok(_) => {
                let remark = format!(
                    "request queueId[{queue}] is illegal, topic[{topic}] has {}",
                    config.queues()
                );
                Err(Failure::refused(response::INVALID_PARAMETER, remark))
            }
            Err(_) => {
                Ok(self.queue_turn.fetch_add(1, Ordering::Relaxed) % config.write_queues.max(1))
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what a message is made of")]
    fn fill(
        &self,
        header: &Header<'_>,
        topic: &str,
        queue: u32,
        flag: i32,
        body: Bytes,
        properties: &str,
        client: SocketAddr,
    ) -> Message {
        let mut properties = properties.to_owned();
        if Properties::find(&properties, names::POP_CHECKPOINT).is_some() {
            properties = without(&properties, names::POP_CHECKPOINT);
        }
        if Properties::find(&properties, names::UNIQUE_KEY).is_none() {
            let mut all = Properties::parse(&properties);
            all.set(names::UNIQUE_KEY, self.unique_ids.next(self.replica.clock.now_ms()));
            properties = all.to_text();
        }
        Message {
            topic: topic.to_owned(),
            queue: queue as i32,
            flag,
            system_flag: header.system_flag & !TRANSACTION_BITS,
            born_ms: header.born_ms,
            born_host: client,
            // It is given when the message is appended.
            stored_ms: 0,
            store_host: self.replica.addr,
            reconsumed: header.reconsumed,
            body,
            properties,
        }
    }
}

/// Checks that neither a batch nor one of its messages asks for a delay.
///
/// # Errors
/// It does.
fn check_undelayed(properties: &str) -> Result<(), Failure> {
    match level(properties) {
        Some(_) => Err(illegal("a batch cannot hold delayed messages")),
        None => Ok(()),
    }
}

/// Properties without one of them.
fn without(properties: &str, name: &str) -> String {
    let mut properties = Properties::parse(properties);
    properties.remove(name);
    properties.to_text()
}

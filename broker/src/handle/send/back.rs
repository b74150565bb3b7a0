//! A consumer hands a message back: it comes again later on the group's retry topic, or ends in its dead-letter topic.

use super::RECONSUME_MAX;
use super::store::store;
use crate::clients::Clients;
use crate::log::{Replica, Topics};
use crate::mutant::Mutant;
use crate::record::{Message, Properties, names, offset_id};
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, check_group, dead_topic, delay, retry_topic};
use crate::state::{Entry, TopicConfig};

/// The level of the first attempt after the first.
const FIRST_LEVEL: i32 = 3;

/// A message that a consumer hands back.
pub(in crate::handle) struct SendBack<'a> {
    group: &'a str,
    physical: i64,
    /// Below 0: it becomes a dead letter. 0: the next one.
    level: i32,
    /// Attempts that the group makes with one message.
    attempts_max: i32,
    /// The message's first id, if it was handed back before.
    origin: Option<&'a str>,
}

impl<'a> SendBack<'a> {
    pub(in crate::handle) fn read(command: &'a Command) -> Result<Self, Failure> {
        let fields = &command.head.fields;
        let (group, physical) = (fields.text("group")?, fields.number("offset")?);
        check_group(group)?;
        Ok(Self {
            group,
            physical,
            level: fields.int_or("delayLevel", 0)?,
            attempts_max: fields.int_or("maxReconsumeTimes", RECONSUME_MAX)?,
            origin: fields.get("originMsgId").filter(|id| !id.is_empty()),
        })
    }

    pub(in crate::handle) async fn run(
        self,
        replica: &Replica,
        topics: &Topics,
        clients: &Clients,
    ) -> Result<Reply, Failure> {
        let Self { group, physical, level, .. } = self;
        let not_found = || {
            let remark = format!("look message by offset failed, {physical}");
            Failure::refused(response::SYSTEM_ERROR, remark)
        };
        let entry = Entry::at(u64::try_from(physical).map_err(|_| not_found())?);
        let message = replica.message(entry).await?.ok_or_else(not_found)?;
        let origin = || offset_id(message.store_host, entry.physical);
        let origin = self.origin.map_or_else(origin, str::to_owned);
        let dead = message.reconsumed >= self.attempts_max || level < 0;
        let topic = if dead { dead_topic(group) } else { retry_topic(group) };
        let is_new = replica.shared()?.state().topic(&topic).is_none();
        topics.ensure_topic(&topic, Some(TopicConfig::with_queues(1))).await?;
        let again = again(replica, message, topic.clone(), &origin, (!dead).then_some(level));
        let stored = store(replica, &mut [again]).await?;
        if is_new {
            clients.notify_retry(&topic);
        }
        // One that may not be committed is told as a send is: the consumer then sends the message again itself.
        let is_stored = stored.code == response::SUCCESS;
        Ok(if is_stored || Mutant::HandedBackUnconfirmed.is_active() {
            Reply::done()
        } else {
            stored
        })
    }
}

/// The message that comes again: at a level, or the next one if that is 0; at once if there is none.
fn again(
    replica: &Replica,
    message: Message,
    topic: String,
    origin: &str,
    level: Option<i32>,
) -> Message {
    let mut properties = Properties::parse(&message.properties);
    let from = message.topic.clone();
    if properties.get(names::RETRY_TOPIC).is_none() {
        properties.set(names::RETRY_TOPIC, from.clone());
    }
    if properties.get(names::ORIGIN_MESSAGE_ID).is_none() {
        properties.set(names::ORIGIN_MESSAGE_ID, origin);
    }
    match level {
        Some(0) => {
            properties
                .set(names::DELAY, FIRST_LEVEL.saturating_add(message.reconsumed).to_string());
        }
        Some(level) => properties.set(names::DELAY, level.to_string()),
        None => {
            properties.remove(names::DELAY);
            let topic = properties.get(names::RETRY_TOPIC).unwrap_or(&from).to_owned();
            properties.set(names::DLQ_ORIGIN_TOPIC, topic);
            properties.set(names::DLQ_ORIGIN_MESSAGE_ID, origin);
        }
    }
    let mut again = Message {
        topic,
        queue: 0,
        stored_ms: 0,
        store_host: replica.addr,
        reconsumed: message.reconsumed.saturating_add(1),
        properties: properties.to_text(),
        ..message
    };
    delay(&mut again, replica.clock.now_ms());
    again
}

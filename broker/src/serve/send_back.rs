//! A consumer hands a message back: it comes again later on the group's retry topic, or ends in its dead-letter topic.

use super::failure::Failure;
use super::log_broker::LogBroker;
use super::names::{check_group, dead_topic, retry_topic};
use super::send::{RECONSUME_MAX, delay};
use crate::mutant::Mutant;
use crate::record::{Message, Properties, names, offset_id};
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::state::{Entry, TopicConfig};

/// The level of the first attempt after the first.
const FIRST_LEVEL: i32 = 3;

impl LogBroker {
    pub(super) async fn send_back(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let (group, physical) = (fields.text("group")?, fields.number("offset")?);
        check_group(group)?;
        let level = fields.int_or("delayLevel", 0)?;
        let most = fields.int_or("maxReconsumeTimes", RECONSUME_MAX)?;
        let not_found = || {
            let remark = format!("look message by offset failed, {physical}");
            Failure::refused(response::SYSTEM_ERROR, remark)
        };
        let entry = Entry::at(u64::try_from(physical).map_err(|_| not_found())?);
        let message = self.message(entry).await?.ok_or_else(not_found)?;
        let origin = fields.get("originMsgId").filter(|id| !id.is_empty());
        let origin =
            origin.map_or_else(|| offset_id(message.store_host, entry.physical), str::to_owned);
        let dead = message.reconsumed >= most || level < 0;
        let topic = if dead { dead_topic(group) } else { retry_topic(group) };
        let is_new = self.shared()?.state().topic(&topic).is_none();
        self.ensure_topic(&topic, Some(TopicConfig::with_queues(1))).await?;
        let again = self.again(message, topic.clone(), &origin, (!dead).then_some(level));
        let stored = self.store(&[again]).await?;
        if is_new {
            self.notify_retry(&topic);
        }
        // One that may not be committed is told as a send is: the consumer then sends the message again itself.
        let is_stored = stored.code == response::SUCCESS;
        Ok(if is_stored || Mutant::HandedBackUnconfirmed.is_active() {
            Reply::done()
        } else {
            stored
        })
    }

    /// The message that comes again: at a level, or the next one if that is 0; at once if there is none.
    fn again(&self, message: Message, topic: String, origin: &str, level: Option<i32>) -> Message {
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
                properties.set(names::DELAY, (FIRST_LEVEL + message.reconsumed).to_string());
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
            stored_ms: self.stored_ms(),
            store_host: self.addr,
            reconsumed: message.reconsumed + 1,
            properties: properties.to_text(),
            ..message
        };
        delay(&mut again, self.clock.now_ms());
        again
    }
}

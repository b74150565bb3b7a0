//! What is known of consumer groups, for tools: who is in them, what they have consumed and how far they are behind.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::failure::Failure;
use super::listing::{Names, QueueTable};
use super::log_broker::LogBroker;
use super::names::check_group;
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, Reply};
use crate::broker::state::State;

/// Bytes of a group's settings in a list, beside its name.
const GROUP_SETTINGS_BYTES: usize = 256;

impl LogBroker {
    /// Has `read` look at the state of each log that this node has: a group of one log is one of all.
    fn in_all_logs(
        &self,
        mut read: impl FnMut(&State) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(brokers) = self.brokers.upgrade() else { return Ok(()) };
        let mut opened = brokers.logs().iter().filter_map(|broker| broker.shared().ok());
        opened.try_for_each(|shared| read(&shared.state()))
    }

    /// True for a group that has members, or that has consumed something.
    pub(super) fn knows_group(&self, group: &str) -> bool {
        let mut known = self.clients.has_group(group);
        // It does not fail.
        let _ = self.in_all_logs(|state| {
            known |= state.has_group(group);
            Ok(())
        });
        known
    }

    /// A queue of a topic, as clients name it.
    pub(super) fn queue_name(&self, topic: &str, queue: u32) -> Value {
        json!({ "brokerName": self.name, "queueId": queue, "topic": topic })
    }

    /// All groups, with settings that are the same for all.
    ///
    /// # Errors
    /// They are too many for one answer.
    pub(super) fn all_groups(&self) -> Result<Reply, Failure> {
        // A group's name is in its settings, too.
        let mut names = Names::with_each(GROUP_SETTINGS_BYTES, 2);
        names.extend(self.clients.groups(None).iter().map(String::as_str))?;
        self.in_all_logs(|state| names.extend(state.groups()))?;
        let mut body = String::with_capacity(names.bytes());
        let names = names.into_set();
        body.push_str(
            r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"subscriptionGroupTable":{"#,
        );
        for (at, name) in names.iter().enumerate() {
            let settings = json!({
                "brokerId": 0,
                "consumeBroadcastEnable": true,
                "consumeEnable": true,
                "consumeFromMinEnable": true,
                "groupName": name,
                "notifyConsumerIdsChangedEnable": true,
                "retryMaxTimes": super::send::RECONSUME_MAX,
                "retryQueueNums": 1,
                "whichBrokerWhenConsumeSlowly": 1,
            });
            let comma = if at == 0 { "" } else { "," };
            // Text takes all that is written.
            let _ = write!(body, "{comma}{}:{settings}", Value::from(name.as_str()));
        }
        body.push_str("}}");
        Ok(Reply::done().with_body(body))
    }

    pub(super) fn consumer_connections(&self, command: &Command) -> Result<Reply, Failure> {
        let name = command.head.fields.text("consumerGroup")?;
        let Some(group) = self.clients.group(name) else {
            let remark = format!("the consumer group[{name}] not online");
            return Err(Failure::refused(response::CONSUMER_NOT_ONLINE, remark));
        };
        let connections = group.members.iter().flat_map(|(id, member)| {
            member.connections.values().map(move |connection| {
                json!({
                    "clientAddr": connection.client().to_string(),
                    "clientId": id,
                    "language": member.speaker.language(),
                    "version": member.speaker.version,
                })
            })
        });
        let subscriptions = group.subscriptions.iter().map(|(topic, subscription)| {
            let body = json!({
                "classFilterMode": false,
                "codeSet": subscription.tags,
                "expressionType": "TAG",
                "subString": subscription.expression,
                "subVersion": subscription.version,
                "topic": topic,
            });
            (topic.clone(), body)
        });
        let body = json!({
            "connectionSet": connections.collect::<Vec<Value>>(),
            "consumeFromWhere": group.kind.from_where,
            "consumeType": group.kind.consume_type,
            "messageModel": group.kind.message_model,
            "subscriptionTable": subscriptions.collect::<serde_json::Map<_, _>>(),
        });
        Ok(Reply::done().with_body(body.to_string()))
    }

    pub(super) fn groups_of_topic(&self, command: &Command) -> Result<Reply, Failure> {
        let topic = command.head.fields.text("topic")?;
        let mut groups = Names::default();
        groups.extend(self.clients.groups(Some(topic)).iter().map(String::as_str))?;
        self.in_all_logs(|state| groups.extend(state.groups_of_topic(topic)))?;
        Ok(Reply::done().with_body(groups.into_body("groupList")))
    }

    pub(super) fn topics_of_group(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let topics = self.topics_consumed(fields.text("group")?)?;
        let body = json!({ "brokerAddr": self.addr.to_string(), "topicList": topics });
        Ok(Reply::done().with_body(body.to_string()))
    }

    /// Topics that a group has consumed, in whichever log.
    fn topics_consumed(&self, group: &str) -> Result<BTreeSet<String>, Failure> {
        let mut topics = Names::default();
        self.in_all_logs(|state| topics.extend(state.topics_of_group(group)))?;
        Ok(topics.into_set())
    }

    /// For each queue that a group consumes: how far it is, and how far it could be. Topics that its members do not want
    /// any more are left out, unless they are asked for in a list.
    pub(super) async fn consume_stats(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let group = fields.text("consumerGroup")?;
        check_group(group)?;
        let given = |name: &str| fields.get(name).filter(|text| !text.trim().is_empty());
        let subscribed = self.clients.subscriptions(group);
        let topics: BTreeSet<String> = match (given("topicList"), given("topic")) {
            (Some(list), _) => list.split(';').map(str::to_owned).collect(),
            (None, topic) => {
                let mut topics = match topic {
                    Some(topic) => BTreeSet::from([topic.to_owned()]),
                    None => self.topics_consumed(group)?,
                };
                if let Some(subscribed) = subscribed.filter(|subscribed| !subscribed.is_empty()) {
                    if topic.is_none() {
                        topics.extend(subscribed.keys().cloned());
                    }
                    topics.retain(|topic| subscribed.contains_key(topic));
                }
                topics
            }
        };
        let mut table = QueueTable::after(r#"{"consumeTps":0.0,"offsetTable":"#);
        for topic in topics {
            let Some(config) = self.topic_config(&topic) else { continue };
            for queue in 0..config.read_queues {
                let stats = self.queue_stats(group, &topic, queue).await?;
                table.push(&self.queue_name(&topic, queue), &stats)?;
            }
        }
        Ok(Reply::done().with_body(table.into_body("}")))
    }

    async fn queue_stats(&self, group: &str, topic: &str, queue: u32) -> Result<Value, Failure> {
        let consumed = self.shared()?.state().offset(group, topic, queue).unwrap_or(0);
        let max = self.end_of(topic, queue)?;
        let stored_ms = self.stored_before(topic, queue, consumed).await?;
        Ok(json!({
            "brokerOffset": max,
            "consumerOffset": consumed,
            "lastTimestamp": stored_ms,
            "pullOffset": consumed,
        }))
    }
}

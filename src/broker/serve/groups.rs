//! What is known of consumer groups, for tools: who is in them, what they have consumed and how far they are behind.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::failure::Failure;
use super::log_broker::LogBroker;
use super::names::check_group;
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, Reply, object_keys};
use crate::broker::state::State;

impl LogBroker {
    /// What `read` finds in the state of any log that this node has: a group of one log is one of all.
    fn of_all_logs<T>(&self, read: impl Fn(&State) -> T) -> Vec<T> {
        let Some(brokers) = self.brokers.upgrade() else { return Vec::new() };
        let opened = brokers.logs().iter().filter_map(|broker| broker.shared().ok());
        opened.map(|shared| read(&shared.state())).collect()
    }

    /// True for a group that has members, or that has consumed something.
    pub(super) fn knows_group(&self, group: &str) -> bool {
        self.clients.group(group).is_some()
            || self.of_all_logs(|state| state.has_group(group)).contains(&true)
    }

    /// A queue of a topic, as clients name it.
    pub(super) fn queue_name(&self, topic: &str, queue: u32) -> Value {
        json!({ "brokerName": self.name, "queueId": queue, "topic": topic })
    }

    /// All groups, with settings that are the same for all.
    pub(super) fn all_groups(&self) -> Reply {
        let mut names = self.clients.groups(None);
        names.extend(
            self.of_all_logs(|state| state.groups().map(str::to_owned).collect::<Vec<_>>())
                .into_iter()
                .flatten(),
        );
        let settings = |name: &String| {
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
            (name.clone(), settings)
        };
        let table: serde_json::Map<_, _> = names.iter().map(settings).collect();
        let body = json!({
            "dataVersion": { "counter": 0, "stateVersion": 0, "timestamp": 0 },
            "subscriptionGroupTable": table,
        });
        Reply::done().with_body(body.to_string())
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
        let mut groups = self.clients.groups(Some(topic));
        let consumed = self.of_all_logs(|state| state.groups_of_topic(topic));
        groups.extend(consumed.into_iter().flatten());
        Ok(Reply::done().with_body(json!({ "groupList": groups }).to_string()))
    }

    pub(super) fn topics_of_group(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let topics = self.topics_consumed(fields.text("group")?);
        let body = json!({ "brokerAddr": self.addr.to_string(), "topicList": topics });
        Ok(Reply::done().with_body(body.to_string()))
    }

    /// Topics that a group has consumed, in whichever log.
    fn topics_consumed(&self, group: &str) -> BTreeSet<String> {
        self.of_all_logs(|state| state.topics_of_group(group)).into_iter().flatten().collect()
    }

    /// For each queue that a group consumes: how far it is, and how far it could be. Topics that its members do not want
    /// any more are left out, unless they are asked for in a list.
    pub(super) async fn consume_stats(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let group = fields.text("consumerGroup")?;
        check_group(group)?;
        let given = |name: &str| fields.get(name).filter(|text| !text.trim().is_empty());
        let subscribed = self.clients.group(group).map(|group| group.subscriptions);
        let topics: BTreeSet<String> = match (given("topicList"), given("topic")) {
            (Some(list), _) => list.split(';').map(str::to_owned).collect(),
            (None, topic) => {
                let mut topics = match topic {
                    Some(topic) => BTreeSet::from([topic.to_owned()]),
                    None => self.topics_consumed(group),
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
        let mut table = Vec::new();
        for topic in topics {
            let Some(config) = self.topic_config(&topic) else { continue };
            for queue in 0..config.read_queues {
                let stats = self.queue_stats(group, &topic, queue).await?;
                table.push((self.queue_name(&topic, queue), stats));
            }
        }
        let table = object_keys::write(table);
        let body = format!(r#"{{"consumeTps":0.0,"offsetTable":{table}}}"#);
        Ok(Reply::done().with_body(body))
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

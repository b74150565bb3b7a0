//! What is known of consumer groups, for tools: who is in them, what they have consumed and how far they are behind.

use std::collections::BTreeSet;
use std::fmt::{Arguments, Write as _};

use serde_json::{Value, json};

use crate::clients::MemberConnection;
use crate::log::LogBroker;
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{
    Body, Failure, Look, Names, Pace, QueueTable, behind, check_group, list, quoted,
};
use crate::state::State;

/// Subscriptions that are listed in one turn: their expressions may be long.
const SUBSCRIPTIONS_AT_ONCE: usize = 16;

/// All names of a source, as each is wanted.
fn all<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = (&'a str, bool)> {
    names.map(|name| (name, true))
}

fn write(text: &mut String, what: Arguments<'_>) {
    // Text takes all that is written.
    let _ = text.write_fmt(what);
}

impl LogBroker {
    /// Has `read` look at the state of each log that this node has: a group of one log is one of all.
    fn in_all_logs(&self, mut read: impl FnMut(&State)) {
        let Some(brokers) = self.brokers.upgrade() else { return };
        for shared in brokers.logs().iter().filter_map(|broker| broker.shared().ok()) {
            read(&shared.state());
        }
    }

    /// True for a group that has members, or that has consumed something.
    pub(crate) fn knows_group(&self, group: &str) -> bool {
        let mut known = self.clients.has_group(group);
        self.in_all_logs(|state| known |= state.has_group(group));
        known
    }

    /// A queue of a topic, as clients name it.
    pub(crate) fn queue_name(&self, topic: &str, queue: u32) -> Value {
        json!({ "brokerName": self.name, "queueId": queue, "topic": topic })
    }

    /// All groups, with settings that are the same for all.
    ///
    /// # Errors
    /// They are too many for one answer.
    pub(crate) async fn all_groups(&self, command: &Command) -> Result<Reply, Failure> {
        let look = |after: Option<&str>, look: &mut Look| {
            self.clients.look_at_groups(None, after, look);
            self.in_all_logs(|state| look.at(all(state.groups(behind(after)))));
        };
        let begin = r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"subscriptionGroupTable":{"#;
        let settings = |name: &str| {
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
            format!("{}:{settings}", quoted(name))
        };
        list(command, (begin, "}}"), look, settings).await
    }

    pub(crate) async fn consumer_connections(&self, command: &Command) -> Result<Reply, Failure> {
        let group = command.head.fields.text("consumerGroup")?;
        let Some(kind) = self.clients.kind(group) else {
            let remark = format!("the consumer group[{group}] not online");
            return Err(Failure::refused(response::CONSUMER_NOT_ONLINE, remark));
        };
        let mut body = Body::beginning(r#"{"connectionSet":["#);
        let (mut comma, mut connections) = ("", self.clients.connections(group));
        while let Some(some) = connections.more().await {
            for MemberConnection { at: (id, _), connection, speaker } in some {
                let entry = json!({
                    "clientAddr": connection.client().to_string(),
                    "clientId": id,
                    "language": speaker.language(),
                    "version": speaker.version,
                });
                body.push(|text| write(text, format_args!("{comma}{entry}")))?;
                comma = ",";
            }
        }
        body.push(|text| {
            let kinds = format_args!(
                r#"],"consumeFromWhere":"{}","consumeType":"{}","messageModel":"{}","subscriptionTable":{{"#,
                kind.from_where, kind.consume_type, kind.message_model
            );
            write(text, kinds);
        })?;
        self.push_subscriptions(group, &mut body).await?;
        let mut reply = Reply::done();
        reply.body = body.ending("}}");
        Ok(reply)
    }

    async fn push_subscriptions(&self, group: &str, body: &mut Body) -> Result<(), Failure> {
        let (mut comma, mut after) = ("", None::<String>);
        loop {
            let some = self.clients.subscriptions(group, after.as_deref(), SUBSCRIPTIONS_AT_ONCE);
            let Some((last, _)) = some.last() else { return Ok(()) };
            after = Some(last.clone());
            for (topic, subscription) in some {
                let entry = json!({
                    "classFilterMode": false,
                    "codeSet": subscription.tags,
                    "expressionType": "TAG",
                    "subString": subscription.expression,
                    "subVersion": subscription.version,
                    "topic": topic,
                });
                body.push(|text| write(text, format_args!("{comma}{}:{entry}", quoted(&topic))))?;
                comma = ",";
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn groups_of_topic(&self, command: &Command) -> Result<Reply, Failure> {
        let topic = command.head.fields.text("topic")?;
        let look = |after: Option<&str>, look: &mut Look| {
            self.clients.look_at_groups(Some(topic), after, look);
            self.in_all_logs(|state| look.at(all(state.groups_of_topic(topic, behind(after)))));
        };
        list(command, (r#"{"groupList":["#, "]}"), look, quoted).await
    }

    pub(crate) async fn topics_of_group(&self, command: &Command) -> Result<Reply, Failure> {
        let group = command.head.fields.text("group")?;
        let begin = format!(r#"{{"brokerAddr":{},"topicList":["#, quoted(&self.addr.to_string()));
        list(command, (&begin, "]}"), self.look_at_topics(group), quoted).await
    }

    /// Looks at the topics that a group has consumed, in whichever log.
    fn look_at_topics<'a>(&'a self, group: &'a str) -> impl FnMut(Option<&str>, &mut Look) + 'a {
        move |after, look| {
            self.in_all_logs(|state| look.at(all(state.topics_of_group(group, behind(after)))));
        }
    }

    /// For each queue that a group consumes: how far it is, and how far it could be. Topics that its members do not want
    /// any more are left out, unless they are asked for in a list.
    pub(crate) async fn consume_stats(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let group = fields.text("consumerGroup")?;
        check_group(group)?;
        let given = |name: &str| fields.get(name).filter(|text| !text.trim().is_empty());
        let subscribed = self.clients.subscribed(group);
        let topics: BTreeSet<String> = match (given("topicList"), given("topic")) {
            (Some(list), _) => list.split(';').map(str::to_owned).collect(),
            (None, topic) => {
                let mut topics = match topic {
                    Some(topic) => BTreeSet::from([topic.to_owned()]),
                    None => Names::behind(None, self.look_at_topics(group)).all().await?,
                };
                if let Some(subscribed) = subscribed.filter(|subscribed| !subscribed.is_empty()) {
                    if topic.is_none() {
                        topics.extend(subscribed.iter().cloned());
                    }
                    topics.retain(|topic| subscribed.contains(topic));
                }
                topics
            }
        };
        let mut table = QueueTable::after(r#"{"consumeTps":0.0,"offsetTable":"#);
        let mut pace = Pace::default();
        for topic in topics {
            pace.step().await;
            let Some(config) = self.topic_config(&topic) else { continue };
            for queue in 0..config.read_queues {
                let stats = self.queue_stats(group, &topic, queue).await?;
                table.push(&self.queue_name(&topic, queue), &stats).await?;
            }
        }
        Ok(table.into_reply("}"))
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

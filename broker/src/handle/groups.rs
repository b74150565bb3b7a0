//! What is known of consumer groups, for tools: who is in them, what they have consumed and how far they are behind.

use std::collections::BTreeSet;
use std::fmt::{Arguments, Write as _};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::send::RECONSUME_MAX;
use crate::clients::{Clients, MemberConnection};
use crate::log::{Replica, Topics};
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{
    Body, Failure, Look, Names, Pace, QueueTable, after, behind, check_group, list, quoted,
};

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

/// True for a group that has members, or that has consumed something.
pub(super) fn knows_group(clients: &Clients, topics: &Topics, group: &str) -> bool {
    let mut known = clients.has_group(group);
    topics.in_all_logs(|state| known |= state.has_group(group));
    known
}

/// Looks at the topics that a group has consumed, in whichever log.
fn look_at_topics<'a>(
    topics: &'a Topics,
    group: &'a str,
) -> impl FnMut(Option<&str>, &mut Look) + 'a {
    move |after, look| {
        topics.in_all_logs(|state| look.at(all(state.topics_of_group(group, behind(after)))));
    }
}

/// All groups, with settings that are the same for all.
pub(super) struct AllGroups<'a> {
    after: Option<&'a str>,
}

impl<'a> AllGroups<'a> {
    pub(super) fn read(command: &'a Command) -> Self {
        Self { after: after(command) }
    }

    pub(super) async fn run(self, clients: &Clients, topics: &Topics) -> Result<Reply, Failure> {
        let look = |after: Option<&str>, look: &mut Look| {
            clients.look_at_groups(None, after, look);
            topics.in_all_logs(|state| look.at(all(state.groups(behind(after)))));
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
                "retryMaxTimes": RECONSUME_MAX,
                "retryQueueNums": 1,
                "whichBrokerWhenConsumeSlowly": 1,
            });
            format!("{}:{settings}", quoted(name))
        };
        list(self.after, (begin, "}}"), look, settings).await
    }
}

/// The connections of a group's members, and what they subscribe to.
pub(super) struct ConsumerConnections<'a> {
    group: &'a str,
}

impl<'a> ConsumerConnections<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        Ok(Self { group: command.head.fields.text("consumerGroup")? })
    }

    pub(super) async fn run(self, clients: &Clients) -> Result<Reply, Failure> {
        let group = self.group;
        let Some(kind) = clients.kind(group) else {
            let remark = format!("the consumer group[{group}] not online");
            return Err(Failure::refused(response::CONSUMER_NOT_ONLINE, remark));
        };
        let mut body = Body::beginning(r#"{"connectionSet":["#);
        let (mut comma, mut connections) = ("", clients.connections(group));
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
        push_subscriptions(clients, group, &mut body).await?;
        let mut reply = Reply::done();
        reply.body = body.ending("}}");
        Ok(reply)
    }
}

async fn push_subscriptions(
    clients: &Clients,
    group: &str,
    body: &mut Body,
) -> Result<(), Failure> {
    let (mut comma, mut after) = ("", None::<String>);
    loop {
        let some = clients.subscriptions(group, after.as_deref(), SUBSCRIPTIONS_AT_ONCE);
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

/// The groups that consume a topic.
pub(super) struct GroupsOfTopic<'a> {
    topic: &'a str,
    after: Option<&'a str>,
}

impl<'a> GroupsOfTopic<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        Ok(Self { topic: command.head.fields.text("topic")?, after: after(command) })
    }

    pub(super) async fn run(self, clients: &Clients, topics: &Topics) -> Result<Reply, Failure> {
        let topic = self.topic;
        let look = |after: Option<&str>, look: &mut Look| {
            clients.look_at_groups(Some(topic), after, look);
            topics.in_all_logs(|state| look.at(all(state.groups_of_topic(topic, behind(after)))));
        };
        list(self.after, (r#"{"groupList":["#, "]}"), look, quoted).await
    }
}

/// The topics that a group has consumed.
pub(super) struct TopicsOfGroup<'a> {
    group: &'a str,
    after: Option<&'a str>,
}

impl<'a> TopicsOfGroup<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        Ok(Self { group: command.head.fields.text("group")?, after: after(command) })
    }

    pub(super) async fn run(self, topics: &Topics, addr: SocketAddr) -> Result<Reply, Failure> {
        let begin = format!(r#"{{"brokerAddr":{},"topicList":["#, quoted(&addr.to_string()));
        list(self.after, (&begin, "]}"), look_at_topics(topics, self.group), quoted).await
    }
}

/// For each queue that a group consumes: how far it is, and how far it could be.
pub(super) struct ConsumeStats<'a> {
    group: &'a str,
    /// With semicolons between.
    list: Option<&'a str>,
    topic: Option<&'a str>,
}

impl<'a> ConsumeStats<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        let fields = &command.head.fields;
        let group = fields.text("consumerGroup")?;
        check_group(group)?;
        let given = |name: &str| fields.get(name).filter(|text| !text.trim().is_empty());
        Ok(Self { group, list: given("topicList"), topic: given("topic") })
    }

    pub(super) async fn run(
        self,
        clients: &Clients,
        topics: &Topics,
        replica: &Replica,
    ) -> Result<Reply, Failure> {
        let mut table = QueueTable::after(r#"{"consumeTps":0.0,"offsetTable":"#);
        let mut pace = Pace::default();
        for topic in self.topics(clients, topics).await? {
            pace.step().await;
            let Some(config) = topics.topic_config(&topic) else { continue };
            for queue in 0..config.read_queues {
                let stats = queue_stats(replica, self.group, &topic, queue).await?;
                table.push(&replica.queue_name(&topic, queue), &stats).await?;
            }
        }
        Ok(table.into_reply("}"))
    }

    /// The topics that are meant. Those that the group's members do not want any more are left out, unless they are asked
    /// for in a list.
    async fn topics(
        &self,
        clients: &Clients,
        topics: &Topics,
    ) -> Result<BTreeSet<String>, Failure> {
        if let Some(list) = self.list {
            return Ok(list.split(';').map(str::to_owned).collect());
        }
        let subscribed = clients.subscribed(self.group);
        let mut wanted = match self.topic {
            Some(topic) => BTreeSet::from([topic.to_owned()]),
            None => Names::behind(None, look_at_topics(topics, self.group)).all().await?,
        };
        if let Some(subscribed) = subscribed.filter(|subscribed| !subscribed.is_empty()) {
            if self.topic.is_none() {
                wanted.extend(subscribed.iter().cloned());
            }
            wanted.retain(|topic| subscribed.contains(topic));
        }
        Ok(wanted)
    }
}

async fn queue_stats(
    replica: &Replica,
    group: &str,
    topic: &str,
    queue: u32,
) -> Result<Value, Failure> {
    let consumed = replica.shared()?.state().offset(group, topic, queue).unwrap_or(0);
    let max = replica.end_of(topic, queue)?;
    let stored_ms = replica.stored_before(topic, queue, consumed).await?;
    Ok(json!({
        "brokerOffset": max,
        "consumerOffset": consumed,
        "lastTimestamp": stored_ms,
        "pullOffset": consumed,
    }))
}

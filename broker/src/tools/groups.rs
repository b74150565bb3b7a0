//! Consumer groups of a running cluster.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::ask::{Conversation, NameServers, ask_broker, invalid, json};
use crate::remoting::Fields;
use crate::remoting::codes::request;

/// Groups that one broker is asked about at the same time. It answers few questions of one connection at once.
pub(super) const QUESTIONS_AT_ONCE: usize = 8;

/// A client in a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct GroupMemberInfo {
    /// The id that it gave itself.
    pub client_id: String,
    /// Where it connects from.
    pub addr: String,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// Topics that it has consumed or subscribes to.
    pub topics: BTreeSet<String>,
    /// Clients that are connected.
    pub members: BTreeSet<GroupMemberInfo>,
}

/// How far a group is in one queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct QueueLag {
    /// The topic.
    pub topic: String,
    /// The broker that has the queue.
    pub broker: String,
    /// The queue's number there.
    pub queue: u32,
    /// Offset of the next message to consume.
    pub consumed: u64,
    /// Offset that the next message gets.
    pub max: u64,
    /// When the last message that was consumed had been stored, in milliseconds since 1970; none if that is not known.
    pub last_stored_ms: Option<u64>,
}

impl QueueLag {
    /// Messages that are still to be consumed.
    pub fn lag(&self) -> u64 {
        self.max.saturating_sub(self.consumed)
    }
}

impl GroupInfo {
    /// Adds what another broker knows of it.
    fn add(&mut self, other: Self) {
        self.topics.extend(other.topics);
        self.members.extend(other.members);
        self.keep_one_connection_of_each();
    }

    /// A client is connected to each broker, from other ports.
    fn keep_one_connection_of_each(&mut self) {
        let mut last: Option<String> = None;
        self.members.retain(|member| {
            let is_first = last.as_ref() != Some(&member.client_id);
            last = Some(member.client_id.clone());
            is_first
        });
    }
}

/// What a reset does, or would do, to one queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct QueueReset {
    /// The broker that has the queue.
    pub broker: String,
    /// The queue's number there.
    pub queue: u32,
    /// Offset of the next message to consume before.
    pub from: u64,
    /// And after.
    pub to: u64,
}

/// Where a group's consumers are to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// At the first message that is still there.
    Begin,
    /// Behind the last one.
    End,
    /// At this offset, in each queue.
    Offset(u64),
    /// At the first message that was stored at this time or later, in milliseconds since 1970.
    Time(u64),
}

/// Lists the consumer groups of a running cluster, says how far they are, and resets them.
#[derive(Debug, Clone)]
pub struct GroupAdmin(NameServers);

/// Topic, broker and number of a queue.
type QueueName = (String, String, u32);

/// Queues and what is said of each, out of a map whose keys are queues.
fn table(body: &[u8]) -> io::Result<Vec<(QueueName, Value)>> {
    let body = json(body)?;
    let entries = body["offsetTable"].as_object().ok_or_else(|| invalid("no table of offsets"))?;
    let entry = |(key, value): (&String, &Value)| {
        let key: Value = serde_json::from_str(key).ok()?;
        let text = |name: &str| key[name].as_str().map(str::to_owned);
        let queue = u32::try_from(key["queueId"].as_u64()?).ok()?;
        Some(((text("topic")?, text("brokerName")?, queue), value.clone()))
    };
    let read = entries.iter().map(|it| entry(it).ok_or_else(|| invalid("a key that is no queue")));
    read.collect()
}

fn not_found(what: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} {name}"))
}

impl GroupAdmin {
    /// Uses the first of these name servers that answers.
    pub fn new(name_servers: impl IntoIterator<Item = String>) -> Self {
        Self(NameServers::new(name_servers))
    }

    /// The groups, by name.
    ///
    /// # Errors
    /// No name server or a broker does not answer, or answers what it should not.
    pub async fn groups(&self) -> io::Result<Vec<GroupInfo>> {
        let mut groups: BTreeMap<String, GroupInfo> = BTreeMap::new();
        for addr in self.0.brokers().await?.values() {
            let broker = Conversation::begin(addr).await?;
            let mut names = BTreeSet::new();
            for page in broker.pages(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG).await? {
                let listed = json(&page)?;
                let table = listed["subscriptionGroupTable"].as_object();
                names.extend(table.ok_or_else(|| invalid("no table of groups"))?.keys().cloned());
            }
            let known = names.iter().map(|name| Self::known(&broker, name));
            let mut known = stream::iter(known).buffered(QUESTIONS_AT_ONCE);
            while let Some(group) = known.try_next().await? {
                match groups.entry(group.name.clone()) {
                    Entry::Vacant(entry) => drop(entry.insert(group)),
                    Entry::Occupied(entry) => entry.into_mut().add(group),
                }
            }
        }
        Ok(groups.into_values().collect())
    }

    /// What one broker knows of a group.
    async fn known(broker: &Conversation, name: &str) -> io::Result<GroupInfo> {
        let mut group =
            GroupInfo { name: name.to_owned(), topics: BTreeSet::new(), members: BTreeSet::new() };
        let fields: Fields = [("group", name)].into_iter().collect();
        let topics = json(&broker.ask(request::QUERY_TOPICS_BY_CONSUMER, fields).await?)?;
        let names = topics["topicList"].as_array().into_iter().flatten().filter_map(Value::as_str);
        group.topics.extend(names.map(str::to_owned));
        let fields: Fields = [("consumerGroup", name)].into_iter().collect();
        let body = match broker.ask(request::GET_CONSUMER_CONNECTION_LIST, fields).await {
            // It has no members here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(group),
            body => json(&body?)?,
        };
        let subscribed = body["subscriptionTable"].as_object().into_iter().flatten();
        group.topics.extend(subscribed.map(|(topic, _)| topic.clone()));
        for member in body["connectionSet"].as_array().into_iter().flatten() {
            let text = |name: &str| member[name].as_str().unwrap_or_default().to_owned();
            let (client_id, addr) = (text("clientId"), text("clientAddr"));
            group.members.insert(GroupMemberInfo { client_id, addr });
        }
        group.keep_one_connection_of_each();
        Ok(group)
    }

    /// Fails if there is no such group or topic.
    async fn check(&self, group: &str, topic: Option<&str>) -> io::Result<()> {
        let mut known = false;
        for addr in self.0.brokers().await?.values() {
            let broker = Conversation::begin(addr).await?;
            let found = Self::known(&broker, group).await?;
            known |= !found.topics.is_empty() || !found.members.is_empty();
        }
        if !known {
            return Err(not_found("group", group));
        }
        let Some(topic) = topic else { return Ok(()) };
        let fields: Fields = [("topic", topic)].into_iter().collect();
        match self.0.ask(request::GET_ROUTEINFO_BY_TOPIC, &fields).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found("topic", topic)),
            route => route.map(drop),
        }
    }

    /// How far a group is in each queue that it consumes, or in those of one topic.
    ///
    /// # Errors
    /// As `groups`; `NotFound` if there is no such group or topic.
    pub async fn lag(&self, group: &str, topic: Option<&str>) -> io::Result<Vec<QueueLag>> {
        self.check(group, topic).await?;
        let mut fields: Fields = [("consumerGroup", group)].into_iter().collect();
        // A list is taken as it is; a single topic would be left out if nobody subscribes to it now.
        topic.into_iter().for_each(|topic| fields.set("topicList", topic));
        let mut lags = Vec::new();
        for addr in self.0.brokers().await?.values() {
            let body = ask_broker(addr, request::GET_CONSUME_STATS, &fields).await?;
            for ((topic, broker, queue), stats) in table(&body)? {
                let number = |name: &str| stats[name].as_u64().unwrap_or_default();
                lags.push(QueueLag {
                    topic,
                    broker,
                    queue,
                    consumed: number("consumerOffset"),
                    max: number("brokerOffset"),
                    last_stored_ms: Some(number("lastTimestamp")).filter(|ms| *ms > 0),
                });
            }
        }
        lags.sort_unstable();
        Ok(lags)
    }

    /// What a reset would do.
    ///
    /// # Errors
    /// As `lag`; an offset that a queue does not have, or a topic without queues.
    pub async fn plan_reset(
        &self,
        group: &str,
        topic: &str,
        to: ResetTo,
    ) -> io::Result<Vec<QueueReset>> {
        let lags = self.lag(group, Some(topic)).await?;
        let addrs = self.0.brokers().await?;
        let mut plan = Vec::with_capacity(lags.len());
        for QueueLag { broker, queue, consumed, max, .. } in lags {
            let addr = addrs.get(&broker).ok_or_else(|| not_found("broker", &broker))?;
            let target = match to {
                ResetTo::End => max,
                ResetTo::Begin => {
                    Self::offset(addr, request::GET_MIN_OFFSET, topic, queue, 0).await?
                }
                ResetTo::Time(ms) => {
                    let code = request::SEARCH_OFFSET_BY_TIMESTAMP;
                    Self::offset(addr, code, topic, queue, ms).await?
                }
                ResetTo::Offset(offset) => {
                    let min = Self::offset(addr, request::GET_MIN_OFFSET, topic, queue, 0).await?;
                    if !(min..=max).contains(&offset) {
                        let detail = format!(
                            "queue {queue} of {broker} has offsets {min} to {max}, not {offset}"
                        );
                        return Err(io::Error::new(io::ErrorKind::InvalidInput, detail));
                    }
                    offset
                }
            };
            plan.push(QueueReset { broker, queue, from: consumed, to: target });
        }
        Ok(plan)
    }

    async fn offset(addr: &str, code: i32, topic: &str, queue: u32, ms: u64) -> io::Result<u64> {
        let (queue, ms) = (queue.to_string(), ms.to_string());
        let fields = [("topic", topic), ("queueId", &queue), ("timestamp", &ms)];
        let fields: Fields = fields.into_iter().collect();
        super::ask::ask_for_number(addr, code, &fields, "offset").await
    }

    /// Sets a group's offsets in a topic anew. Its consumers are told and go on there, after about ten seconds.
    /// Returns what was done.
    ///
    /// # Errors
    /// As `plan_reset`, and what a broker says against it. Brokers before it have done it then.
    pub async fn reset(
        &self,
        group: &str,
        topic: &str,
        to: ResetTo,
    ) -> io::Result<Vec<QueueReset>> {
        let mut plan = self.plan_reset(group, topic, to).await?;
        let (time, offset) = match to {
            ResetTo::Begin => ("0".to_owned(), None),
            ResetTo::End => ("-1".to_owned(), None),
            ResetTo::Time(ms) => (ms.to_string(), None),
            ResetTo::Offset(offset) => ("0".to_owned(), Some(offset)),
        };
        let fields =
            [("group", group), ("topic", topic), ("timestamp", &time), ("isForce", "true")];
        let mut fields: Fields = fields.into_iter().collect();
        fields.set("queueId", "-1");
        offset.into_iter().for_each(|offset| fields.set("offset", &offset.to_string()));
        for addr in self.0.brokers().await?.values() {
            let body = ask_broker(addr, request::INVOKE_BROKER_TO_RESET_OFFSET, &fields).await?;
            for ((_, broker, queue), offset) in table(&body)? {
                let of_queue = plan.iter_mut().find(|it| it.broker == broker && it.queue == queue);
                if let Some((reset, offset)) = of_queue.zip(offset.as_u64()) {
                    reset.to = offset;
                }
            }
        }
        Ok(plan)
    }
}

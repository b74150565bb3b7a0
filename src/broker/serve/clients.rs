//! Producers and consumers that are connected: what heartbeats say, and who is told of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::connection::Connection;
use super::failure::Failure;
use super::log_broker::LogBroker;
use super::names::{check_group, group_of_retry, retry_topic};
use crate::broker::remoting::codes::{request, response};
use crate::broker::remoting::{Command, Fields, Reply, Speaker};
use crate::mutant::Mutant;

/// A client that was silent for so long is gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Clients that one broker knows at once.
const CLIENTS_MAX: usize = 65_536;
/// Groups of one client.
const GROUPS_MAX: usize = 1024;

/// What a client says it is. All but its id may be missing, and kinds may be names or numbers (L4, L5).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Heartbeat {
    #[serde(rename = "clientID")]
    client_id: String,
    consumer_data_set: Option<Vec<ConsumerData>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ConsumerData {
    group_name: String,
    consume_type: Value,
    message_model: Value,
    consume_from_where: Value,
    subscription_data_set: Option<Vec<SubscriptionData>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SubscriptionData {
    topic: String,
    sub_string: Option<String>,
    sub_version: Value,
    code_set: Option<Vec<Value>>,
    expression_type: Option<String>,
}

/// What a group's members say of how they consume, in RocketMQ's names. The last one who says it is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kind {
    pub(super) consume_type: &'static str,
    pub(super) message_model: &'static str,
    pub(super) from_where: &'static str,
}

impl ConsumerData {
    fn kind(&self) -> Kind {
        let from_where = [
            "CONSUME_FROM_LAST_OFFSET",
            "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
            "CONSUME_FROM_MIN_OFFSET",
            "CONSUME_FROM_MAX_OFFSET",
            "CONSUME_FROM_FIRST_OFFSET",
            "CONSUME_FROM_TIMESTAMP",
        ];
        let types = ["CONSUME_ACTIVELY", "CONSUME_PASSIVELY", "CONSUME_POP"];
        Kind {
            consume_type: named(&self.consume_type, &types, "CONSUME_PASSIVELY"),
            message_model: named(
                &self.message_model,
                &["BROADCASTING", "CLUSTERING"],
                "CLUSTERING",
            ),
            from_where: named(&self.consume_from_where, &from_where, from_where[0]),
        }
    }
}

/// One of `names`, which is given by name or by number.
fn named(value: &Value, names: &[&'static str], default: &'static str) -> &'static str {
    let by_name = value.as_str().and_then(|name| names.iter().find(|known| **known == name));
    let by_number = || names.get(usize::try_from(number(value)?).ok()?);
    by_name.or_else(by_number).copied().unwrap_or(default)
}

/// A number, whether it is written as one or as text.
fn number(value: &Value) -> Option<i64> {
    let float = || value.as_f64().map(|number| number as i64);
    value.as_i64().or_else(float).or_else(|| value.as_str()?.trim().parse().ok())
}

/// What a group wants of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) version: i64,
    /// Hashes of the tags that are wanted; empty for all.
    pub(super) tags: BTreeSet<i32>,
    /// As the group said it.
    pub(super) expression: String,
}

impl SubscriptionData {
    fn read(&self) -> Subscription {
        let codes = self.code_set.iter().flatten().filter_map(number);
        let mut tags: BTreeSet<i32> = codes.filter_map(|code| i32::try_from(code).ok()).collect();
        let expression = self.sub_string.clone().unwrap_or_else(|| "*".to_owned());
        if tags.is_empty() {
            tags = tags_of(&expression);
        }
        Subscription { version: number(&self.sub_version).unwrap_or(0), tags, expression }
    }
}

/// Hashes of the tags in `TagA || TagB`; empty for `*`.
pub(super) fn tags_of(expression: &str) -> BTreeSet<i32> {
    let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
    let tags: BTreeSet<_> = tags.collect();
    if tags.contains("*") {
        return BTreeSet::new();
    }
    tags.into_iter().map(crate::broker::record::java_hash).collect()
}

/// A consumer group's members and subscriptions.
#[derive(Clone, Default)]
pub(super) struct Group {
    pub(super) kind: Kind,
    /// By the client's id.
    pub(super) members: BTreeMap<String, GroupMember>,
    /// By topic.
    pub(super) subscriptions: BTreeMap<String, Subscription>,
}

/// A client in a group.
#[derive(Clone)]
pub(super) struct GroupMember {
    /// Those that said so, by their numbers: at least one.
    pub(super) connections: BTreeMap<u64, Arc<Connection>>,
    pub(super) speaker: Speaker,
}

impl Group {
    fn connections(&self) -> Vec<Arc<Connection>> {
        let of_members = self.members.values().flat_map(|member| member.connections.values());
        of_members.cloned().collect()
    }
}

/// What one connection of a client has said. A client may have several, as when it has begun another one before the end of
/// the last is noticed, or when two have the same id.
struct Heard {
    seen: Instant,
    groups: BTreeSet<String>,
}

/// A client's connections, by their numbers.
type Client = BTreeMap<u64, Heard>;

#[derive(Default)]
struct Known {
    clients: BTreeMap<String, Client>,
    groups: BTreeMap<String, Group>,
}

impl Known {
    /// Takes a client's connection out of a group, and the client with its last one; returns those to be told.
    fn leave(&mut self, client: &str, connection: u64, group: &str) -> Vec<Arc<Connection>> {
        let Some(found) = self.groups.get_mut(group) else { return Vec::new() };
        let Some(member) = found.members.get_mut(client) else { return Vec::new() };
        member.connections.remove(&connection);
        if Mutant::MemberLeavesWithAnyConnection.is_active() {
            member.connections.clear();
        }
        if !member.connections.is_empty() {
            return Vec::new();
        }
        found.members.remove(client);
        let left = found.connections();
        if found.members.is_empty() {
            self.groups.remove(group);
        }
        left
    }

    /// Forgets connections of clients; returns whom to tell of which group.
    fn forget(&mut self, gone: Vec<(String, u64)>) -> Vec<(String, Vec<Arc<Connection>>)> {
        let mut told = Vec::new();
        for (id, connection) in gone {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let Some(heard) = client.remove(&connection) else { continue };
            if client.is_empty() {
                self.clients.remove(&id);
            }
            for group in heard.groups {
                let members = self.leave(&id, connection, &group);
                told.push((group, members));
            }
        }
        told
    }

    /// The connections of clients that are as `wanted` says.
    fn select(&self, wanted: impl Fn(u64, &Heard) -> bool) -> Vec<(String, u64)> {
        let all = self.clients.iter().flat_map(|(id, client)| {
            client.iter().map(move |(connection, heard)| (id, *connection, heard))
        });
        all.filter(|(_, connection, heard)| wanted(*connection, heard))
            .map(|(id, connection, _)| (id.clone(), connection))
            .collect()
    }
}

/// The clients of one broker. Not in the log: they say again what they are every 30 s, and to a new leader.
#[derive(Default)]
pub(super) struct Clients {
    known: Mutex<Known>,
}

impl Clients {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everyone: another node leads.
    pub(super) fn forget_all(&self) {
        *self.known() = Known::default();
    }

    /// A connection has ended.
    pub(super) fn disconnected(&self, connection: u64) {
        let told = {
            let mut known = self.known();
            let gone = known.select(|number, _| number == connection);
            known.forget(gone)
        };
        notify_all(told);
    }

    /// Forgets those that have been silent for too long.
    pub(super) fn forget_silent(&self) {
        let now = Instant::now();
        let told = {
            let mut known = self.known();
            let gone = known.select(|_, heard| now.duration_since(heard.seen) > SILENCE_MAX);
            known.forget(gone)
        };
        notify_all(told);
    }

    /// What a group has said that it wants of a topic.
    pub(super) fn subscription(&self, group: &str, topic: &str) -> Option<Subscription> {
        self.known().groups.get(group)?.subscriptions.get(topic).cloned()
    }

    /// Tells a group's members to share its queues out anew.
    pub(super) fn notify_group(&self, group: &str) {
        let members = self.known().groups.get(group).map(Group::connections);
        notify(group, members.unwrap_or_default());
    }

    /// A group that has members.
    pub(super) fn group(&self, name: &str) -> Option<Group> {
        self.known().groups.get(name).cloned()
    }

    /// The names of groups that have members, and that have subscribed to a topic if one is given.
    pub(super) fn groups(&self, topic: Option<&str>) -> BTreeSet<String> {
        let known = self.known();
        let wanted = |group: &Group| topic.is_none_or(|it| group.subscriptions.contains_key(it));
        let groups = known.groups.iter().filter(|(_, group)| wanted(group));
        groups.map(|(name, _)| name.clone()).collect()
    }

    fn heard(
        &self,
        connection: &Arc<Connection>,
        speaker: Speaker,
        beat: Heartbeat,
    ) -> Result<(), Failure> {
        let mut changed = BTreeSet::new();
        {
            let mut known = self.known();
            let new = !known.clients.contains_key(&beat.client_id);
            if new && known.clients.len() >= CLIENTS_MAX {
                let remark = format!("{CLIENTS_MAX} clients are connected, which is the most");
                return Err(Failure::refused(response::SYSTEM_ERROR, remark));
            }
            let number = connection.number;
            let client = known.clients.entry(beat.client_id.clone()).or_default();
            let heard = Heard { seen: Instant::now(), groups: BTreeSet::new() };
            client.entry(number).or_insert(heard).seen = Instant::now();
            for consumer in beat.consumer_data_set.into_iter().flatten().take(GROUPS_MAX) {
                check_group(&consumer.group_name)?;
                let kind = consumer.kind();
                let name = consumer.group_name;
                let client = known.clients.get_mut(&beat.client_id);
                if let Some(heard) = client.and_then(|client| client.get_mut(&number)) {
                    heard.groups.insert(name.clone());
                }
                let group = known.groups.entry(name.clone()).or_default();
                group.kind = kind;
                let mut differs = !group.members.contains_key(&beat.client_id);
                let member = group.members.entry(beat.client_id.clone());
                let member =
                    member.or_insert_with(|| GroupMember { connections: BTreeMap::new(), speaker });
                member.speaker = speaker;
                member.connections.insert(number, Arc::clone(connection));
                for data in consumer.subscription_data_set.iter().flatten() {
                    if data
                        .expression_type
                        .as_deref()
                        .is_some_and(|kind| kind != "TAG" && !kind.is_empty())
                    {
                        continue;
                    }
                    let subscription = data.read();
                    let held = group.subscriptions.get(&data.topic);
                    if held.is_none_or(|held| held.version < subscription.version) {
                        differs |= held.is_none_or(|held| held.tags != subscription.tags);
                        group.subscriptions.insert(data.topic.clone(), subscription);
                    }
                }
                if differs {
                    changed.insert(name);
                }
            }
        }
        changed.iter().for_each(|group| self.notify_group(group));
        Ok(())
    }
}

fn notify_all(told: Vec<(String, Vec<Arc<Connection>>)>) {
    told.into_iter().for_each(|(group, members)| notify(&group, members));
}

fn notify(group: &str, members: Vec<Arc<Connection>>) {
    let fields: Fields = [("consumerGroup", group)].into_iter().collect();
    let command = Command::request(request::NOTIFY_CONSUMER_IDS_CHANGED, 0, fields).oneway();
    let chunks = command.encode();
    members.iter().for_each(|member| member.tell(chunks.clone()));
}

impl LogBroker {
    pub(super) async fn heartbeat(
        &self,
        connection: &Arc<Connection>,
        command: &Command,
    ) -> Result<Reply, Failure> {
        let beat: Heartbeat = command.json_body()?;
        if beat.client_id.is_empty() {
            return Err(Failure::refused(response::SYSTEM_ERROR, "a heartbeat without clientID"));
        }
        self.clients.heard(connection, command.head.speaker, beat)?;
        Ok(Reply::done())
    }

    /// A client's connection leaves a group, as RocketMQ's `unregisterChannel` has it.
    pub(super) fn unregister(
        &self,
        connection: &Connection,
        command: &Command,
    ) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let client = fields.text("clientID")?;
        if let Some(group) = fields.get("consumerGroup") {
            let left = {
                let mut known = self.clients.known();
                let number = connection.number;
                let heard = known.clients.get_mut(client).and_then(|it| it.get_mut(&number));
                if let Some(heard) = heard {
                    heard.groups.remove(group);
                }
                known.leave(client, number, group)
            };
            notify(group, left);
        }
        Ok(Reply::done())
    }

    pub(super) fn consumer_list(&self, command: &Command) -> Result<Reply, Failure> {
        let group = command.head.fields.text("consumerGroup")?;
        let known = self.clients.known();
        let members = known.groups.get(group).map(|found| found.members.keys());
        let Some(members) = members else {
            let remark = format!("no consumer for this group, {group}");
            return Err(Failure::refused(response::SYSTEM_ERROR, remark));
        };
        let body = serde_json::json!({ "consumerIdList": members.collect::<Vec<_>>() });
        Ok(Reply::done().with_body(body.to_string()))
    }

    /// TAG is served; SQL is not, and the client is told before it subscribes.
    pub(super) fn check_client_config(command: &Command) -> Result<Reply, Failure> {
        let body: Value = command.json_body()?;
        let kind = body.pointer("/subscriptionData/expressionType").and_then(Value::as_str);
        match kind {
            None | Some("" | "TAG") => Ok(Reply::done()),
            Some(kind) => {
                let remark =
                    format!("The broker does not support consumer to filter message by {kind}");
                Err(Failure::refused(response::SYSTEM_ERROR, remark))
            }
        }
    }

    /// A group's retry topic has appeared: its members are told, or they would find out 20 s later.
    pub(super) fn notify_retry(&self, topic: &str) {
        if let Some(group) = group_of_retry(topic) {
            debug_assert_eq!(retry_topic(group), topic);
            self.clients.notify_group(group);
        }
    }
}

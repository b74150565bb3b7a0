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
use crate::broker::remoting::{Command, Fields, Reply};

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

/// A number, whether it is written as one or as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// What a group wants of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) version: i64,
    /// Hashes of the tags that are wanted; empty for all.
    pub(super) tags: BTreeSet<i32>,
}

impl SubscriptionData {
    fn read(&self) -> Subscription {
        let codes = self.code_set.iter().flatten().filter_map(number);
        let mut tags: BTreeSet<i32> = codes.filter_map(|code| i32::try_from(code).ok()).collect();
        if tags.is_empty() {
            tags = tags_of(self.sub_string.as_deref().unwrap_or("*"));
        }
        Subscription { version: number(&self.sub_version).unwrap_or(0), tags }
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
#[derive(Default)]
struct Group {
    members: BTreeMap<String, Arc<Connection>>,
    subscriptions: BTreeMap<String, Subscription>,
}

struct Client {
    connection: u64,
    seen: Instant,
    groups: BTreeSet<String>,
}

#[derive(Default)]
struct Known {
    clients: BTreeMap<String, Client>,
    groups: BTreeMap<String, Group>,
}

impl Known {
    /// Takes a client out of a group; returns those to be told.
    fn leave(&mut self, client: &str, group: &str) -> Vec<Arc<Connection>> {
        let Some(found) = self.groups.get_mut(group) else { return Vec::new() };
        if found.members.remove(client).is_none() {
            return Vec::new();
        }
        let left = found.members.values().cloned().collect();
        if found.members.is_empty() {
            self.groups.remove(group);
        }
        left
    }

    /// Forgets clients; returns whom to tell of which group.
    fn forget(&mut self, gone: Vec<String>) -> Vec<(String, Vec<Arc<Connection>>)> {
        let mut told = Vec::new();
        for id in gone {
            let Some(client) = self.clients.remove(&id) else { continue };
            for group in client.groups {
                let members = self.leave(&id, &group);
                told.push((group, members));
            }
        }
        told
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
            let of_it = known.clients.iter().filter(|(_, client)| client.connection == connection);
            let gone = of_it.map(|(id, _)| id.clone()).collect();
            known.forget(gone)
        };
        notify_all(told);
    }

    /// Forgets those that have been silent for too long.
    pub(super) fn forget_silent(&self) {
        let now = Instant::now();
        let told = {
            let mut known = self.known();
            let silent = |client: &Client| now.duration_since(client.seen) > SILENCE_MAX;
            let gone = known.clients.iter().filter(|(_, client)| silent(client));
            let gone = gone.map(|(id, _)| id.clone()).collect();
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
        let members =
            self.known().groups.get(group).map(|found| found.members.values().cloned().collect());
        notify(group, members.unwrap_or_default());
    }

    fn heard(&self, connection: &Arc<Connection>, beat: Heartbeat) -> Result<(), Failure> {
        let mut changed = BTreeSet::new();
        {
            let mut known = self.known();
            let new = !known.clients.contains_key(&beat.client_id);
            if new && known.clients.len() >= CLIENTS_MAX {
                let remark = format!("{CLIENTS_MAX} clients are connected, which is the most");
                return Err(Failure::refused(response::SYSTEM_ERROR, remark));
            }
            let client = known.clients.entry(beat.client_id.clone()).or_insert_with(|| Client {
                connection: connection.number,
                seen: Instant::now(),
                groups: BTreeSet::new(),
            });
            client.connection = connection.number;
            client.seen = Instant::now();
            for consumer in beat.consumer_data_set.into_iter().flatten().take(GROUPS_MAX) {
                check_group(&consumer.group_name)?;
                let name = consumer.group_name;
                if let Some(client) = known.clients.get_mut(&beat.client_id) {
                    client.groups.insert(name.clone());
                }
                let group = known.groups.entry(name.clone()).or_default();
                let before = group.members.insert(beat.client_id.clone(), Arc::clone(connection));
                let mut differs = before.is_none();
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
        let beat: Heartbeat = serde_json::from_slice(&command.body)?;
        if beat.client_id.is_empty() {
            return Err(Failure::refused(response::SYSTEM_ERROR, "a heartbeat without clientID"));
        }
        self.clients.heard(connection, beat)?;
        Ok(Reply::done())
    }

    pub(super) fn unregister(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let client = fields.text("clientID")?;
        if let Some(group) = fields.get("consumerGroup") {
            let left = {
                let mut known = self.clients.known();
                if let Some(known) = known.clients.get_mut(client) {
                    known.groups.remove(group);
                }
                known.leave(client, group)
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
        let body: Value = serde_json::from_slice(&command.body)?;
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

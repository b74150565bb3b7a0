//! Producers and consumers that are connected: what heartbeats say, and who is told of changes.

mod heartbeat;
mod known_clients;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use heartbeat::{Heartbeat, check_client, check_expression, tags_of};
use heartbeat::{Kind, Subscription};
use known_clients::{Group, Known};

use crate::net::Connection;
use crate::remoting::codes::request;
use crate::remoting::{Command, Fields, Speaker};
use crate::request::{Failure, LOOKED_AT_MAX, Look, behind, group_of_retry, retry_topic};

/// A client that was silent for so long is gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(120);

/// The clients of one broker. Not in the log: they say again what they are every 30 s, and to a new leader.
#[derive(Default)]
pub(crate) struct Clients {
    known: Mutex<Known>,
}

impl Clients {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everyone: another node leads.
    pub(crate) fn forget_all(&self) {
        *self.known() = Known::default();
    }

    /// Takes in what a client says that it is, if all of it is within the limits.
    ///
    /// # Errors
    /// It is over one.
    pub(crate) fn hear(
        &self,
        connection: &Arc<Connection>,
        speaker: Speaker,
        beat: Heartbeat,
    ) -> Result<(), Failure> {
        let mut changed = BTreeSet::new();
        let heard = self.known().hear(connection, speaker, beat, &mut changed);
        changed.iter().for_each(|group| self.notify_group(group));
        heard
    }

    /// A client's connection leaves a group.
    pub(crate) fn leave(&self, client: &str, connection: u64, group: &str) {
        let left = self.known().unregister(client, connection, group);
        if left {
            self.notify_group(group);
        }
    }

    /// A connection has ended.
    pub(crate) fn disconnected(&self, connection: u64) {
        let told = self.known().forget_connection(connection);
        told.iter().for_each(|group| self.notify_group(group));
    }

    /// Forgets those that have been silent for too long.
    pub(crate) fn forget_silent(&self) {
        // The clock has not run for so long if there is no such time.
        let Some(since) = Instant::now().checked_sub(SILENCE_MAX) else { return };
        let told = self.known().forget_unheard(since);
        told.iter().for_each(|group| self.notify_group(group));
    }

    /// What a group has said that it wants of a topic.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Subscription> {
        self.known().groups.get(group)?.subscriptions.get(topic).cloned()
    }

    /// The topics that a group with members wants.
    pub(crate) fn subscribed(&self, group: &str) -> Option<BTreeSet<String>> {
        self.known().groups.get(group).map(|group| group.subscriptions.keys().cloned().collect())
    }

    /// Some of what a group with members wants: of the first topics behind `after`.
    pub(crate) fn subscriptions(
        &self,
        group: &str,
        after: Option<&str>,
        count: usize,
    ) -> Vec<(String, Subscription)> {
        let known = self.known();
        let Some(group) = known.groups.get(group) else { return Vec::new() };
        let topics = group.subscriptions.range::<str, _>(behind(after)).take(count);
        topics.map(|(topic, held)| (topic.clone(), held.clone())).collect()
    }

    /// A group's members with their connections.
    pub(crate) fn connections<'a>(&'a self, group: &'a str) -> MemberConnections<'a> {
        MemberConnections { clients: self, group, after: None }
    }

    /// Some of a group's members with their connections: the first behind a member's connection of this number.
    fn some_connections(
        &self,
        group: &str,
        after: Option<&(String, u64)>,
        count: usize,
    ) -> Vec<MemberConnection> {
        let known = self.known();
        let Some(group) = known.groups.get(group) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, |(id, _)| Bound::Included(id.as_str()));
        let members = group.members.range::<str, _>((from, Bound::Unbounded));
        let connections = members.flat_map(|(id, member)| {
            let behind = after.filter(|(last, _)| last == id).map(|(_, number)| *number);
            let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
            let connections = member.connections.range((from, Bound::Unbounded));
            connections.map(move |(number, connection)| MemberConnection {
                at: (id.clone(), *number),
                connection: Arc::clone(connection),
                speaker: member.speaker,
            })
        });
        connections.take(count).collect()
    }

    /// Tells a group's members to share its queues out anew.
    pub(crate) fn notify_group(&self, group: &str) {
        let members = self.known().groups.get(group).map(Group::connections);
        notify(group, &members.unwrap_or_default());
    }

    /// A group's retry topic has appeared: its members are told, or they would find out 20 s later.
    pub(crate) fn notify_retry(&self, topic: &str) {
        if let Some(group) = group_of_retry(topic) {
            debug_assert_eq!(retry_topic(group), topic);
            self.notify_group(group);
        }
    }

    /// How a group that has members consumes.
    pub(crate) fn kind(&self, group: &str) -> Option<Kind> {
        self.known().groups.get(group).map(|group| group.kind)
    }

    /// True for a group that has members.
    pub(crate) fn has_group(&self, name: &str) -> bool {
        self.known().groups.contains_key(name)
    }

    /// Looks at groups that have members. Those are wanted that have subscribed to a topic, if one is given.
    pub(crate) fn look_at_groups(&self, topic: Option<&str>, after: Option<&str>, look: &mut Look) {
        let known = self.known();
        let wanted = |group: &Group| topic.is_none_or(|it| group.subscriptions.contains_key(it));
        let groups = known.groups.range::<str, _>(behind(after));
        look.at(groups.map(|(name, group)| (name.as_str(), wanted(group))));
    }

    /// Looks at a group's members.
    pub(crate) fn look_at_members(&self, group: &str, after: Option<&str>, look: &mut Look) {
        let known = self.known();
        let Some(group) = known.groups.get(group) else { return };
        look.at(group.members.range::<str, _>(behind(after)).map(|(id, _)| (id.as_str(), true)));
    }
}

/// Connections of a group's members, some in each turn. One that comes or goes meanwhile may be among them or not.
pub(crate) struct MemberConnections<'a> {
    clients: &'a Clients,
    group: &'a str,
    after: Option<(String, u64)>,
}

impl MemberConnections<'_> {
    /// More of them; none at the end. Others have their turn in between.
    pub(crate) async fn more(&mut self) -> Option<Vec<MemberConnection>> {
        if self.after.is_some() {
            tokio::task::yield_now().await;
        }
        let after = self.after.as_ref();
        let some = self.clients.some_connections(self.group, after, LOOKED_AT_MAX);
        self.after = Some(some.last()?.at.clone());
        Some(some)
    }
}

/// A connection of a group's member.
pub(crate) struct MemberConnection {
    /// The member's id, and the connection's number.
    pub(crate) at: (String, u64),
    pub(crate) connection: Arc<Connection>,
    pub(crate) speaker: Speaker,
}

fn notify(group: &str, members: &[Arc<Connection>]) {
    let fields: Fields = [("consumerGroup", group)].into_iter().collect();
    let command = Command::request(request::NOTIFY_CONSUMER_IDS_CHANGED, 0, fields).oneway();
    let chunks = command.encode();
    members.iter().for_each(|member| member.tell(chunks.clone()));
}

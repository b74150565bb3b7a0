//! The clients that a broker has heard of, and the groups that they are in. All of it has limits, together and for each
//! connection, client and group: a heartbeat that is over one is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::heartbeat::{ConsumerData, Heartbeat, Kind, Subscription, cost_of};
use crate::limits::{
    CLIENTS_BYTES_MAX, CLIENTS_MAX, CLIENTS_OF_CONNECTION_MAX, CONNECTION_CLIENTS_BYTES_MAX,
    GROUPS_OF_CLIENT_MAX, MEMBERS_OF_GROUP_MAX, SUBSCRIPTIONS_OF_GROUP_MAX,
};
use crate::mutant::Mutant;
use crate::net::Connection;
use crate::remoting::Speaker;
use crate::remoting::codes::response;
use crate::request::Failure;

/// About the memory that each of these takes, beside its names: a map has room for eleven from its first one on.
const CLIENT_COST: usize = 1024;
const MEMBER_COST: usize = 512;
const GROUP_COST: usize = 2048;
/// What one connection may bring although others have brought most of what there is room for.
const SMALL: usize = 64 << 10;

/// A consumer group's members and subscriptions.
#[derive(Default)]
pub(crate) struct Group {
    /// The connection that brought it first, by its number.
    brought_by: u64,
    pub(crate) kind: Kind,
    /// By the client's id.
    pub(crate) members: BTreeMap<String, GroupMember>,
    /// By topic.
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    /// The connections of all members by their numbers, each with how many members it speaks for.
    connections: BTreeMap<u64, (Arc<Connection>, usize)>,
}

/// A client in a group.
pub(crate) struct GroupMember {
    /// Those that said so, by their numbers: at least one.
    pub(crate) connections: BTreeMap<u64, Arc<Connection>>,
    pub(crate) speaker: Speaker,
}

impl Group {
    /// The connections of all members, each once.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.values().map(|(connection, _)| Arc::clone(connection)).collect()
    }

    /// Takes a connection of a client in; true if the client is new.
    fn enter(&mut self, id: &str, connection: &Arc<Connection>, speaker: Speaker) -> bool {
        let is_new = !self.members.contains_key(id);
        let member = GroupMember { connections: BTreeMap::new(), speaker };
        let member = self.members.entry(id.to_owned()).or_insert(member);
        member.speaker = speaker;
        let number = connection.number;
        if member.connections.insert(number, Arc::clone(connection)).is_none() {
            let held = self.connections.entry(number);
            held.or_insert_with(|| (Arc::clone(connection), 0)).1 += 1;
        }
        is_new
    }

    /// Takes a connection of a client out, and the client with its last one; true if the client has left.
    fn leave(&mut self, id: &str, connection: u64) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        let mut gone = vec![connection];
        if Mutant::MemberLeavesWithAnyConnection.is_active() {
            gone = member.connections.keys().copied().collect();
        }
        for number in gone {
            if member.connections.remove(&number).is_some()
                && let Some((_, members)) = self.connections.get_mut(&number)
            {
                *members -= 1;
                if *members == 0 {
                    self.connections.remove(&number);
                }
            }
        }
        let left = member.connections.is_empty();
        if left {
            self.members.remove(id);
        }
        left
    }

    /// Takes over what a connection says that the group subscribes to; true if that is more than before.
    fn subscribe(
        &mut self,
        connection: u64,
        consumer: &ConsumerData,
        memory: &mut Memory,
    ) -> Result<bool, Failure> {
        let mut differs = false;
        for data in consumer.subscriptions() {
            let held = self.subscriptions.get(&data.topic);
            if held.is_some_and(|held| held.version >= data.version()) {
                continue;
            }
            if held.is_none() && self.subscriptions.len() >= SUBSCRIPTIONS_OF_GROUP_MAX {
                return Err(full("subscriptions of a group", SUBSCRIPTIONS_OF_GROUP_MAX));
            }
            let subscription = data.read(connection);
            memory.take(connection, cost_of(&data.topic, &subscription))?;
            if let Some(held) = held {
                memory.give_back(held.brought_by, cost_of(&data.topic, held));
            }
            differs |= held.is_none_or(|held| held.tags != subscription.tags);
            self.subscriptions.insert(data.topic.clone(), subscription);
        }
        Ok(differs)
    }
}

/// Memory that clients, groups and subscriptions take.
struct Memory {
    /// Bytes that are left.
    left: usize,
    /// What each connection has brought of what there is, by its number.
    brought: BTreeMap<u64, usize>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { left: CLIENTS_BYTES_MAX, brought: BTreeMap::new() }
    }
}

impl Memory {
    /// Takes so many bytes for what a connection brings.
    fn take(&mut self, connection: u64, bytes: usize) -> Result<(), Failure> {
        let brought = self.brought.get(&connection).copied().unwrap_or(0) + bytes;
        if brought > CONNECTION_CLIENTS_BYTES_MAX && !Mutant::ConnectionSpeaksForAll.is_active() {
            let limit = CONNECTION_CLIENTS_BYTES_MAX;
            return Err(full("bytes of memory for the clients of one connection", limit));
        }
        // The rest is for those that bring little.
        let is_large = brought > SMALL && !Mutant::LargeClientsTakeAll.is_active();
        let kept = if is_large { CLIENTS_BYTES_MAX / 4 } else { 0 };
        let left = self.left.checked_sub(bytes).filter(|left| *left >= kept);
        self.left = left.ok_or_else(|| full("bytes of memory for clients", CLIENTS_BYTES_MAX))?;
        self.brought.insert(connection, brought);
        Ok(())
    }

    /// Gives back what a connection brought.
    fn give_back(&mut self, connection: u64, bytes: usize) {
        self.left += bytes;
        // A connection that has ended counts no more.
        if let Some(brought) = self.brought.get_mut(&connection) {
            *brought -= bytes;
        }
    }
}

/// What one connection of a client has said. A client may have several, as when it has begun another one before the end of
/// the last is noticed, or when two have the same id.
pub(crate) struct Heard {
    pub(crate) seen: Instant,
    groups: BTreeSet<String>,
}

/// A client's connections, by their numbers.
type Client = BTreeMap<u64, Heard>;

/// Clients and groups.
#[derive(Default)]
pub(crate) struct Known {
    clients: BTreeMap<String, Client>,
    pub(crate) groups: BTreeMap<String, Group>,
    /// The ids of the clients that each connection speaks for, by its number.
    spoken_for: BTreeMap<u64, BTreeSet<String>>,
    /// Connections of clients.
    heard: usize,
    memory: Memory,
}

fn full(what: &str, limit: usize) -> Failure {
    Failure::refused(response::SYSTEM_ERROR, format!("{limit} {what}, which is the most"))
}

impl Known {
    /// Takes over what a connection says. Groups that are not the same as before go to `changed`.
    ///
    /// # Errors
    /// There is no room for the client, or for one of its groups. Those before it are taken over.
    pub(crate) fn hear(
        &mut self,
        connection: &Arc<Connection>,
        speaker: Speaker,
        beat: Heartbeat,
        changed: &mut BTreeSet<String>,
    ) -> Result<(), Failure> {
        let (id, number) = (beat.client_id.clone(), connection.number);
        let is_new = self.clients.get(&id).is_none_or(|client| !client.contains_key(&number));
        if is_new && self.heard >= CLIENTS_MAX {
            return Err(full("clients are connected", CLIENTS_MAX));
        }
        if is_new {
            let spoken_for = self.spoken_for.get(&number).map_or(0, BTreeSet::len);
            if spoken_for >= CLIENTS_OF_CONNECTION_MAX
                && !Mutant::ConnectionSpeaksForAll.is_active()
            {
                return Err(full("clients speak on one connection", CLIENTS_OF_CONNECTION_MAX));
            }
            self.memory.take(number, CLIENT_COST + 2 * id.len())?;
            self.spoken_for.entry(number).or_default().insert(id.clone());
            self.heard += 1;
        }
        let new = Heard { seen: Instant::now(), groups: BTreeSet::new() };
        let heard = self.clients.entry(id.clone()).or_default().entry(number).or_insert(new);
        heard.seen = Instant::now();
        for consumer in beat.groups() {
            self.join(connection, speaker, &id, &consumer, changed)?;
        }
        Ok(())
    }

    /// Takes a client into a group.
    fn join(
        &mut self,
        connection: &Arc<Connection>,
        speaker: Speaker,
        id: &str,
        consumer: &ConsumerData,
        changed: &mut BTreeSet<String>,
    ) -> Result<(), Failure> {
        let (number, name) = (connection.number, consumer.group_name.as_str());
        let client = self.clients.get_mut(id).and_then(|client| client.get_mut(&number));
        let Some(heard) = client else { return Ok(()) };
        let is_new = !heard.groups.contains(name);
        if is_new && heard.groups.len() >= GROUPS_OF_CLIENT_MAX {
            return Err(full("groups of one client", GROUPS_OF_CLIENT_MAX));
        }
        let group = self.groups.get(name);
        let is_member = group.is_some_and(|group| group.members.contains_key(id));
        if !is_member && group.is_some_and(|group| group.members.len() >= MEMBERS_OF_GROUP_MAX) {
            return Err(full("clients of a group", MEMBERS_OF_GROUP_MAX));
        }
        let mut cost = if is_new { MEMBER_COST + id.len() + name.len() } else { 0 };
        cost += if group.is_none() { GROUP_COST + name.len() } else { 0 };
        self.memory.take(number, cost)?;
        heard.groups.insert(name.to_owned());
        let new = Group { brought_by: number, ..Group::default() };
        let group = self.groups.entry(name.to_owned()).or_insert(new);
        group.kind = consumer.kind();
        if group.enter(id, connection, speaker) {
            changed.insert(name.to_owned());
        }
        if group.subscribe(number, consumer, &mut self.memory)? {
            changed.insert(name.to_owned());
        }
        Ok(())
    }

    /// Takes a client's connection out of a group, and the client with its last one; true if the client has left.
    fn leave(&mut self, client: &str, connection: u64, group: &str) -> bool {
        let Some(found) = self.groups.get_mut(group) else { return false };
        let left = found.leave(client, connection);
        if found.members.is_empty() {
            self.memory.give_back(found.brought_by, GROUP_COST + group.len());
            for (topic, held) in &found.subscriptions {
                self.memory.give_back(held.brought_by, cost_of(topic, held));
            }
            self.groups.remove(group);
        }
        left
    }

    /// A client's connection says that it leaves a group; true if the client has left.
    pub(crate) fn unregister(&mut self, client: &str, connection: u64, group: &str) -> bool {
        let heard = self.clients.get_mut(client).and_then(|it| it.get_mut(&connection));
        if heard.is_some_and(|heard| heard.groups.remove(group)) {
            self.memory.give_back(connection, MEMBER_COST + client.len() + group.len());
        }
        self.leave(client, connection, group)
    }

    /// Forgets a connection that has ended; returns the groups to notify.
    pub(crate) fn forget_connection(&mut self, connection: u64) -> BTreeSet<String> {
        let clients = self.spoken_for.get(&connection).cloned().unwrap_or_default();
        let told = self.forget(clients.into_iter().map(|client| (client, connection)));
        self.memory.brought.remove(&connection);
        told
    }

    /// Forgets what connections have said of clients if it was not said again since; returns the groups to notify.
    pub(crate) fn forget_unheard(&mut self, since: Instant) -> BTreeSet<String> {
        let all = self.clients.iter().flat_map(|(id, client)| {
            let unheard = client.iter().filter(|(_, heard)| heard.seen < since);
            unheard.map(|(connection, _)| (id.clone(), *connection))
        });
        let gone: Vec<_> = all.collect();
        self.forget(gone)
    }

    fn forget(&mut self, gone: impl IntoIterator<Item = (String, u64)>) -> BTreeSet<String> {
        let mut told = BTreeSet::new();
        for (id, connection) in gone {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let Some(heard) = client.remove(&connection) else { continue };
            if client.is_empty() {
                self.clients.remove(&id);
            }
            if let Some(clients) = self.spoken_for.get_mut(&connection) {
                clients.remove(&id);
                if clients.is_empty() {
                    self.spoken_for.remove(&connection);
                }
            }
            self.heard -= 1;
            self.memory.give_back(connection, CLIENT_COST + 2 * id.len());
            for group in heard.groups {
                self.memory.give_back(connection, MEMBER_COST + id.len() + group.len());
                if self.leave(&id, connection, &group) {
                    told.insert(group);
                }
            }
        }
        told
    }
}

#[cfg(test)]
mod tests;

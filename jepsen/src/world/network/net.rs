//! The network's state, and how it moves from one moment to the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::ErrorKind;
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::{Random, Trace};
use super::bus::Flight;
use super::connection::{Connection, ConnectionId, Packet, Side, What};
use super::hosts::{HostId, Hosts, State};
use super::link::Links;
use super::{NetworkConfig, NetworkCounters, frames};

/// What happens at some time. Events of one time happen in the order in which they were made.
#[derive(Debug)]
pub(super) enum Event {
    /// The first packet that this end has sent is due.
    Arrive(ConnectionId, Side),
    /// A frame arrives on its own.
    Land(Box<Flight>),
    /// The dialer's wish arrives.
    Ask(ConnectionId),
    /// The acceptor's agreement arrives.
    Agree(ConnectionId),
    /// The news that nobody listens arrives.
    Refuse(ConnectionId),
    /// Is the first packet of this end stuck?
    Watch(ConnectionId, Side),
}

#[derive(Debug)]
struct Due {
    at: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Wakers to be called, and others to be dropped, once the lock is free.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    pub(super) due: Vec<Waker>,
    pub(super) old: Vec<Waker>,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) config: NetworkConfig,
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) hosts: Hosts,
    pub(super) links: Links,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) next_connection: ConnectionId,
    /// Frames on their own way.
    pub(super) flying: usize,
    pub(super) moved: u64,
    pub(super) counters: NetworkCounters,
    pub(super) wakes: Wakes,
    events: BinaryHeap<Reverse<Due>>,
    next_event: u64,
}

impl Net {
    pub(super) fn new(config: NetworkConfig, random: Random, trace: Trace) -> Self {
        Self {
            links: Links::new(config.latency),
            config,
            now: Duration::ZERO,
            random,
            trace,
            hosts: Hosts::default(),
            connections: BTreeMap::new(),
            next_connection: 1,
            flying: 0,
            moved: 0,
            counters: NetworkCounters::default(),
            wakes: Wakes::default(),
            events: BinaryHeap::new(),
            next_event: 0,
        }
    }

    pub(super) fn schedule(&mut self, at: Duration, event: Event) {
        self.events.push(Reverse(Due { at, number: self.next_event, event }));
        self.next_event += 1;
    }

    /// Moves what is due by `now`.
    pub(super) fn advance(&mut self, now: Duration) {
        self.now = now;
        while self.events.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.events.pop() else { break };
            match due.event {
                Event::Arrive(id, side) => self.arrive(id, side),
                Event::Land(flight) => self.land(*flight),
                Event::Ask(id) => self.ask(id),
                Event::Agree(id) => self.agree(id),
                Event::Refuse(id) => self.fail(id, ErrorKind::ConnectionRefused),
                Event::Watch(id, side) => self.watch(id, side),
            }
        }
    }

    /// When something small that leaves now arrives.
    pub(super) fn arrival(&mut self, from: HostId, to: HostId, bytes: usize) -> Duration {
        let link = self.links.get(from, to);
        let (at, slowed) = link.arrival(self.now, bytes, &mut self.random);
        self.counters.slowed += u64::from(slowed);
        at
    }

    /// Nothing gets from one to the other.
    pub(super) fn is_dark(&self, from: HostId, to: HostId) -> bool {
        self.links.is_cut(from, to) || self.hosts.get(to).state == State::Off
    }

    /// Puts something behind all that this end has sent.
    pub(super) fn send(&mut self, id: ConnectionId, side: Side, what: What) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.from(side), connection.to(side));
        let bytes = if let What::Data(bytes) = &what { bytes.len() } else { 0 };
        let arrives = self.arrival(from, to, bytes);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let outbox = &mut connection.ends[side].outbox;
        let arrives = arrives.max(outbox.last_arrival);
        outbox.last_arrival = arrives;
        outbox.packets.push_back(Packet { sent: self.now, arrives, what });
        let first = !std::mem::replace(&mut outbox.scheduled, true);
        if first {
            self.schedule(arrives, Event::Arrive(id, side));
        }
    }

    fn arrive(&mut self, id: ConnectionId, side: Side) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let (from, to) = (connection.from(side), connection.to(side));
            connection.ends[side].outbox.scheduled = false;
            let Some(first) = connection.ends[side].outbox.packets.front() else { break };
            if self.links.is_cut(from, to) || self.hosts.get(to).state == State::Off {
                self.counters.held += 1;
                return self.keep_watch(id, side);
            }
            if first.arrives > self.now {
                let at = first.arrives;
                connection.ends[side].outbox.scheduled = true;
                return self.schedule(at, Event::Arrive(id, side));
            }
            let Some(packet) = connection.ends[side].outbox.packets.pop_front() else { break };
            self.deliver(id, side, packet.what);
        }
        if self.connections.get(&id).is_some_and(Connection::is_over) {
            self.connections.remove(&id);
        }
    }

    fn deliver(&mut self, id: ConnectionId, side: Side, what: What) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[1 - side];
        match what {
            What::Data(_) if !end.held || end.error.is_some() => {
                // Nobody is there to read it.
                connection.ends[side].outbox.packets.clear();
                if end_can_hear(connection, side) {
                    self.send_reset(id, 1 - side);
                }
            }
            What::Data(bytes) => self.receive(id, side, bytes),
            What::End => {
                end.inbox.ended = true;
                self.wakes.due.extend(end.reader.take());
            }
            What::Reset => self.break_end(id, 1 - side, ErrorKind::ConnectionReset),
        }
    }

    /// Bytes that `side` has sent are there.
    pub(super) fn receive(&mut self, id: ConnectionId, side: Side, bytes: Bytes) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.from(side), connection.to(side));
        let probability = self.links.get(from, to).corruption;
        let bytes = self.corrupted(bytes, probability);
        self.counters.delivered += 1;
        self.counters.bytes += bytes.len() as u64;
        let (name, sender) = (&self.hosts.get(to).name, &self.hosts.get(from).name);
        let (crc, size) = (crc32fast::hash(&bytes), bytes.len());
        let words = frames::describe(&bytes).unwrap_or_default();
        self.trace.line(name, format_args!("from {sender} ({id}) {size} bytes {crc:08x} {words}"));
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[1 - side];
        end.inbox.pieces.push_back(bytes);
        end.inbox.begun = true;
        self.wakes.due.extend(end.reader.take());
    }

    fn corrupted(&mut self, bytes: Bytes, probability: f64) -> Bytes {
        if bytes.is_empty() || !self.random.chance(probability) {
            return bytes;
        }
        self.counters.corrupted += 1;
        let mut bytes = BytesMut::from(&bytes[..]);
        let at = self.random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.random.below(8);
        bytes.freeze()
    }

    /// Sees to it that bytes that wait at a cut do not wait for ever.
    pub(super) fn keep_watch(&mut self, id: ConnectionId, side: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let outbox = &mut connection.ends[side].outbox;
        if !std::mem::replace(&mut outbox.watched, true) {
            self.schedule(self.now + self.config.give_up, Event::Watch(id, side));
        }
    }

    fn watch(&mut self, id: ConnectionId, side: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.from(side), connection.to(side));
        let outbox = &mut connection.ends[side].outbox;
        outbox.watched = false;
        let Some(first) = outbox.packets.front() else { return };
        let patient_until = first.sent + self.config.give_up;
        if !self.is_dark(from, to) {
            return;
        }
        if self.now < patient_until {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.ends[side].outbox.watched = true;
            }
            return self.schedule(patient_until, Event::Watch(id, side));
        }
        self.counters.given_up += 1;
        self.break_end(id, side, ErrorKind::TimedOut);
        // The other end learns it if the link is healed.
        if let Some(connection) = self.connections.get_mut(&id) {
            let packet = Packet { sent: self.now, arrives: self.now, what: What::Reset };
            connection.ends[side].outbox.packets.push_back(packet);
        }
    }
}

/// True if a reset could still tell this end something.
fn end_can_hear(connection: &Connection, side: Side) -> bool {
    let end = &connection.ends[side];
    let told = connection.ends[1 - side].outbox.packets.iter();
    end.held
        && end.error.is_none()
        && !told.into_iter().any(|packet| matches!(packet.what, What::Reset))
}

//! The bus: what happens to whole frames between nodes.

use bytes::Bytes;

use super::connection::{ACCEPTOR, ConnectionId, DIALER, Side, What};
use super::frames::{self, Freedom};
use super::net::{Event, Net};

/// Frames that may be on their own way at once; any more keep their order.
const FLYING_MAX: usize = 4096;

/// A frame on its own way: it keeps no order, and may outlive its connection.
#[derive(Debug)]
pub(super) struct Flight {
    connection: ConnectionId,
    side: Side,
    /// Where it can go if its connection is gone.
    hosts: [super::hosts::HostId; 2],
    port: u16,
    frame: Bytes,
    /// It is meant to come very late.
    late: bool,
}

impl Net {
    /// A whole frame leaves `side`.
    pub(super) fn dispatch(&mut self, id: ConnectionId, side: Side, frame: Bytes) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if side == ACCEPTOR && frames::answers_moved(&frame) {
            // Its requester is gone with the connection that it waited on.
            return;
        }
        let (from, to) = (connection.from(side), connection.to(side));
        let freedom = frames::freedom(&frame);
        if freedom == Freedom::None {
            connection.ends[side].outbox.unacked += frame.len();
            return self.send(id, side, What::Data(frame));
        }
        let faults = self.links.get(from, to).bus;
        let sure = freedom == Freedom::Again;
        if !sure && self.is_dark(from, to) {
            self.counters.cut_off += 1;
            return;
        }
        if !sure && self.random.chance(faults.drop) {
            self.counters.dropped += 1;
            return self.say(id, side, &frame, "drops");
        }
        if freedom != Freedom::Once && self.random.chance(faults.duplicate) {
            self.counters.duplicated += 1;
            self.say(id, side, &frame, "duplicates");
            let late = self.random.chance(0.25);
            self.fly(id, side, frame.clone(), late);
        }
        if !sure && self.flying < FLYING_MAX {
            if self.random.chance(faults.late) {
                self.say(id, side, &frame, "holds back");
                return self.fly(id, side, frame, true);
            }
            if self.random.chance(faults.reorder) {
                self.counters.reordered += 1;
                self.say(id, side, &frame, "reorders");
                return self.fly(id, side, frame, false);
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[side].outbox.unacked += frame.len();
        }
        self.send(id, side, What::Data(frame));
    }

    fn fly(&mut self, id: ConnectionId, side: Side, frame: Bytes, late: bool) {
        let Some(connection) = self.connections.get(&id) else { return };
        if self.flying >= FLYING_MAX {
            return;
        }
        let (hosts, port) = (connection.hosts, connection.port);
        let (from, to) = (connection.from(side), connection.to(side));
        let faults = self.links.get(from, to).bus;
        let delay = if late {
            self.random.time(faults.lateness.range())
        } else {
            self.random.time(std::time::Duration::ZERO..=faults.shuffle)
        };
        let at = self.arrival(from, to, frame.len()) + delay;
        self.flying += 1;
        let flight = Flight { connection: id, side, hosts, port, frame, late };
        self.schedule(at, Event::Land(Box::new(flight)));
    }

    pub(super) fn land(&mut self, flight: Flight) {
        self.flying -= 1;
        let Flight { connection: id, side, hosts, frame, late, .. } = flight;
        let (from, to) = (hosts[side], hosts[1 - side]);
        if self.is_dark(from, to) {
            self.counters.cut_off += 1;
            return;
        }
        if self.connections.get(&id).is_some_and(|connection| connection.is_in_use()) {
            self.counters.late += u64::from(late);
            return self.receive_uncounted(id, side, frame);
        }
        let later = self.connections.iter().rev().find(|(_, other)| {
            other.hosts == hosts && other.port == flight.port && other.is_in_use()
        });
        match later.map(|(later, _)| *later) {
            Some(later) if side == DIALER && frames::is_request(&frame) => {
                self.counters.zombies += 1;
                self.moved += 1;
                self.say(id, side, &frame, "revives");
                let frame = frames::moved(&frame, self.moved);
                self.receive_uncounted(later, side, frame);
            }
            _ => self.counters.expired += 1,
        }
    }

    /// Bytes that the sender's window did not count while they were under way.
    fn receive_uncounted(&mut self, id: ConnectionId, side: Side, frame: Bytes) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[side].outbox.unacked += frame.len();
            self.receive(id, side, frame);
        }
    }

    fn say(&mut self, id: ConnectionId, side: Side, frame: &[u8], verb: &str) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.from(side), connection.to(side));
        let words = frames::describe(frame).unwrap_or_default();
        let (from, to) = (&self.hosts.get(from).name, &self.hosts.get(to).name);
        self.trace.line("network", format_args!("{verb} {from} to {to} ({id}) {words}"));
    }
}

//! How connections and processes end.

use std::io::ErrorKind;
use std::time::Duration;

use super::connection::{ACCEPTOR, Connection, ConnectionId, DIALER, Phase, Side, What};
use super::hosts::{Death, State};
use super::net::Net;

impl Net {
    /// This end is broken: what it has sent and not read is lost.
    pub(super) fn break_end(&mut self, id: ConnectionId, side: Side, kind: ErrorKind) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[side];
        end.outbox.packets.clear();
        end.inbox.pieces.clear();
        if end.error.is_none() && end.held {
            end.error = Some(kind);
            self.counters.reset += 1;
            self.wakes.due.extend(end.reader.take());
            self.wakes.due.extend(end.writer.take());
            let name = &self.hosts.get(connection.from(side)).name;
            self.trace.line(name, format_args!("connection {id} broke: {kind}"));
        }
        if connection.is_over() {
            self.connections.remove(&id);
        }
    }

    /// Tells the other end that there is no more, overtaking what was sent and has not arrived.
    pub(super) fn send_reset(&mut self, id: ConnectionId, side: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ends[side].outbox.packets.clear();
        connection.ends[side].outbox.ended = true;
        connection.ends[side].outbox.last_arrival = Duration::ZERO;
        self.send(id, side, What::Reset);
    }

    /// The process lets go of its end.
    pub(super) fn let_go(&mut self, id: ConnectionId, side: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[side];
        if !end.held {
            return;
        }
        end.held = false;
        self.wakes.old.extend(end.reader.take());
        self.wakes.old.extend(end.writer.take());
        let unread = !end.inbox.pieces.is_empty();
        end.inbox.pieces.clear();
        let told = end.error.is_some() || end.outbox.ended;
        end.outbox.ended = true;
        match connection.phase {
            Phase::Open | Phase::Agreed { .. } if unread => self.send_reset(id, side),
            Phase::Open | Phase::Agreed { .. } if !told => self.send(id, side, What::End),
            _ => {}
        }
        if self.connections.get(&id).is_some_and(Connection::is_over) {
            self.connections.remove(&id);
        }
    }

    pub(super) fn host_up(&mut self, name: &str) {
        let id = self.hosts.id(name);
        let host = self.hosts.get_mut(id);
        let was_off = host.state == State::Off;
        host.state = State::Up;
        host.life += 1;
        host.listeners.clear();
        if was_off {
            // What is sent on to the old process finds that nobody knows the connection.
            self.move_held(id);
        }
    }

    pub(super) fn host_down(&mut self, name: &str, death: Death) {
        let id = self.hosts.known(name);
        let host = self.hosts.get_mut(id);
        let listeners = std::mem::take(&mut host.listeners);
        host.state = if death == Death::Power { State::Off } else { State::Dead };
        self.wakes.old.extend(listeners.into_values().filter_map(|listener| listener.acceptor));
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for connection in ids {
            for side in [DIALER, ACCEPTOR] {
                let held = self
                    .connections
                    .get(&connection)
                    .is_some_and(|found| found.from(side) == id && found.ends[side].held);
                if held {
                    self.die(connection, side, death);
                }
            }
        }
    }

    fn die(&mut self, id: ConnectionId, side: Side, death: Death) {
        let at_once = self.random.chance(0.5);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[side];
        end.held = false;
        end.inbox.pieces.clear();
        self.wakes.old.extend(end.reader.take());
        self.wakes.old.extend(end.writer.take());
        end.outbox.ended = true;
        let asking = matches!(connection.phase, Phase::Asking { .. } | Phase::Failed(_));
        if asking {
            self.connections.remove(&id);
            return;
        }
        match death {
            // What had left the machine may arrive; nothing follows.
            Death::Power if at_once => end.outbox.packets.clear(),
            Death::Power => {}
            // The system sends on what the process wrote, or not.
            Death::Process if at_once => self.send_reset(id, side),
            Death::Process => self.send(id, side, What::Reset),
        }
        if self.connections.get(&id).is_some_and(Connection::is_over) {
            self.connections.remove(&id);
        }
    }
}

//! How a connection comes about.

use std::io::ErrorKind;

use super::connection::{ACCEPTOR, Connection, ConnectionId, DIALER, Phase};
use super::hosts::HostId;
use super::net::{Event, Net};

/// Times that a connection is asked for before it is given up.
const TRIES_MAX: u32 = 6;

impl Net {
    pub(super) fn dial(&mut self, host: HostId, to: HostId, port: u16) -> ConnectionId {
        let id = self.next_connection;
        self.next_connection += 1;
        let mut connection = Connection {
            phase: Phase::Asking { tries: 0 },
            hosts: [host, to],
            port,
            ends: Default::default(),
        };
        connection.ends[DIALER].held = true;
        self.connections.insert(id, connection);
        let at = self.arrival(host, to, 0);
        self.schedule(at, Event::Ask(id));
        id
    }

    pub(super) fn ask(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Phase::Asking { tries } = connection.phase else { return };
        let ([from, to], port) = (connection.hosts, connection.port);
        if self.is_dark(from, to) {
            return self.ask_again(id, tries);
        }
        let backlog = self.config.backlog;
        let back_is_dark = self.is_dark(to, from);
        let listener = self.hosts.get_mut(to).listeners.get_mut(&port);
        match listener {
            Some(listener) if listener.backlog.len() < backlog => {
                listener.backlog.push_back(id);
                self.wakes.due.extend(listener.acceptor.take());
            }
            Some(_) => return self.ask_again(id, tries),
            None if back_is_dark => return self.ask_again(id, tries),
            None => {
                let at = self.arrival(to, from, 0);
                return self.schedule(at, Event::Refuse(id));
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Agreed { tries: 0 };
            connection.ends[ACCEPTOR].held = true;
        }
        let at = self.arrival(to, from, 0);
        self.schedule(at, Event::Agree(id));
    }

    fn ask_again(&mut self, id: ConnectionId, tries: u32) {
        if tries + 1 >= TRIES_MAX {
            return self.fail(id, ErrorKind::TimedOut);
        }
        self.counters.hung += u64::from(tries == 0);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.phase = Phase::Asking { tries: tries + 1 };
        let at = self.now + self.config.connect_retry * (1 << tries);
        self.schedule(at, Event::Ask(id));
    }

    pub(super) fn agree(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Phase::Agreed { tries } = connection.phase else { return };
        let [dialer, acceptor] = connection.hosts;
        if self.is_dark(acceptor, dialer) {
            if tries + 1 >= TRIES_MAX {
                return self.fail(id, ErrorKind::TimedOut);
            }
            self.counters.hung += u64::from(tries == 0);
            let at = self.now + self.config.connect_retry * (1 << tries);
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.phase = Phase::Agreed { tries: tries + 1 };
            }
            return self.schedule(at, Event::Agree(id));
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.phase = Phase::Open;
        self.wakes.due.extend(connection.ends[DIALER].writer.take());
        self.counters.connected += 1;
        let port = self.connections[&id].port;
        let (name, to) = (&self.hosts.get(dialer).name, &self.hosts.get(acceptor).name);
        self.trace.line(name, format_args!("connected to {to}:{port} (connection {id})"));
    }

    pub(super) fn fail(&mut self, id: ConnectionId, kind: ErrorKind) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.phase == Phase::Open {
            return;
        }
        connection.phase = Phase::Failed(kind);
        connection.ends[DIALER].error = Some(kind);
        self.wakes.due.extend(connection.ends[DIALER].writer.take());
        let [dialer, acceptor] = connection.hosts;
        self.counters.refused += u64::from(kind == ErrorKind::ConnectionRefused);
        let (name, to) = (&self.hosts.get(dialer).name, &self.hosts.get(acceptor).name);
        let port = connection.port;
        self.trace.line(name, format_args!("no connection to {to}:{port}: {kind}"));
        if connection.ends[ACCEPTOR].held {
            self.break_end(id, ACCEPTOR, ErrorKind::ConnectionReset);
        }
    }
}

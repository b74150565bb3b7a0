//! Hosts by name, the processes on them, and where those listen.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use super::connection::ConnectionId;

/// How the IP addresses of hosts begin: the first host is 10.0.0.1.
const IP_PREFIX: &str = "10.0.";

/// Number of a host, in the order of their first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) u32);

/// How a host's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process is gone and the system is there: its connections are reset, and others are refused.
    Process,
    /// The machine is off: nobody is told, and nothing answers until it starts again.
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Dead,
    Off,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    /// Counts processes.
    pub(super) life: u32,
    pub(super) state: State,
    pub(super) listeners: BTreeMap<u16, Listener>,
    pub(super) next_port: u16,
}

#[derive(Debug, Default)]
pub(super) struct Listener {
    /// It was bound to an IP address, and is told those of others.
    pub(super) by_ip: bool,
    pub(super) backlog: VecDeque<ConnectionId>,
    pub(super) acceptor: Option<Waker>,
}

/// All hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: Vec<Host>,
    by_name: BTreeMap<String, HostId>,
}

impl Hosts {
    /// The host of this name, made if it is new.
    pub(super) fn id(&mut self, name: &str) -> HostId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = HostId(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX));
        self.hosts.push(Host {
            name: name.to_owned(),
            life: 0,
            state: State::Dead,
            listeners: BTreeMap::new(),
            next_port: 32_768,
        });
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// The host of this name, or with this IP address.
    pub(super) fn find(&self, name: &str) -> Option<HostId> {
        self.by_name.get(name).copied().or_else(|| {
            let by_ip = (0..).zip(&self.hosts).map(|(id, _)| HostId(id));
            let mut by_ip = by_ip.filter(|_| name.starts_with(IP_PREFIX));
            by_ip.find(|id| self.ip(*id) == name)
        })
    }

    /// The IP address of a host, for programs that know none by their names.
    pub(super) fn ip(&self, HostId(id): HostId) -> String {
        format!("{IP_PREFIX}{}.{}", id >> 8, (id & 255) + 1)
    }

    /// The host of this name. A wrong name is an error of the test.
    pub(super) fn known(&self, name: &str) -> HostId {
        self.find(name).unwrap_or_else(|| panic!("there is no host {name:?}"))
    }

    pub(super) fn get(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    pub(super) fn life(&self, id: HostId) -> u32 {
        self.get(id).life
    }

    /// True if the process that `life` counts is the one that runs.
    pub(super) fn lives(&self, id: HostId, life: u32) -> bool {
        let host = self.get(id);
        host.state == State::Up && host.life == life
    }
}

/// Splits `host:port`.
pub(super) fn parse(addr: &str) -> Option<(&str, u16)> {
    let (host, port) = addr.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

//! The simulated network: byte streams between hosts, and what goes wrong with them.
//!
//! Each pair of hosts has a directed link in either direction, with its own latency, rate and faults.
//! Bytes travel as over TCP: in order, within a bounded window, held back while the link is cut, lost
//! only with their connection. In [`Mode::Bus`], whole requests and responses between nodes may in
//! addition be dropped, duplicated, reordered, and delivered very late, even on a later connection.
//!
//! Nothing moves but at the begin of a tick, so the order in which hosts run within one does not matter.

mod bus;
mod connection;
mod counters;
mod death;
mod dial;
mod faults;
mod frames;
mod hosts;
mod link;
mod net;
mod stream;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorumlog::seam::Transport;

use super::{Random, Trace};
pub use counters::NetworkCounters;
pub use hosts::Death;
pub use link::{BusFaults, Latency};
use net::{Net, Wakes};
use transport::HostTransport;

/// What travels between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Byte streams, as over TCP.
    #[default]
    Streams,
    /// Requests and responses between nodes, each on its own. Clients keep their byte streams.
    Bus,
}

/// Settings of a network that stay as they are.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// What travels between nodes.
    pub mode: Mode,
    /// Latency of links that were given no other.
    pub latency: Latency,
    /// Bytes of one direction of a connection that may be under way or unread.
    pub window: usize,
    /// How often a write arrives in two pieces.
    pub split: f64,
    /// Connections that a listener has not yet accepted.
    pub backlog: usize,
    /// First pause before a connection that got no answer is asked for again; it doubles.
    pub connect_retry: Duration,
    /// How long bytes may wait at a cut before their sender gives the connection up.
    pub give_up: Duration,
    /// Longest wait between the healing of a cut and the moment that held bytes move again.
    pub retransmit: Duration,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Streams,
            latency: Latency::default(),
            window: 256 << 10,
            split: 1.0 / 32.0,
            backlog: 64,
            connect_retry: Duration::from_secs(1),
            give_up: Duration::from_secs(10),
            retransmit: Duration::from_millis(200),
        }
    }
}

/// The network of a simulation. Cheap to clone; the clones are one network.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Mutex<Net>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    pub(super) fn new(config: NetworkConfig, random: Random, trace: Trace) -> Self {
        Self { inner: Arc::new(Mutex::new(Net::new(config, random, trace))) }
    }

    /// Connections of `host`, as the process that runs there now. It listens on any port of `host`.
    ///
    /// # Panics
    /// No such host was started.
    pub fn transport(&self, host: &str) -> Arc<dyn Transport> {
        let (host, life) = self.with(|net| {
            let host = net.hosts.known(host);
            (host, net.hosts.life(host))
        });
        Arc::new(HostTransport::new(self.clone(), host, life))
    }

    /// How often what happened so far.
    pub fn counters(&self) -> NetworkCounters {
        self.with(|net| net.counters)
    }

    /// Open connections, and those being made.
    pub fn connections(&self) -> usize {
        self.with(|net| net.connections.len())
    }

    /// Moves what is due by `now`.
    pub(super) fn advance(&self, now: Duration) {
        self.with(|net| net.advance(now));
    }

    /// A new process begins on `host`.
    pub(super) fn host_up(&self, host: &str) {
        self.with(|net| net.host_up(host));
    }

    /// The process on `host` ends.
    pub(super) fn host_down(&self, host: &str, death: Death) {
        self.with(|net| net.host_down(host, death));
    }

    /// Runs `f` under the lock, and wakes tasks behind it: waking or dropping one may come back here.
    fn with<R>(&self, f: impl FnOnce(&mut Net) -> R) -> R {
        let (result, wakes) = {
            let mut net = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let result = f(&mut net);
            (result, std::mem::take(&mut net.wakes))
        };
        let Wakes { due, old } = wakes;
        drop(old);
        due.into_iter().for_each(std::task::Waker::wake);
        result
    }
}

//! Framed connections: one protocol for peers and for clients.
//!
//! A connection begins with a [`Hello`] in each direction, or a refusal with its reason. After
//! that, the end that accepted takes requests in order through its [`Service`], and answers them
//! in any order by their correlation; the end that dialed is a [`Link`]. Every length, queue and
//! wait has a limit, and whatever breaks one costs that connection and nothing else.
//!
//! Kinds from 0xF0 up belong to this module. No clock but tokio's and no randomness is used, so a
//! simulation may run it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::format::frame::HEADER_BYTES;
use crate::record::LogId;

mod backoff;
mod calls;
#[cfg(any(feature = "client", feature = "server"))]
#[cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(dead_code, reason = "each feature is one end of it")
)]
pub(crate) mod client_protocol;
mod connection;
mod hello;
mod link;
mod outbound;
mod patience;
mod probe;
mod reader;
mod refusals;
mod serve;
#[cfg(test)]
mod tests;
mod turns;

pub(crate) use crate::format::frame::Protocol;
pub(crate) use calls::Pending;
#[cfg(feature = "client")]
pub(crate) use calls::StreamReceiver;
#[cfg(any(feature = "server", all(test, feature = "client")))]
pub(crate) use calls::credit_of;
pub(crate) use hello::{ADDR_BYTES_MAX, Hello, Intro};
pub(crate) use link::{HelloCheck, Link, LinkError, Place};
#[cfg(feature = "server")]
pub(crate) use outbound::Reservation;
pub(crate) use outbound::{Claim, Claimant, Outbound, Queued};
pub(crate) use patience::Patience;
pub(crate) use probe::{Probed, probe};
pub(crate) use serve::{Service, serve};

/// A frame as received: the head is control data, the body is entries or records. Both are slices
/// of the receive buffer.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) log: LogId,
    /// Given by the requester, returned in the response.
    pub(crate) correlation: u64,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

/// A frame to be sent. The body's chunks are written by vectored writes, never joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutFrame {
    pub(crate) kind: u8,
    pub(crate) log: LogId,
    pub(crate) correlation: u64,
    pub(crate) head: Bytes,
    pub(crate) body: Vec<Bytes>,
}

/// Bounds on connections.
#[derive(Debug, Clone)]
pub(crate) struct WireLimits {
    /// Head and body of one frame that this end takes. The other end is told.
    pub(crate) frame_bytes_max: usize,
    /// Bytes queued to one connection. A single frame may be larger if nothing else is queued.
    pub(crate) queue_bytes_max: usize,
    /// Bytes queued to all connections that have this one, if there is a limit.
    pub(crate) queued: Option<Arc<Queued>>,
    /// Bytes of large frames that come in on all connections that have this one, if there is a limit.
    pub(crate) incoming: Option<Arc<Queued>>,
    /// Connections accepted at once.
    pub(crate) connections_max: usize,
    /// For dialing and the exchange of hellos.
    pub(crate) handshake_timeout: Duration,
}

#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "answers are made to fit"))]
impl OutFrame {
    /// Bytes that it takes in a queue.
    pub(crate) fn bytes(&self) -> usize {
        let body: usize = self.body.iter().map(Bytes::len).sum();
        HEADER_BYTES + self.head.len() + body
    }
}

#[cfg(test)]
impl WireLimits {
    /// For tests that are not about limits.
    pub(crate) const OF_TESTS: Self = Self {
        frame_bytes_max: 4 << 20,
        queue_bytes_max: 8 << 20,
        queued: None,
        incoming: None,
        connections_max: 8,
        handshake_timeout: Duration::from_secs(2),
    };
}

/// Kinds that belong to the connection itself.
pub(crate) mod kind {
    /// First frame in each direction.
    pub(crate) const HELLO: u8 = 0xF0;
    /// Last frame: the head says why the sender closes.
    pub(crate) const REFUSE: u8 = 0xF1;
    /// Are you there? Sent by the dialer when it has heard nothing for a while.
    pub(crate) const PING: u8 = 0xF2;
    pub(crate) const PONG: u8 = 0xF3;
    /// Allows that many (head: u32) further frames of the stream with this correlation.
    pub(crate) const CREDIT: u8 = 0xF4;
    /// The receiver of the stream with this correlation is gone.
    pub(crate) const CANCEL: u8 = 0xF5;
}

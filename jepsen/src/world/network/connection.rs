//! One connection: two ends, and what is under way between them.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::frames::Assembler;
use super::hosts::HostId;

/// Number of a connection, in the order in which they were dialed.
pub(super) type ConnectionId = u64;

/// One end: 0 dialed, 1 accepted.
pub(super) type Side = usize;
pub(super) const DIALER: Side = 0;
pub(super) const ACCEPTOR: Side = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The other end does not know yet.
    Asking {
        tries: u32,
    },
    /// The other end has agreed, and this one does not know yet.
    Agreed {
        tries: u32,
    },
    Open,
    /// There will be none.
    Failed(ErrorKind),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    pub(super) hosts: [HostId; 2],
    pub(super) port: u16,
    pub(super) ends: [End; 2],
}

/// One end, with what it has sent and what it has received.
#[derive(Debug, Default)]
pub(super) struct End {
    /// A process holds it.
    pub(super) held: bool,
    pub(super) error: Option<ErrorKind>,
    pub(super) reader: Option<Waker>,
    /// Also who waits for the connection to open.
    pub(super) writer: Option<Waker>,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
}

/// What has arrived and was not read yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) pieces: VecDeque<Bytes>,
    /// Nothing follows.
    pub(super) ended: bool,
    /// Something has arrived at some time.
    pub(super) begun: bool,
}

/// What is under way to the other end, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) packets: VecDeque<Packet>,
    /// Bytes that the other end has not yet taken, as far as this one knows.
    pub(super) unacked: usize,
    /// Taken bytes of which this end cannot be told, since the way back is cut.
    pub(super) owed: usize,
    /// Nothing may be written any more.
    pub(super) ended: bool,
    /// An event is due for the first packet.
    pub(super) scheduled: bool,
    /// An event is due that looks whether the first packet is stuck.
    pub(super) watched: bool,
    /// When the last packet arrives.
    pub(super) last_arrival: Duration,
    /// Cuts the stream into frames, on a bus.
    pub(super) assembler: Option<Assembler>,
}

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) sent: Duration,
    pub(super) arrives: Duration,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Data(Bytes),
    /// Nothing follows.
    End,
    Reset,
}

impl Connection {
    pub(super) fn from(&self, side: Side) -> HostId {
        self.hosts[side]
    }

    pub(super) fn to(&self, side: Side) -> HostId {
        self.hosts[1 - side]
    }

    /// True once nobody needs it.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| !end.held && end.outbox.packets.is_empty())
    }

    /// True while both ends can talk and have done so.
    pub(super) fn is_in_use(&self) -> bool {
        let talks =
            |end: &End| end.held && end.error.is_none() && !end.inbox.ended && end.inbox.begun;
        self.phase == Phase::Open && self.ends.iter().all(talks)
    }
}

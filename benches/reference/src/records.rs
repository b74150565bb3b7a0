//! Bytes on the wire and on disk: records, acknowledgements, and the first bytes of a connection.

use std::io;

/// Largest payload.
pub const PAYLOAD_MAX: usize = 8 << 20;

/// Of a record: `u32` length of the payload, `u32` CRC of what follows, `u64` number on its connection.
pub(crate) const HEADER: usize = 16;
/// Of an acknowledgement: `u64` number on the connection, `u64` position of the record.
pub(crate) const ACK: usize = 16;
/// Of a follower's answer: `u64` bytes of the leader's stream that it holds.
pub(crate) const HELD: usize = 8;
/// Of the first bytes of a connection: a magic number and a [`Purpose`].
pub(crate) const HELLO: usize = 8;

const MAGIC: u32 = u32::from_le_bytes(*b"QLRF");

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Purpose {
    /// A client appends to the leader.
    Append = 1,
    /// The leader replicates to a follower.
    Follow = 2,
    /// Somebody asks for the counts, gets them, and leaves.
    Counts = 3,
}

impl Purpose {
    pub(crate) fn hello(self) -> [u8; HELLO] {
        let mut hello = [0; HELLO];
        hello[..4].copy_from_slice(&MAGIC.to_le_bytes());
        hello[4..].copy_from_slice(&(self as u32).to_le_bytes());
        hello
    }

    pub(crate) fn of_hello(hello: [u8; HELLO]) -> io::Result<Self> {
        let [m0, m1, m2, m3, p0, p1, p2, p3] = hello;
        let purpose = u32::from_le_bytes([p0, p1, p2, p3]);
        let known = [Self::Append, Self::Follow, Self::Counts];
        let purpose = known.into_iter().find(|known| *known as u32 == purpose);
        let purpose = purpose.filter(|_| u32::from_le_bytes([m0, m1, m2, m3]) == MAGIC);
        purpose.ok_or_else(|| invalid("not a connection of the reference"))
    }
}

/// Adds a record to `out`.
pub(crate) fn encode(number: u64, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX);
    let length = length.ok_or_else(|| invalid("the payload is too large"))?;
    let number = number.to_le_bytes();
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc(&number, payload).to_le_bytes());
    out.extend_from_slice(&number);
    out.extend_from_slice(payload);
    Ok(())
}

/// Whole records at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Run {
    /// Length of all of them.
    pub(crate) bytes: usize,
    pub(crate) count: u64,
    /// Number of the first.
    pub(crate) first: u64,
}

/// Finds the whole records at the start of `bytes` and checks their CRCs.
pub(crate) fn verify(bytes: &[u8]) -> io::Result<Run> {
    let mut run = Run::default();
    while let Some(header) = bytes[run.bytes..].first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, c0, c1, c2, c3, number @ ..] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > PAYLOAD_MAX {
            return Err(invalid("a record is too large"));
        }
        let Some(payload) = bytes[run.bytes + HEADER..].get(..length) else { break };
        if crc(&number, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(invalid("a record's CRC does not match"));
        }
        if run.count == 0 {
            run.first = u64::from_le_bytes(number);
        }
        run.bytes += HEADER + length;
        run.count += 1;
    }
    Ok(run)
}

fn crc(number: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(number);
    hasher.update(payload);
    hasher.finalize()
}

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What was received and is not used up yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
}

/// Read at once; a group gets no larger, save for one large record.
const INBOX: usize = 2 << 20;

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; INBOX], filled: 0 }
    }

    /// Waits for bytes; false at the end of the stream.
    pub(crate) fn receive(&mut self, mut stream: impl io::Read) -> io::Result<bool> {
        if self.filled == self.bytes.len() {
            // A record that is longer than the buffer; `verify` has checked its length.
            self.bytes.resize((self.filled * 2).min(HEADER + PAYLOAD_MAX), 0);
        }
        loop {
            match stream.read(&mut self.bytes[self.filled..]) {
                Ok(read) => {
                    self.filled += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Removes the first bytes.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.bytes.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }
}

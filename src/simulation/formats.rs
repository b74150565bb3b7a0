//! The byte formats on the path of an append, one step each, for benchmarks.

use bytes::Bytes;

use crate::format::entry::{Batch, Entry, EntryId, EntryKind, WIRE_SALT};
use crate::format::frame::{self, FrameHeader, HEADER_BYTES, Protocol};

/// What the leader does with the bytes of an append, once: the payload's CRC and the entry's header.
pub fn encode_entry(term: u64, index: u64, payload: Bytes) -> [u8; 48] {
    let id = EntryId { term, index };
    Entry::new(id, EntryKind::Record, false, Batch::SINGLE, payload).encode_header(WIRE_SALT)
}

/// What a follower does with the body of a request: takes every entry off its front, both CRCs
/// verified. Gives their number; none if the body is no whole number of entries.
pub fn verify_entries(mut body: Bytes) -> Option<usize> {
    let mut count = 0;
    while !body.is_empty() {
        Entry::decode(&mut body).ok()?;
        count += 1;
    }
    Some(count)
}

/// Header of a frame from a client, with this head and a body of so many bytes.
pub fn encode_frame(correlation: u64, head: &[u8], body_bytes: u32) -> [u8; HEADER_BYTES] {
    let head_bytes = u32::try_from(head.len()).unwrap_or(u32::MAX);
    let (protocol, kind, log) = (Protocol::Client, 1, 1);
    FrameHeader { protocol, kind, log, correlation, head_bytes, body_bytes }.encode(head, &[])
}

/// Reads and verifies the header and head of a frame; gives the length of the whole frame.
pub fn verify_frame(header: &[u8; HEADER_BYTES], head: &[u8], frame_max: usize) -> Option<usize> {
    let decoded = FrameHeader::decode(header, frame_max).ok()?;
    frame::verify(header, head).ok()?;
    Some(decoded.frame_bytes())
}

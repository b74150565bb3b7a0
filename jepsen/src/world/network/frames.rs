//! The library's frames, as far as a bus must know them: where each ends, and what it is.
//!
//! A second reader of the layout in docs/network.md 9: the library keeps its own private.

use bytes::{Bytes, BytesMut};

const HEADER_BYTES: usize = 40;
const PEER: &[u8] = b"QLFP";
const CLIENT: &[u8] = b"QLFC";
const KIND_AT: usize = 5;
const LOG_AT: usize = 8;
const CORRELATION_AT: usize = 16;
const HEAD_BYTES_AT: usize = 24;
const BODY_BYTES_AT: usize = 28;
const CRC_AT: usize = 36;
/// Kinds from here on belong to the connection itself.
const OWN_KINDS: u8 = 0xf0;
/// Set in the kind of a response.
const RESPONSE: u8 = 0x80;
/// An administrative request between nodes.
const ADMIN: u8 = 7;
/// A piece of a snapshot.
const SNAPSHOT: u8 = 5;
/// Largest frame that is held together; what is larger is taken for something else.
const FRAME_BYTES_MAX: u64 = 256 << 20;
/// Marks the correlation of a request that was moved to another connection.
const MOVED: u64 = 1 << 63;

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    buf: BytesMut,
    /// Something else than frames came: from then on, bytes pass as they are.
    opaque: bool,
}

impl Assembler {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole frame; or anything that is there, if it is no frame.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        if self.buf.is_empty() {
            return None;
        }
        if !self.opaque {
            match frame_bytes(&self.buf) {
                Ok(Some(size)) if self.buf.len() >= size => {
                    return Some(self.buf.split_to(size).freeze());
                }
                Ok(_) => return None,
                Err(NoFrame) => self.opaque = true,
            }
        }
        Some(self.buf.split().freeze())
    }
}

struct NoFrame;

/// Size of the frame that begins here, once its header is there.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, NoFrame> {
    let magic = &bytes[..bytes.len().min(4)];
    if !PEER.starts_with(magic) && !CLIENT.starts_with(magic) {
        return Err(NoFrame);
    }
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    let lengths = u64::from(u32_at(bytes, HEAD_BYTES_AT)) + u64::from(u32_at(bytes, BODY_BYTES_AT));
    if lengths > FRAME_BYTES_MAX {
        return Err(NoFrame);
    }
    Ok(Some(HEADER_BYTES + lengths as usize))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// What a bus may do to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freedom {
    /// It must arrive, once and in its order: a client's, a hello, something else than a frame.
    None,
    /// It may be lost, overtaken and late, and must not arrive twice.
    Once,
    /// It must arrive in its order, and may arrive again: a piece of a snapshot, or the answer. Its sender
    /// waits for as long as the connection lives.
    Again,
    /// Everything: a request of Raft, or the response to one.
    Any,
}

pub(super) fn freedom(frame: &[u8]) -> Freedom {
    if frame.len() < HEADER_BYTES || !frame.starts_with(PEER) || frame[KIND_AT] >= OWN_KINDS {
        return Freedom::None;
    }
    match frame[KIND_AT] & !RESPONSE {
        ADMIN if is_request(frame) => Freedom::Once,
        SNAPSHOT => Freedom::Again,
        _ => Freedom::Any,
    }
}

/// True for a request, false for a response. Only for frames with some [`Freedom`].
pub(super) fn is_request(frame: &[u8]) -> bool {
    frame[KIND_AT] < RESPONSE
}

/// True for the response to a request that [`moved`] has given another correlation.
pub(super) fn answers_moved(frame: &[u8]) -> bool {
    freedom(frame) != Freedom::None && u64_at(frame, CORRELATION_AT) & MOVED != 0
}

/// The request for another connection than its own. There its correlation could be that of a request
/// of that connection, which would get this one's response; so it is given one that nobody waits for.
pub(super) fn moved(frame: &[u8], number: u64) -> Bytes {
    with_correlation(frame, MOVED | number)
}

fn with_correlation(frame: &[u8], correlation: u64) -> Bytes {
    let mut frame = BytesMut::from(frame);
    put(&mut frame, CORRELATION_AT, &correlation.to_le_bytes());
    let head = u32_at(&frame, HEAD_BYTES_AT) as usize;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..CRC_AT]);
    hasher.update(&frame[HEADER_BYTES..HEADER_BYTES + head]);
    put(&mut frame, CRC_AT, &hasher.finalize().to_le_bytes());
    frame.freeze()
}

/// A frame in words, for the trace.
pub(super) fn describe(frame: &[u8]) -> Option<String> {
    if frame.len() < HEADER_BYTES || !(frame.starts_with(PEER) || frame.starts_with(CLIENT)) {
        return None;
    }
    let (log, correlation) = (u64_at(frame, LOG_AT), u64_at(frame, CORRELATION_AT));
    Some(format!("kind {} log {log} #{correlation}", frame[KIND_AT]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A frame as the library writes it.
    pub(in super::super) fn frame(magic: &[u8], kind: u8, correlation: u64, body: &[u8]) -> Bytes {
        let mut frame = BytesMut::zeroed(HEADER_BYTES);
        put(&mut frame, 0, magic);
        put(&mut frame, 4, &[1, kind]);
        put(&mut frame, HEAD_BYTES_AT, &2_u32.to_le_bytes());
        put(&mut frame, BODY_BYTES_AT, &(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(b"hi");
        frame.extend_from_slice(body);
        with_correlation(&frame, correlation)
    }

    #[test]
    fn frames_come_out_whole_however_they_were_cut_and_other_bytes_as_they_are() {
        let frames = [frame(PEER, 1, 1, b"one"), frame(PEER, 0x81, 2, &[7; 300])];
        let bytes = frames.concat();
        for step in 1..50 {
            let mut assembler = Assembler::default();
            let mut out = Vec::new();
            for piece in bytes.chunks(step) {
                assembler.push(piece);
                out.extend(std::iter::from_fn(|| assembler.next()));
            }
            assert_eq!(out, frames, "in pieces of {step}");
            assert!(assembler.buf.is_empty());
        }
        let mut assembler = Assembler::default();
        assembler.push(b"QL");
        assert_eq!(assembler.next(), None);
        assembler.push(b"X and more");
        assert_eq!(assembler.next().as_deref(), Some(&b"QLX and more"[..]));
    }

    #[test]
    fn a_moved_request_is_whole_and_its_answer_is_known() {
        let moved = moved(&frame(PEER, 1, 9, b"body"), 5);
        assert_eq!(u64_at(&moved, CORRELATION_AT), MOVED | 5);
        assert_eq!(moved, frame(PEER, 1, MOVED | 5, b"body"));
        assert!(answers_moved(&frame(PEER, 0x81, MOVED | 5, b"")));
        assert!(!answers_moved(&frame(PEER, 0x81, 5, b"")));
        assert!(!answers_moved(&frame(CLIENT, 64, MOVED | 5, b"")));
    }

    #[test]
    fn what_must_keep_its_order_does() {
        assert_eq!(freedom(&frame(PEER, 0xf0, 0, b"")), Freedom::None);
        assert_eq!(freedom(&frame(CLIENT, 1, 1, b"")), Freedom::None);
        assert_eq!(freedom(b"anything"), Freedom::None);
        assert_eq!(freedom(&frame(PEER, ADMIN, 1, b"")), Freedom::Once);
        assert_eq!(freedom(&frame(PEER, 1, 1, b"")), Freedom::Any);
        assert_eq!(freedom(&frame(PEER, 0xef, 1, b"")), Freedom::Any);
        assert!(is_request(&frame(PEER, 6, 1, b"")) && !is_request(&frame(PEER, 0x86, 1, b"")));
    }
}

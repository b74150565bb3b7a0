//! Frames: a 40-byte header, a head of control data, a body of entries or records.
//!
//! ```text
//! 0   u32  magic: "QLFP" between nodes, "QLFC" between a client and a node
//! 4   u8   version: 4 between nodes, 2 between a client and a node
//! 5   u8   kind
//! 6   u16  zero
//! 8   u64  log id
//! 16  u64  correlation
//! 24  u32  head length
//! 28  u32  body length
//! 32  u32  zero
//! 36  u32  CRC of bytes 0..36, the head, and between nodes a body of up to 1024 bytes
//! 40  head, then body
//! ```
//!
//! Lengths are held against the limits before anything is read or allocated for them. A larger body is not in the CRC: its
//! entries carry their own, and other bodies have theirs in the head. What nodes say in small ones, such as whether a vote
//! comes from a node that may lack something, has no other.

use bytes::Bytes;

use crate::mutant::Mutant;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 40;
/// Largest head.
pub(crate) const HEAD_BYTES_MAX: usize = 4 << 20;

const CRC_AT: usize = 36;
/// Bodies of so many bytes are in the CRC of a frame between nodes.
const COVERED_BODY_MAX: u32 = 1024;

/// Which protocol a connection speaks; they never mix on one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Peer,
    Client,
}

impl Protocol {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Peer => *b"QLFP",
            Self::Client => *b"QLFC",
        }
    }

    /// The version that this build speaks. Nodes of different versions do not talk to each other: raise it with
    /// every change that an older node would misread or pass over, and with every new kind of entry in a log.
    pub(crate) const fn version(self) -> u8 {
        match self {
            Self::Peer => 4,
            Self::Client => 2,
        }
    }

    /// The protocol of a frame that begins with these bytes.
    pub(crate) fn of(magic: [u8; 4]) -> Result<Self, FrameError> {
        [Self::Peer, Self::Client]
            .into_iter()
            .find(|protocol| protocol.magic() == magic)
            .ok_or(FrameError::Magic { found: magic })
    }
}

/// Why bytes are no frame that may be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the bytes {found:02x?} do not begin a frame")]
    Magic { found: [u8; 4] },
    #[error(
        "the other end speaks version {found} of the protocol, and this build speaks version {ours}"
    )]
    Version { found: u8, ours: u8 },
    #[error("reserved bits of the frame are set")]
    Reserved,
    #[error("the frame's head has {size} bytes, and the limit is {limit}")]
    HeadTooLarge { size: u64, limit: u64 },
    #[error("the frame has {size} bytes, and the limit is {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error("the frame's CRC does not match")]
    Crc,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) protocol: Protocol,
    pub(crate) kind: u8,
    pub(crate) log: u64,
    pub(crate) correlation: u64,
    pub(crate) head_bytes: u32,
    pub(crate) body_bytes: u32,
}

impl FrameHeader {
    /// The header's bytes. `head` must be `head_bytes` long, and `body` as long as `body_bytes` unless it is not covered.
    pub(crate) fn encode(&self, head: &[u8], body: &[Bytes]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.protocol.magic());
        bytes[4] = self.protocol.version();
        bytes[5] = self.kind;
        bytes[8..16].copy_from_slice(&self.log.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.correlation.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.head_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.body_bytes.to_le_bytes());
        let body = if self.covers_body() { body } else { &[] };
        let crc = crc(&bytes, std::iter::once(head).chain(body.iter().map(|chunk| &chunk[..])));
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header and holds its lengths against the limit for head and body together. The
    /// header is not yet verified: [`verify`] does that once all that it covers is there.
    pub(crate) fn decode(
        bytes: &[u8; HEADER_BYTES],
        frame_bytes_max: usize,
    ) -> Result<Self, FrameError> {
        let protocol = Protocol::of([bytes[0], bytes[1], bytes[2], bytes[3]])?;
        let ours = protocol.version();
        if bytes[4] != ours && !Mutant::OtherVersionServed.is_active() {
            return Err(FrameError::Version { found: bytes[4], ours });
        }
        if bytes[6..8] != [0; 2] || bytes[32..CRC_AT] != [0; 4] {
            return Err(FrameError::Reserved);
        }
        let header = Self {
            protocol,
            kind: bytes[5],
            log: u64_at(bytes, 8),
            correlation: u64_at(bytes, 16),
            head_bytes: u32_at(bytes, 24),
            body_bytes: u32_at(bytes, 28),
        };
        let head = u64::from(header.head_bytes);
        let size = head + u64::from(header.body_bytes);
        if head > HEAD_BYTES_MAX as u64 {
            return Err(FrameError::HeadTooLarge { size: head, limit: HEAD_BYTES_MAX as u64 });
        }
        if size > frame_bytes_max as u64 && !Mutant::FrameLimitIgnored.is_active() {
            return Err(FrameError::TooLarge { size, limit: frame_bytes_max as u64 });
        }
        Ok(header)
    }

    fn covers_body(&self) -> bool {
        self.protocol == Protocol::Peer
            && self.body_bytes <= COVERED_BODY_MAX
            && !Mutant::SmallBodiesUnverified.is_active()
    }

    /// The header and what its CRC covers, in bytes.
    pub(crate) fn covered_bytes(&self) -> usize {
        let body = if self.covers_body() { self.body_bytes } else { 0 };
        HEADER_BYTES + self.head_bytes as usize + body as usize
    }

    /// The whole frame, in bytes.
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.head_bytes as usize + self.body_bytes as usize
    }
}

/// Checks the CRC over a header and what follows it: see [`FrameHeader::covered_bytes`].
pub(crate) fn verify(header: &[u8; HEADER_BYTES], covered: &[u8]) -> Result<(), FrameError> {
    match crc(header, std::iter::once(covered)) == u32_at(header, CRC_AT) {
        true => Ok(()),
        false => Err(FrameError::Crc),
    }
}

fn crc<'a>(header: &[u8; HEADER_BYTES], covered: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CRC_AT]);
    covered.for_each(|bytes| hasher.update(bytes));
    hasher.finalize()
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const HEADER: FrameHeader = FrameHeader {
        protocol: Protocol::Client,
        kind: 3,
        log: 0x0102_0304_0506_0708,
        correlation: 9,
        head_bytes: 2,
        body_bytes: 5,
    };

    #[test]
    fn the_header_has_these_bytes() {
        let bytes = HEADER.encode(b"hi", &[]);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = ["514c4643", "02030000", "0807060504030201", "0900000000000000"];
        assert_eq!(text[..48], parts.concat());
        assert_eq!(text[48..72], ["02000000", "05000000", "00000000"].concat());
        assert_eq!(&text[72..], GOLDEN_CRC);
    }

    const GOLDEN_CRC: &str = "e68fa7d0";

    #[test]
    fn a_frame_of_another_version_or_over_the_limit_is_refused_with_the_numbers() {
        let mut bytes = HEADER.encode(b"hi", &[]);
        let error = FrameHeader::decode(&bytes, 6).expect_err("7 bytes over a limit of 6");
        assert_eq!(error, FrameError::TooLarge { size: 7, limit: 6 });
        bytes[4] = 1;
        let error = FrameHeader::decode(&bytes, 100).expect_err("version 1");
        assert_eq!(error, FrameError::Version { found: 1, ours: 2 });
        let large = FrameHeader { head_bytes: u32::MAX, ..HEADER };
        let error =
            FrameHeader::decode(&large.encode(b"", &[]), usize::MAX).expect_err("large head");
        assert!(matches!(error, FrameError::HeadTooLarge { .. }));
    }

    proptest! {
        #[test]
        fn headers_round_trip(kind: u8, log: u64, correlation: u64, head: Vec<u8>, body in vec(any::<u8>(), 0..3000)) {
            let header = FrameHeader {
                protocol: Protocol::Peer, kind, log, correlation,
                head_bytes: u32::try_from(head.len()).expect("short"),
                body_bytes: u32::try_from(body.len()).expect("short"),
            };
            let (front, back) = body.split_at(body.len() / 3);
            let chunks = [front, back].map(Bytes::copy_from_slice);
            let bytes = header.encode(&head, &chunks);
            prop_assert_eq!(FrameHeader::decode(&bytes, 10_000), Ok(header));
            let frame = [&bytes[..], &head, &body].concat();
            let covered = &frame[HEADER_BYTES..header.covered_bytes()];
            prop_assert_eq!(verify(&bytes, covered), Ok(()));
            prop_assert_eq!(covered.len() - head.len(), if body.len() <= 1024 { body.len() } else { 0 });
        }

        #[test]
        fn a_flipped_bit_in_what_a_node_says_in_a_small_body_is_found(body in vec(any::<u8>(), 1..=1024), at: prop::sample::Index, bit in 0..8_u32) {
            let body_bytes = u32::try_from(body.len()).expect("short");
            let header = FrameHeader { protocol: Protocol::Peer, body_bytes, ..HEADER };
            let bytes = header.encode(b"hi", &[Bytes::copy_from_slice(&body)]);
            let mut covered = [b"hi", &body[..]].concat();
            prop_assert_eq!(verify(&bytes, &covered), Ok(()));
            covered[2 + at.index(body.len())] ^= 1_u8 << bit;
            prop_assert_eq!(verify(&bytes, &covered), Err(FrameError::Crc));
        }

        #[test]
        fn any_flipped_bit_is_found(bit in 0..(HEADER_BYTES + 2) * 8) {
            let mut bytes = HEADER.encode(b"hi", &[]).to_vec();
            bytes.extend_from_slice(b"hi");
            bytes[bit / 8] ^= 1 << (bit % 8);
            let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().expect("40 bytes");
            let read = FrameHeader::decode(&header, 1 << 20);
            prop_assert!(read.is_err() || verify(&header, &bytes[HEADER_BYTES..]).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic_or_pass_the_limit(bytes: [u8; HEADER_BYTES], limit in 0..1_usize << 30) {
            let mut bytes = bytes;
            bytes[..5].copy_from_slice(b"QLFP\x04");
            (bytes[6], bytes[7]) = (0, 0);
            bytes[32..36].fill(0);
            if let Ok(header) = FrameHeader::decode(&bytes, limit) {
                prop_assert!(header.frame_bytes() <= HEADER_BYTES + limit);
            }
        }
    }
}

//! Entries: a 48-byte header, then the payload. docs/storage.md 4.2 draws it.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::{FormatError, check_header, field, need, put, put_crc, u16_at, u32_at, u64_at};
use crate::mutant::Mutant;

/// Bytes before the payload.
pub(crate) const ENTRY_HEADER: usize = 48;
/// First bytes of an entry.
pub(crate) const ENTRY_MAGIC: [u8; 4] = *b"QLEN";
/// Longest payload that a header may announce.
pub(crate) const PAYLOAD_MAX: usize = 256 << 20;

/// The salt of an entry on the wire.
pub(crate) const WIRE_SALT: u32 = 0;

const VERSION: u8 = 1;
const FLAG_SYNC: u16 = 1;
const WHAT: &str = "entry header";

/// What an entry in a segment bears of the segment's salt.
pub(crate) fn entry_salt(segment_salt: u64) -> u32 {
    (segment_salt ^ segment_salt >> 32) as u32
}

/// Term and index of an entry.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub(crate) struct EntryId {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Appended by a caller.
    Record,
    /// A new leader's first entry.
    Blank,
    /// A Raft membership, encoded by `format::codec`.
    Membership,
}

/// Place of an entry in the batch that it was appended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// From 0.
    pub(crate) position: u32,
    /// 1 for a plain append.
    pub(crate) count: u32,
}

impl Batch {
    pub(crate) const SINGLE: Self = Self { position: 0, count: 1 };
}

/// One entry. Cloning it copies no payload bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) kind: EntryKind,
    /// Flush before acknowledging, even where the node runs async.
    pub(crate) sync: bool,
    pub(crate) batch: Batch,
    pub(crate) payload_crc: u32,
    pub(crate) payload: Bytes,
}

/// An entry's header, as decoded: all but the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    pub(crate) id: EntryId,
    pub(crate) kind: EntryKind,
    pub(crate) sync: bool,
    pub(crate) batch: Batch,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    /// CRC of the header itself; what a group's digest is made of.
    pub(crate) crc: u32,
}

impl EntryHeader {
    /// Decodes and checks the first 48 of `bytes`: an entry with this salt. `bytes` may go on.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Result<Self, FormatError> {
        need(WHAT, bytes, ENTRY_HEADER)?;
        let bytes = &bytes[..ENTRY_HEADER];
        let version = (u16::from(bytes[4]), u16::from(VERSION));
        check_header(WHAT, bytes, ENTRY_MAGIC, 44, version)?;
        let kind = match bytes[5] {
            1 => EntryKind::Record,
            2 => EntryKind::Blank,
            3 => EntryKind::Membership,
            _ => return Err(FormatError::Field { what: WHAT, field: "kind" }),
        };
        let flags = u16_at(bytes, 6);
        let batch = Batch { position: u32_at(bytes, 32), count: u32_at(bytes, 36) };
        let payload_len = u32_at(bytes, 8);
        field(WHAT, "flag", flags & !FLAG_SYNC == 0)?;
        field(WHAT, "place in its batch", batch.position < batch.count)?;
        let salted = u32_at(bytes, 40) == salt || Mutant::SaltIgnored.is_active();
        field(WHAT, "salt", salted)?;
        field(WHAT, "payload length", payload_len as usize <= PAYLOAD_MAX)?;
        Ok(Self {
            id: EntryId { term: u64_at(bytes, 16), index: u64_at(bytes, 24) },
            kind,
            sync: flags & FLAG_SYNC != 0,
            batch,
            payload_len,
            payload_crc: u32_at(bytes, 12),
            crc: u32_at(bytes, 44),
        })
    }

    /// Bytes of the whole entry.
    pub(crate) fn encoded_len(&self) -> u64 {
        ENTRY_HEADER as u64 + u64::from(self.payload_len)
    }

    /// The entry, once `payload` is found to be the one that the header describes.
    pub(crate) fn with_payload(self, payload: Bytes) -> Result<Entry, FormatError> {
        let what = "payload";
        let (need, have) = (u64::from(self.payload_len), payload.len() as u64);
        if need != have {
            return Err(FormatError::Short { what, need, have });
        }
        if crc32fast::hash(&payload) != self.payload_crc {
            return Err(FormatError::Crc { what });
        }
        Ok(Entry { payload, ..self.without_payload() })
    }

    /// The entry with an empty payload. Not to be encoded again.
    pub(crate) fn without_payload(self) -> Entry {
        Entry {
            id: self.id,
            kind: self.kind,
            sync: self.sync,
            batch: self.batch,
            payload_crc: self.payload_crc,
            payload: Bytes::new(),
        }
    }
}

impl Entry {
    /// A new entry; computes the payload's CRC, which is then carried along and never computed again
    /// by a writer.
    pub(crate) fn new(
        id: EntryId,
        kind: EntryKind,
        sync: bool,
        batch: Batch,
        payload: Bytes,
    ) -> Self {
        let payload_crc = crc32fast::hash(&payload);
        Self { id, kind, sync, batch, payload_crc, payload }
    }

    /// True if it is flushed before it is acknowledged, on every node and however that runs: if its caller asked for it, or if
    /// the promises about all others rest on it.
    pub(crate) fn is_flushed_first(&self) -> bool {
        self.sync || self.kind != EntryKind::Record && !Mutant::MembershipNotFlushed.is_active()
    }

    /// Bytes of header and payload.
    pub(crate) fn encoded_len(&self) -> usize {
        ENTRY_HEADER + self.payload.len()
    }

    /// The header; header and payload together are the entry on disk and on the wire.
    pub(crate) fn encode_header(&self, salt: u32) -> [u8; ENTRY_HEADER] {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        assert!(len as usize <= PAYLOAD_MAX, "a payload of {len} bytes is over the format's limit");
        let kind = match self.kind {
            EntryKind::Record => 1,
            EntryKind::Blank => 2,
            EntryKind::Membership => 3,
        };
        let flags = if self.sync { FLAG_SYNC } else { 0 };
        let mut bytes = [0; ENTRY_HEADER];
        put(&mut bytes, 0, ENTRY_MAGIC);
        put(&mut bytes, 4, [VERSION, kind]);
        put(&mut bytes, 6, flags.to_le_bytes());
        put(&mut bytes, 8, len.to_le_bytes());
        put(&mut bytes, 12, self.payload_crc.to_le_bytes());
        put(&mut bytes, 16, self.id.term.to_le_bytes());
        put(&mut bytes, 24, self.id.index.to_le_bytes());
        put(&mut bytes, 32, self.batch.position.to_le_bytes());
        put(&mut bytes, 36, self.batch.count.to_le_bytes());
        put(&mut bytes, 40, salt.to_le_bytes());
        put_crc(&mut bytes, 44);
        bytes
    }

    /// Takes one entry of the wire off the front of `body`, both CRCs verified. The payload is a slice of `body`:
    /// nothing is copied. On an error `body` is left as it was.
    pub(crate) fn decode(body: &mut Bytes) -> Result<Self, FormatError> {
        let header = EntryHeader::decode(body, WIRE_SALT)?;
        let len = header.payload_len as usize;
        need("payload", &body[ENTRY_HEADER..], len)?;
        let payload = body.slice(ENTRY_HEADER..ENTRY_HEADER + len);
        let entry = match Mutant::WireCrcIgnored.is_active() {
            true => Self { payload, ..header.without_payload() },
            false => header.with_payload(payload)?,
        };
        body.advance(ENTRY_HEADER + len);
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry::new(
            EntryId { term: 7, index: 42 },
            EntryKind::Record,
            true,
            Batch { position: 1, count: 3 },
            Bytes::from_static(b"hello"),
        )
    }

    fn encoded(entry: &Entry) -> Vec<u8> {
        [&entry.encode_header(WIRE_SALT)[..], &entry.payload].concat()
    }

    #[test]
    fn an_entry_is_laid_out_as_the_design_draws_it() {
        let bytes = sample().encode_header(WIRE_SALT);
        let mut expected = b"QLEN\x01\x01\x01\x00\x05\0\0\0".to_vec();
        expected.extend(0x3610_a686u32.to_le_bytes());
        expected.extend(7u64.to_le_bytes());
        expected.extend(42u64.to_le_bytes());
        expected.extend([1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(bytes.to_vec(), expected);
    }

    #[test]
    fn a_sequence_decodes_to_slices_of_the_body() {
        let entries = [sample(), Entry { payload: Bytes::new(), payload_crc: 0, ..sample() }];
        let mut body = Bytes::from([encoded(&entries[0]), encoded(&entries[1])].concat());
        let whole = body.clone();
        let first = Entry::decode(&mut body).expect("first");
        assert_eq!(first, entries[0]);
        assert_eq!(first.payload.as_ptr(), whole[ENTRY_HEADER..].as_ptr(), "a slice, no copy");
        assert_eq!(Entry::decode(&mut body).expect("second"), entries[1]);
        assert!(body.is_empty());
        assert!(matches!(Entry::decode(&mut body), Err(FormatError::Short { .. })));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let good = encoded(&sample());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut body = Bytes::from(bad);
            assert!(Entry::decode(&mut body).is_err(), "bit {bit}");
            assert_eq!(body.len(), good.len(), "a refused body is left alone");
        }
        for len in 0..good.len() {
            assert!(Entry::decode(&mut Bytes::copy_from_slice(&good[..len])).is_err(), "{len}");
        }
    }

    #[test]
    fn an_entry_of_another_segment_is_refused() {
        let bytes = sample().encode_header(5);
        assert_eq!(EntryHeader::decode(&bytes, 5).map(|header| header.id), Ok(sample().id));
        let other = EntryHeader::decode(&bytes, 6);
        assert_eq!(other, Err(FormatError::Field { what: WHAT, field: "salt" }));
    }

    #[test]
    fn a_huge_length_is_refused_before_anything_is_read() {
        let mut bytes = sample().encode_header(WIRE_SALT);
        put(&mut bytes, 8, u32::MAX.to_le_bytes());
        put_crc(&mut bytes, 44);
        let error = Entry::decode(&mut Bytes::copy_from_slice(&bytes)).expect_err("too long");
        assert_eq!(error, FormatError::Field { what: WHAT, field: "payload length" });
    }
}

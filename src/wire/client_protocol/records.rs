//! Records and batches as bodies of frames.
//!
//! ```text
//! record:   u64 index, u64 term, u32 length, u32 CRC of these 20 bytes and the payload; payload
//! in batch: u32 length, u32 CRC of the payload; payload
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ProtocolError;
use crate::record::Record;

pub(super) const RECORD_HEADER_BYTES: usize = 24;
const BATCH_HEADER_BYTES: usize = 8;

/// The chunks of a body: headers and payloads by turns, nothing copied but the headers.
pub(super) fn records_body(records: Vec<Record>) -> Vec<Bytes> {
    let mut headers = BytesMut::with_capacity(records.len() * RECORD_HEADER_BYTES);
    let mut body = Vec::with_capacity(records.len() * 2);
    for Record { index, term, payload } in records {
        headers.put_u64_le(index);
        headers.put_u64_le(term);
        headers.put_u32_le(length(&payload));
        let crc = crc(&headers, &payload);
        headers.put_u32_le(crc);
        body.extend([headers.split().freeze(), payload]);
    }
    body
}

pub(super) fn read_records(mut body: Bytes, count: u64) -> Result<Vec<Record>, ProtocolError> {
    let mut records = Vec::with_capacity(capacity(&body, count, RECORD_HEADER_BYTES)?);
    for _ in 0..count {
        let mut header = cut(&mut body, RECORD_HEADER_BYTES)?;
        let summed = header.slice(..RECORD_HEADER_BYTES - 4);
        let (index, term) = (header.get_u64_le(), header.get_u64_le());
        let payload = cut(&mut body, header.get_u32_le() as usize)?;
        if crc(&summed, &payload) != header.get_u32_le() {
            return Err(ProtocolError::Payload);
        }
        records.push(Record::new(index, term, payload));
    }
    if body.is_empty() { Ok(records) } else { Err(ProtocolError::Length) }
}

/// The chunks of a body: headers and payloads by turns, nothing copied but the headers.
pub(super) fn batch_body(payloads: Vec<Bytes>) -> Vec<Bytes> {
    let mut headers = BytesMut::with_capacity(payloads.len() * BATCH_HEADER_BYTES);
    let mut body = Vec::with_capacity(payloads.len() * 2);
    for payload in payloads {
        headers.put_u32_le(length(&payload));
        headers.put_u32_le(crc32fast::hash(&payload));
        body.extend([headers.split().freeze(), payload]);
    }
    body
}

/// Bytes of the payloads of a batch that has so many.
#[cfg(feature = "server")]
pub(super) fn batch_payload_bytes(body: &Bytes, count: u64) -> Result<u64, ProtocolError> {
    let count = capacity(body, count, BATCH_HEADER_BYTES)?;
    Ok((body.len() - count * BATCH_HEADER_BYTES) as u64)
}

pub(super) fn read_batch(mut body: Bytes, count: u64) -> Result<Vec<Bytes>, ProtocolError> {
    let mut payloads = Vec::with_capacity(capacity(&body, count, BATCH_HEADER_BYTES)?);
    for _ in 0..count {
        let mut header = cut(&mut body, BATCH_HEADER_BYTES)?;
        let payload = cut(&mut body, header.get_u32_le() as usize)?;
        if crc32fast::hash(&payload) != header.get_u32_le() {
            return Err(ProtocolError::Payload);
        }
        payloads.push(payload);
    }
    if body.is_empty() { Ok(payloads) } else { Err(ProtocolError::Length) }
}

/// A payload that is longer than a frame can be makes a body that no link takes, so the cut length
/// is never sent.
fn length(payload: &Bytes) -> u32 {
    u32::try_from(payload.len()).unwrap_or(u32::MAX)
}

fn crc(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// The count, if the body can hold that many.
fn capacity(body: &Bytes, count: u64, header_bytes: usize) -> Result<usize, ProtocolError> {
    let count = usize::try_from(count).ok();
    count.filter(|&count| count <= body.len() / header_bytes).ok_or(ProtocolError::Length)
}

fn cut(body: &mut Bytes, bytes: usize) -> Result<Bytes, ProtocolError> {
    if bytes <= body.len() { Ok(body.split_to(bytes)) } else { Err(ProtocolError::Length) }
}

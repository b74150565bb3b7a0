//! Messages: as producers send them, and as clients decode them.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _};

const MAGIC: u32 = 0xDAA3_20A7;
/// Bytes of a stored message with IPv4 addresses before its body.
const BEFORE_BODY: usize = 88;

/// A stored message, as a client decodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) queue: u32,
    pub(super) offset: u64,
    pub(super) physical: u64,
    pub(super) stored_ms: i64,
    pub(super) reconsumed: u32,
    pub(super) topic: String,
    /// The number that its producer gave it; none if its body is none of ours.
    pub(super) id: Option<u64>,
    pub(super) properties: BTreeMap<String, String>,
}

/// The body of the message of this number.
pub(super) fn body(id: u64, padding: u64) -> Vec<u8> {
    let mut body = format!("{id}:").into_bytes();
    let padded = body.len() + padding as usize;
    body.resize(padded, b'a' + (id % 26) as u8);
    body
}

fn id_of(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let (id, padding) = text.split_once(':')?;
    let id: u64 = id.parse().ok()?;
    let filler = b'a' + (id % 26) as u8;
    padding.bytes().all(|byte| byte == filler).then_some(id)
}

/// The body of a batch: bodies and properties.
pub(super) fn batch(parts: &[(Vec<u8>, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (body, properties) in parts {
        out.put_u32((22 + body.len() + properties.len()) as u32);
        out.put_bytes(0, 12);
        out.put_u32(body.len() as u32);
        out.put_slice(body);
        out.put_u16(properties.len() as u16);
        out.put_slice(properties.as_bytes());
    }
    out
}

/// Properties as the protocol writes them.
pub(super) fn properties(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect()
}

/// The messages of a pull's answer.
///
/// # Errors
/// What is wrong with one.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let size = bytes.get(..4).map_or(0, |mut size| size.get_u32() as usize);
        let message = bytes.get(..size).filter(|message| message.len() > BEFORE_BODY);
        let message = message.ok_or_else(|| format!("a message of {size} bytes"))?;
        messages.push(one(message).ok_or("a message that cannot be read")??);
        bytes = &bytes[size..];
    }
    Ok(messages)
}

fn one(bytes: &[u8]) -> Option<Result<Message, String>> {
    let number = |at: usize| bytes.get(at..at + 4).map(|mut four| four.get_u32());
    let long = |at: usize| bytes.get(at..at + 8).map(|mut eight| eight.get_u64());
    if number(4)? != MAGIC || number(36)? & 0x30 != 0 {
        return Some(Err("a message without its magic, or with other addresses".to_owned()));
    }
    let length = number(84)? as usize;
    let body = bytes.get(BEFORE_BODY..BEFORE_BODY + length)?;
    if number(8)? != crc32fast::hash(body) & 0x7FFF_FFFF {
        return Some(Err("a body that its CRC is not of".to_owned()));
    }
    let topic_begin = BEFORE_BODY + length + 1;
    let topic_end = topic_begin + usize::from(*bytes.get(topic_begin - 1)?);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let properties = text(bytes.get(topic_end + 2..)?);
    let properties = properties.split('\u{2}').filter_map(|pair| pair.split_once('\u{1}'));
    Some(Ok(Message {
        queue: number(12)?,
        offset: long(20)?,
        physical: long(28)?,
        stored_ms: i64::try_from(long(56)?).ok()?,
        reconsumed: number(72)?,
        topic: text(bytes.get(topic_begin..topic_end)?),
        id: id_of(body),
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }))
}

/// The physical offset in each of the ids of an answer: the second half of 32 hex digits.
pub(super) fn physicals(ids: &str) -> Vec<u64> {
    let of = |id: &str| id.get(16..32).and_then(|half| u64::from_str_radix(half, 16).ok());
    ids.split(',').filter_map(of).collect()
}

/// The index of the record that a message is in.
pub(super) fn index_of(physical: u64) -> u64 {
    physical >> 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_whose_it_is_and_a_damaged_one_says_nothing() {
        assert_eq!(id_of(&body(77, 30)), Some(77));
        assert_eq!(id_of(&body(0, 0)), Some(0));
        assert_eq!(id_of(b"77:aXz"), None);
        assert_eq!(id_of(b"x"), None);
    }

    #[test]
    fn ids_name_the_places_of_their_messages() {
        let ids = "0A00000100002A9F0000000000005000,0A00000100002A9F0000000000005001";
        assert_eq!(physicals(ids), [0x5000, 0x5001]);
        assert_eq!(index_of(0x5001), 5);
    }
}

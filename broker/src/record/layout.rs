//! A message as it is stored and sent, big-endian:
//!
//! ```text
//! 0   u32  size of all           36  i32  system flag
//! 4   u32  magic                 40  i64  time of birth, ms
//! 8   u32  CRC of the body       48  ip, i32 port of the producer (16-byte ip if flag 0x10)
//! 12  i32  queue                 ..  i64  time of storing, ms
//! 16  i32  flag                  ..  ip, i32 port of the broker (16-byte ip if flag 0x20)
//! 20  i64  queue offset          ..  i32  times it was consumed again
//! 28  i64  physical offset       ..  i64  offset of a prepared transaction
//! ..  u32 + body, u8 + topic (u16 with the second magic), i16 + properties
//! ```
//!
//! Queue offset and physical offset are zero in the log and are put in on the way out; no checksum covers them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The layout with a topic of up to 127 bytes.
const MAGIC_V1: u32 = 0xDAA3_20A7;
/// The layout with a longer one.
const MAGIC_V2: u32 = 0xDAA3_20AB;
/// The producer's address is IPv6.
const BORN_V6: i32 = 0x10;
/// The broker's address is IPv6.
const STORE_V6: i32 = 0x20;
/// Where the queue offset stands; the physical offset follows it.
pub(crate) const QUEUE_OFFSET_AT: usize = 20;
/// Bytes up to the end of the physical offset: these differ on the way out.
pub(crate) const SPLICED_BYTES: usize = 36;
/// Longest topic that a length of one byte, which Java reads as signed, can give.
const SHORT_TOPIC_MAX: usize = 127;

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message cannot be read: {0}")]
pub(crate) struct RecordError(pub(crate) String);

impl RecordError {
    pub(crate) fn cut(what: &str) -> Self {
        Self(format!("its {what} is cut short"))
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) queue: i32,
    pub(crate) flag: i32,
    pub(crate) system_flag: i32,
    pub(crate) born_ms: i64,
    pub(crate) born_host: SocketAddr,
    pub(crate) stored_ms: i64,
    pub(crate) store_host: SocketAddr,
    pub(crate) reconsumed: i32,
    pub(crate) body: Bytes,
    pub(crate) properties: String,
}

/// What a message's place depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outline<'a> {
    pub(crate) topic: &'a str,
    pub(crate) queue: i32,
    pub(crate) stored_ms: i64,
    pub(crate) properties: &'a str,
}

fn skip(from: &mut &[u8], length: usize, what: &str) -> Result<(), RecordError> {
    *from = from.get(length..).ok_or_else(|| RecordError::cut(what))?;
    Ok(())
}

fn slice_text<'a>(from: &mut &'a [u8], length: usize, what: &str) -> Result<&'a str, RecordError> {
    let (bytes, rest) = from.split_at_checked(length).ok_or_else(|| RecordError::cut(what))?;
    *from = rest;
    std::str::from_utf8(bytes).map_err(|_| RecordError(format!("its {what} is no UTF-8")))
}

fn host_bytes(host: SocketAddr) -> usize {
    if host.is_ipv6() { 20 } else { 8 }
}

fn put_host(out: &mut BytesMut, host: SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_i32(i32::from(host.port()));
}

fn get_host(from: &mut Bytes, v6: bool) -> Result<SocketAddr, RecordError> {
    if from.len() < if v6 { 20 } else { 8 } {
        return Err(RecordError::cut("address"));
    }
    let ip = if v6 {
        IpAddr::V6(Ipv6Addr::from(from.get_u128()))
    } else {
        IpAddr::V4(Ipv4Addr::from(from.get_u32()))
    };
    let port =
        u16::try_from(from.get_i32()).map_err(|_| RecordError("a port that is none".to_owned()))?;
    Ok(SocketAddr::new(ip, port))
}

fn get_text(from: &mut Bytes, length: usize, what: &str) -> Result<String, RecordError> {
    if from.len() < length {
        return Err(RecordError::cut(what));
    }
    let bytes = from.split_to(length);
    let text = std::str::from_utf8(&bytes);
    text.map(str::to_owned).map_err(|_| RecordError(format!("its {what} is no UTF-8")))
}

impl Message {
    /// Bytes that it takes when stored.
    pub(crate) fn stored_bytes(&self) -> usize {
        let topic = if self.topic.len() > SHORT_TOPIC_MAX { 2 } else { 1 } + self.topic.len();
        let hosts = host_bytes(self.born_host) + host_bytes(self.store_host);
        48 + hosts + 8 + 4 + 8 + 4 + self.body.len() + topic + 2 + self.properties.len()
    }

    /// Puts it behind what is there, with both offsets zero.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let long = self.topic.len() > SHORT_TOPIC_MAX;
        let mut system_flag = self.system_flag & !(BORN_V6 | STORE_V6);
        system_flag |= if self.born_host.is_ipv6() { BORN_V6 } else { 0 };
        system_flag |= if self.store_host.is_ipv6() { STORE_V6 } else { 0 };
        out.reserve(self.stored_bytes());
        out.put_u32(self.stored_bytes() as u32);
        out.put_u32(if long { MAGIC_V2 } else { MAGIC_V1 });
        out.put_u32(crc32fast::hash(&self.body) & 0x7FFF_FFFF);
        out.put_i32(self.queue);
        out.put_i32(self.flag);
        out.put_u64(0);
        out.put_u64(0);
        out.put_i32(system_flag);
        out.put_i64(self.born_ms);
        put_host(out, self.born_host);
        out.put_i64(self.stored_ms);
        put_host(out, self.store_host);
        out.put_i32(self.reconsumed);
        out.put_u64(0);
        out.put_u32(self.body.len() as u32);
        out.put_slice(&self.body);
        match long {
            true => out.put_u16(self.topic.len() as u16),
            false => out.put_u8(self.topic.len() as u8),
        }
        out.put_slice(self.topic.as_bytes());
        out.put_u16(self.properties.len() as u16);
        out.put_slice(self.properties.as_bytes());
    }

    /// The bytes of the first message in `from`.
    ///
    /// # Errors
    /// Its size is none.
    pub(crate) fn take_bytes(from: &mut Bytes) -> Result<Bytes, RecordError> {
        let size = from.clone().try_get_u32().map_err(|_| RecordError::cut("size"))? as usize;
        if size < 88 || size > from.len() {
            return Err(RecordError::cut("record"));
        }
        Ok(from.split_to(size))
    }

    /// True if it is laid out in a way that this build knows, as far as its magic says.
    pub(crate) fn has_known_layout(record: &[u8]) -> bool {
        let magic = record.get(4..8).and_then(|bytes| bytes.try_into().ok());
        magic.map(u32::from_be_bytes).is_some_and(|magic| [MAGIC_V1, MAGIC_V2].contains(&magic))
    }

    /// Reads what its place depends on: topic, queue, time of storing, properties. Nothing is copied.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn outline(record: &[u8]) -> Result<Outline<'_>, RecordError> {
        let mut from = record;
        skip(&mut from, 4, "head")?;
        let magic = from.try_get_u32().map_err(|_| RecordError::cut("head"))?;
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(RecordError(format!("its magic is {magic:#x}")));
        }
        skip(&mut from, 4, "head")?;
        let queue = from.try_get_i32().map_err(|_| RecordError::cut("head"))?;
        skip(&mut from, 20, "head")?;
        let system_flag = from.try_get_i32().map_err(|_| RecordError::cut("head"))?;
        skip(&mut from, 8 + if system_flag & BORN_V6 != 0 { 20 } else { 8 }, "address")?;
        let stored_ms = from.try_get_i64().map_err(|_| RecordError::cut("time"))?;
        skip(&mut from, 12 + if system_flag & STORE_V6 != 0 { 20 } else { 8 }, "head")?;
        let length = from.try_get_u32().map_err(|_| RecordError::cut("head"))?;
        skip(&mut from, length as usize, "body")?;
        let length = match magic {
            MAGIC_V1 => from.try_get_u8().map(usize::from),
            _ => from.try_get_u16().map(usize::from),
        };
        let topic = slice_text(&mut from, length.map_err(|_| RecordError::cut("topic"))?, "topic")?;
        let length = from.try_get_u16().map_err(|_| RecordError::cut("properties"))?;
        let properties = slice_text(&mut from, length.into(), "properties")?;
        Ok(Outline { topic, queue, stored_ms, properties })
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn decode(mut from: Bytes) -> Result<Self, RecordError> {
        let from = &mut from;
        if from.len() < 48 {
            return Err(RecordError::cut("head"));
        }
        from.advance(4);
        let magic = from.get_u32();
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(RecordError(format!("its magic is {magic:#x}")));
        }
        from.advance(4);
        let (queue, flag) = (from.get_i32(), from.get_i32());
        from.advance(16);
        let (system_flag, born_ms) = (from.get_i32(), from.get_i64());
        let born_host = get_host(from, system_flag & BORN_V6 != 0)?;
        let stored_ms = from.try_get_i64().map_err(|_| RecordError::cut("time"))?;
        let store_host = get_host(from, system_flag & STORE_V6 != 0)?;
        if from.len() < 16 {
            return Err(RecordError::cut("head"));
        }
        let reconsumed = from.get_i32();
        from.advance(8);
        let length = from.get_u32() as usize;
        if length > from.len() {
            return Err(RecordError::cut("body"));
        }
        let body = from.split_to(length);
        let length = match magic {
            MAGIC_V1 => from.try_get_u8().map(usize::from),
            _ => from.try_get_u16().map(usize::from),
        };
        let topic = get_text(from, length.map_err(|_| RecordError::cut("topic"))?, "topic")?;
        let length = from.try_get_u16().map_err(|_| RecordError::cut("properties"))?;
        let properties = get_text(from, length.into(), "properties")?;
        Ok(Self {
            topic,
            queue,
            flag,
            system_flag,
            born_ms,
            born_host,
            stored_ms,
            store_host,
            reconsumed,
            body,
            properties,
        })
    }
}

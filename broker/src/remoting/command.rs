//! A request or an answer: a header in one of two encodings, and a body.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes};
use serde::de::DeserializeOwned;

use super::codes::{names, response};
use super::fields::Fields;
use super::frame::FrameError;
use super::lenient_json::{self, JsonError};
use super::speaker::Speaker;
use super::{binary, json, plain_json};

/// Largest header: properties of 32,767 bytes, each of them escaped, and much more.
const HEADER_BYTES_MAX: usize = 1 << 20;

const ANSWER: i32 = 1;
const ONEWAY: i32 = 2;

/// How a header is written. A frame says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// JSON, the default of every client.
    #[default]
    Json,
    /// RocketMQ's binary form.
    Binary,
}

/// What either encoding holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) code: i32,
    pub(crate) opaque: i32,
    pub(crate) flag: i32,
    pub(crate) remark: Option<String>,
    pub(crate) fields: Fields,
    pub(crate) speaker: Speaker,
}

/// A request or an answer that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) encoding: Encoding,
    pub(crate) head: Head,
    pub(crate) body: Bytes,
}

impl Command {
    /// A request.
    pub(crate) fn request(code: i32, opaque: i32, fields: Fields) -> Self {
        let head = Head { code, opaque, fields, ..Head::default() };
        Self { encoding: Encoding::Json, head, body: Bytes::new() }
    }

    /// The same without an answer.
    pub(crate) fn oneway(mut self) -> Self {
        self.head.flag |= ONEWAY;
        self
    }

    /// Reads a frame (without its length word).
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn decode(mut frame: Bytes) -> Result<Self, FrameError> {
        let size = frame.len();
        let mark = frame.try_get_u32().map_err(|_| FrameError::Length(size))?;
        let (encoding, length) = (mark >> 24, (mark & 0xFF_FFFF) as usize);
        let bad = FrameError::Mark { length, encoding, frame: size };
        if length > frame.len() || length > HEADER_BYTES_MAX {
            return Err(bad);
        }
        let header = frame.split_to(length);
        let (encoding, head) = match encoding {
            0 => (Encoding::Json, json::decode(&header)),
            1 => (Encoding::Binary, binary::decode(&header)),
            _ => return Err(bad),
        };
        let with = |head| Self { encoding, head, body: frame };
        head.map(with.clone()).map_err(|(head, problem)| FrameError::Header {
            problem,
            request: Box::new(with(head)),
        })
    }

    /// The body as JSON, as leniently as a header.
    ///
    /// # Errors
    /// It is none, or not what is wanted.
    pub(crate) fn json_body<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        let value = lenient_json::parse(&self.body)?;
        serde_json::from_value(value).map_err(JsonError::from)
    }

    /// Drops the body, and all fields but these: what is left can still be answered.
    pub(crate) fn keep(&mut self, fields: &[&str]) {
        self.body = Bytes::new();
        self.head.remark = None;
        self.head.fields.keep(fields);
    }

    /// True if this answers a request of ours.
    pub(crate) fn is_answer(&self) -> bool {
        self.head.flag & ANSWER != 0
    }

    /// What an answer says in words.
    pub(crate) fn remark(&self) -> &str {
        self.head.remark.as_deref().unwrap_or_default().trim()
    }

    /// True if an answer says that nobody knows whether it was done.
    pub(crate) fn tells_unknown_outcome(&self) -> bool {
        self.head.fields.get(names::OUTCOME) == Some(names::UNKNOWN)
    }

    /// True if nobody waits for an answer.
    pub(crate) fn is_oneway(&self) -> bool {
        self.head.flag & ONEWAY != 0
    }

    /// As chunks to be written one after another, the length word first.
    pub(crate) fn encode(self) -> Vec<Bytes> {
        encode(&self.head, self.encoding, vec![self.body])
    }
}

/// About as much as the headers of sends and their answers take.
const START_BYTES: usize = 512;

fn encode(head: &Head, encoding: Encoding, body: Vec<Bytes>) -> Vec<Bytes> {
    let mut start = Vec::with_capacity(START_BYTES);
    // The lengths are put in when they are known.
    start.put_u64(0);
    let mark = match encoding {
        Encoding::Json => {
            plain_json::encode(head, &mut start);
            0
        }
        Encoding::Binary => {
            binary::encode(head, &mut start);
            1_u32 << 24
        }
    };
    let header = start.len() - 8;
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    let mut lengths = &mut start[..8];
    lengths.put_u32((4 + header + body_bytes) as u32);
    lengths.put_u32(mark | header as u32);
    let mut chunks = vec![Bytes::from(start)];
    chunks.extend(body.into_iter().filter(|chunk| !chunk.is_empty()));
    chunks
}

/// An answer to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: i32,
    pub(crate) remark: Option<String>,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<Bytes>,
}

impl Reply {
    /// Done, with nothing to tell.
    pub(crate) fn done() -> Self {
        Self { code: response::SUCCESS, ..Self::default() }
    }

    /// A code and why.
    pub(crate) fn refused(code: i32, remark: impl Into<String>) -> Self {
        Self { code, remark: Some(remark.into()), ..Self::default() }
    }

    /// The same with a remark.
    pub(crate) fn with_remark(mut self, remark: &str) -> Self {
        self.remark = Some(remark.to_owned());
        self
    }

    /// The same with a field.
    pub(crate) fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.fields.push_shown(name, value);
        self
    }

    /// The same with room for fields of so many bytes.
    pub(crate) fn with_room(mut self, bytes: usize) -> Self {
        self.fields.reserve(bytes);
        self
    }

    /// The same with a body.
    pub(crate) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = vec![body.into()];
        self
    }

    /// As chunks that answer `request`, in its encoding.
    pub(crate) fn encode(self, request: &Command) -> Vec<Bytes> {
        let head = Head {
            code: self.code,
            opaque: request.head.opaque,
            flag: ANSWER,
            remark: self.remark,
            fields: self.fields,
            speaker: Speaker::default(),
        };
        encode(&head, request.encoding, self.body)
    }
}

//! Small control data as bytes, for the library and for state machines. The only place that names `bincode`.
//!
//! Fixed-width little-endian integers, a size limit, and no bytes left over. Callers put magic,
//! version, length and CRC around it.

use std::io;

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most bytes that one value may take.
const BYTES_MAX: u64 = 16 << 20;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control data cannot be read: {0}")]
pub struct CodecError(String);

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .reject_trailing_bytes()
}

/// The value as bytes.
///
/// # Panics
/// It has a sequence whose length is not known before its end.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    options().serialize(value).expect("control data has known lengths and goes to memory")
}

/// The value that `encode` made the bytes from.
///
/// # Errors
/// They are of another value, or more than 16 MiB.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within(bytes, BYTES_MAX)
}

/// Writes a value of any size: a state machine's checkpoint.
///
/// # Errors
/// What `out` says.
pub fn encode_to<T: Serialize>(out: &mut dyn io::Write, value: &T) -> io::Result<()> {
    options().serialize_into(out, value).map_err(|error| io_error(*error))
}

/// Reads what `encode_to` wrote, to its end. Lengths in it are believed: it has been verified.
///
/// # Errors
/// What `from` says; `InvalidData` if it is of another value, or goes on behind it.
pub fn decode_from<T: DeserializeOwned>(from: &mut dyn io::Read) -> io::Result<T> {
    let value = options().deserialize_from(&mut *from).map_err(|error| io_error(*error))?;
    match from.read(&mut [0])? {
        0 => Ok(value),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "there are bytes after the state")),
    }
}

fn io_error(error: bincode::ErrorKind) -> io::Error {
    match error {
        bincode::ErrorKind::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// `decode` for larger values: a state machine's checkpoint, which has been verified. Text may be borrowed from it.
///
/// # Errors
/// They are of another value.
pub fn decode_large<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    decode_within(bytes, bytes.len() as u64)
}

fn decode_within<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: u64) -> Result<T, CodecError> {
    let decoded = options().with_limit(limit).deserialize(bytes);
    decoded.map_err(|error| CodecError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_and_left_over_bytes_are_refused() {
        let value = (7_u64, "text".to_owned(), vec![Some(1_u8), None]);
        let mut bytes = encode(&value);
        assert_eq!(bytes[..8], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode::<(u64, String, Vec<Option<u8>>)>(&bytes), Ok(value));
        bytes.push(0);
        assert!(decode::<(u64, String, Vec<Option<u8>>)>(&bytes).is_err());
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        assert!(decode::<Vec<u8>>(&u64::MAX.to_le_bytes()).is_err());
        assert!(decode::<String>(&(1_u64 << 30).to_le_bytes()).is_err());
    }
}

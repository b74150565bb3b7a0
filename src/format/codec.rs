//! Small control data as bytes. The only place that names `bincode`.
//!
//! Fixed-width little-endian integers, a size limit, and no bytes left over. Callers put magic,
//! version, length and CRC around it.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes that one value may take.
const BYTES_MAX: u64 = 16 << 20;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control data cannot be read: {0}")]
pub(crate) struct CodecError(String);

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .reject_trailing_bytes()
}

/// The value as bytes.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    options().serialize(value).expect("control data has known lengths and goes to memory")
}

/// The value that `encode` made the bytes from.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let decoded = options().with_limit(BYTES_MAX).deserialize(bytes);
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

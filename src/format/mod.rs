//! Bytes on disk and on the wire: layouts, CRCs, limits. No I/O.
//!
//! Integers are little-endian and of fixed width. A header's CRC is checked before anything in it is
//! believed, and a length is checked against what is there before anything is allocated for it.

use std::path::Path;

use crate::error::StorageError;
use crate::mutant::Mutant;

pub(crate) mod checkpoint;
pub mod codec;
pub(crate) mod committed;
pub(crate) mod damage_note;
pub(crate) mod entry;
pub(crate) mod envelope;
pub(crate) mod footer;
pub(crate) mod frame;
pub(crate) mod group;
pub(crate) mod manifest;
pub(crate) mod segment_header;
pub(crate) mod superblock;
pub(crate) mod vote;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// Fewer bytes than the layout or a length field says.
    #[error("the {what} needs {need} bytes, and {have} are left")]
    Short { what: &'static str, need: u64, have: u64 },
    /// The magic number is another one.
    #[error("no {what} begins here")]
    Magic { what: &'static str },
    /// A CRC over the bytes differs from the one stored.
    #[error("the CRC of the {what} does not match")]
    Crc { what: &'static str },
    /// Intact, but written by another version.
    #[error("the {what} has version {found}, and this program reads version {supported}")]
    Version { what: &'static str, found: u16, supported: u16 },
    /// Intact, but a field has a value that no writer gives it.
    #[error("the {what} has an impossible {field}")]
    Field { what: &'static str, field: &'static str },
    /// The codec refused.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
}

impl FormatError {
    /// The same as an error about `path` at byte `offset`.
    pub(crate) fn at(self, path: impl AsRef<Path>, offset: u64) -> StorageError {
        match self {
            Self::Version { found, supported, .. } => {
                StorageError::Version { path: path.as_ref().to_owned(), found, supported }
            }
            other => StorageError::corrupt(path, offset, other.to_string()),
        }
    }
}

/// Fails unless `bytes` holds at least `need` bytes.
fn need(what: &'static str, bytes: &[u8], need: usize) -> Result<(), FormatError> {
    if bytes.len() >= need {
        return Ok(());
    }
    Err(FormatError::Short { what, need: need as u64, have: bytes.len() as u64 })
}

/// Fails unless `holds`.
fn field(what: &'static str, field: &'static str, holds: bool) -> Result<(), FormatError> {
    if holds { Ok(()) } else { Err(FormatError::Field { what, field }) }
}

/// Checks the magic at 0, the CRC at `crc_at` of all before it, and the version.
fn check_header(
    what: &'static str,
    bytes: &[u8],
    magic: [u8; 4],
    crc_at: usize,
    version: (u16, u16),
) -> Result<(), FormatError> {
    need(what, bytes, crc_at + 4)?;
    if bytes[..4] != magic {
        return Err(FormatError::Magic { what });
    }
    let crc = crc32fast::hash(&bytes[..crc_at]);
    if crc != u32_at(bytes, crc_at) && !Mutant::HeaderCrcIgnored.is_active() {
        return Err(FormatError::Crc { what });
    }
    let (found, supported) = version;
    if found == supported { Ok(()) } else { Err(FormatError::Version { what, found, supported }) }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Stores the CRC of all before `at` there.
fn put_crc(bytes: &mut [u8], at: usize) {
    let crc = crc32fast::hash(&bytes[..at]);
    put(bytes, at, crc.to_le_bytes());
}

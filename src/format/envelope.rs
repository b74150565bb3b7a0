//! What encloses a small control file: magic, version, length, CRC.
//!
//! ```text
//! 0   4 bytes  magic
//! 4   u16      version
//! 6   u16      zero
//! 8   u64      length of the body
//! 16  u32      CRC of the body
//! 20  u32      CRC of bytes 0..20
//! 24  body
//! ```

use super::{FormatError, check_header, field, need, put, put_crc, u16_at, u32_at, u64_at};
use crate::mutant::Mutant;

/// Bytes before the body.
pub(crate) const ENVELOPE: usize = 24;

/// Kind of a control file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope {
    /// For messages.
    pub(crate) what: &'static str,
    pub(crate) magic: [u8; 4],
    pub(crate) version: u16,
}

impl Envelope {
    /// Encloses `body`.
    pub(crate) fn seal(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; ENVELOPE + body.len()];
        put(&mut bytes, 0, self.magic);
        put(&mut bytes, 4, self.version.to_le_bytes());
        put(&mut bytes, 8, (body.len() as u64).to_le_bytes());
        put(&mut bytes, 16, crc32fast::hash(body).to_le_bytes());
        put_crc(&mut bytes[..ENVELOPE], ENVELOPE - 4);
        bytes[ENVELOPE..].copy_from_slice(body);
        bytes
    }

    /// The body, intact and alone.
    pub(crate) fn open<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let what = self.what;
        need(what, bytes, ENVELOPE)?;
        let (head, body) = bytes.split_at(ENVELOPE);
        check_header(what, head, self.magic, ENVELOPE - 4, (u16_at(head, 4), self.version))?;
        field(what, "reserved field", u16_at(head, 6) == 0)?;
        let (need, have) = (u64_at(head, 8), body.len() as u64);
        if need > have {
            return Err(FormatError::Short { what, need, have });
        }
        field(what, "length", need == have)?;
        let crc = crc32fast::hash(body);
        if crc != u32_at(head, 16) && !Mutant::ControlFileCrcIgnored.is_active() {
            return Err(FormatError::Crc { what });
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Envelope = Envelope { what: "sample", magic: *b"TEST", version: 3 };

    #[test]
    fn a_body_comes_back_whole_or_not_at_all() {
        let good = SAMPLE.seal(b"body");
        assert_eq!(SAMPLE.open(&good), Ok(&b"body"[..]));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SAMPLE.open(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(SAMPLE.open(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(SAMPLE.open(&[good, vec![0]].concat()).is_err(), "trailing byte");
    }

    #[test]
    fn another_version_is_named() {
        let newer = Envelope { version: 4, ..SAMPLE }.seal(b"");
        let error = SAMPLE.open(&newer).expect_err("newer");
        assert_eq!(error, FormatError::Version { what: "sample", found: 4, supported: 3 });
    }
}

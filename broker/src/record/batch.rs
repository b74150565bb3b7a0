//! The body of a batch: messages one after another, each with what differs.
//!
//! ```text
//! u32 size | u32 0 | u32 0 | i32 flag | i32 body length | body | i16 properties length | properties
//! ```

use bytes::{Buf as _, Bytes};

use super::layout::RecordError;

/// One message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) flag: i32,
    pub(crate) body: Bytes,
    pub(crate) properties: String,
}

/// Takes a batch apart.
///
/// # Errors
/// A length that lies, too many messages, or properties that are no UTF-8.
pub(crate) fn split(mut body: Bytes, parts_max: usize) -> Result<Vec<Part>, RecordError> {
    let mut parts = Vec::new();
    while !body.is_empty() {
        if parts.len() == parts_max {
            return Err(RecordError(format!("a batch of more than {parts_max} messages")));
        }
        let size = body.clone().try_get_u32().map_err(|_| RecordError::cut("batch"))? as usize;
        if size > body.len() || size < 22 {
            return Err(RecordError::cut("batch"));
        }
        let mut part = body.split_to(size);
        part.advance(12);
        let flag = part.get_i32();
        let length = usize::try_from(part.get_i32()).map_err(|_| RecordError::cut("body"))?;
        if length.saturating_add(2) > part.len() {
            return Err(RecordError::cut("body"));
        }
        let content = part.split_to(length);
        let length = usize::try_from(part.get_i16()).map_err(|_| RecordError::cut("properties"))?;
        if length != part.len() {
            return Err(RecordError::cut("properties"));
        }
        let properties = std::str::from_utf8(&part)
            .map_err(|_| RecordError("properties that are no UTF-8".to_owned()))?;
        parts.push(Part { flag, body: content, properties: properties.to_owned() });
    }
    Ok(parts)
}

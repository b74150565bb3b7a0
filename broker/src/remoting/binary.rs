//! Headers in RocketMQ's binary form.

use bytes::{Buf as _, BufMut as _};

use super::command::Head;
use super::fields::FIELDS_MAX;
use super::speaker::Speaker;

fn bad(what: &str) -> String {
    format!("its {what} is cut short or is not UTF-8")
}

/// `length` bytes as text; checked against what there is before anything is copied.
fn text<'a>(from: &mut &'a [u8], length: usize, what: &str) -> Result<&'a str, String> {
    if from.len() < length {
        return Err(bad(what));
    }
    let (head, rest) = from.split_at(length);
    *from = rest;
    std::str::from_utf8(head).map_err(|_| bad(what))
}

/// Reads a header. Of a bad header it reads enough to answer it.
///
/// # Errors
/// The problem, and the parts that could be read.
pub(super) fn decode(bytes: &[u8]) -> Result<Head, (Head, String)> {
    let mut head = Head { code: -1, ..Head::default() };
    match read(bytes, &mut head) {
        Ok(()) => Ok(head),
        Err(problem) => Err((head, problem)),
    }
}

fn read(mut from: &[u8], head: &mut Head) -> Result<(), String> {
    let from = &mut from;
    if from.len() < 2 + 1 + 2 + 4 + 4 + 4 {
        return Err(bad("fixed part"));
    }
    head.code = i32::from(from.get_i16());
    head.speaker = Speaker::new(from.get_u8(), i32::from(from.get_i16()));
    (head.opaque, head.flag) = (from.get_i32(), from.get_i32());
    head.remark = match usize::try_from(from.get_i32()).map_err(|_| bad("remark"))? {
        0 => None,
        length => Some(text(from, length, "remark")?.to_owned()),
    };
    let length = from.try_get_i32().map_err(|_| bad("length of fields"))?;
    let length = usize::try_from(length).map_err(|_| bad("length of fields"))?;
    let mut rest = from.get(..length).ok_or_else(|| bad("fields"))?;
    while !rest.is_empty() {
        let length = rest.try_get_i16().ok().and_then(|length| usize::try_from(length).ok());
        let name = text(&mut rest, length.ok_or_else(|| bad("field's name"))?, "field's name")?;
        let length = rest.try_get_i32().ok().and_then(|length| usize::try_from(length).ok());
        let value = text(&mut rest, length.ok_or_else(|| bad("field's value"))?, "field's value")?;
        head.fields.push(name, value);
        if head.fields.len() > FIELDS_MAX {
            return Err(format!("it has more than {FIELDS_MAX} fields"));
        }
    }
    Ok(())
}

/// Puts a header behind what is there.
pub(super) fn encode(head: &Head, out: &mut Vec<u8>) {
    // Codes that need more bits are only between our own brokers, which write JSON.
    out.put_i16(i16::try_from(head.code).unwrap_or(i16::MAX));
    out.put_u8(head.speaker.number());
    out.put_i16(i16::try_from(head.speaker.version).unwrap_or(i16::MAX));
    out.put_i32(head.opaque);
    out.put_i32(head.flag);
    let remark = head.remark.as_deref().unwrap_or_default();
    out.put_u32(remark.len() as u32);
    out.put_slice(remark.as_bytes());
    let mut fields = Vec::new();
    for (name, value) in head.fields.iter().filter(|(name, _)| name.len() <= i16::MAX as usize) {
        fields.put_u16(name.len() as u16);
        fields.put_slice(name.as_bytes());
        fields.put_u32(value.len() as u32);
        fields.put_slice(value.as_bytes());
    }
    out.put_u32(fields.len() as u32);
    out.put_slice(&fields);
}

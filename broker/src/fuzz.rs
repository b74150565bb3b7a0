//! What fuzz targets call: any bytes are read without a panic, and what was read is written so that it is read again the same.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::record::{Message, Properties, split_batch};
use super::remoting::{Command, Fields, object_keys};

/// A frame of the remoting protocol without its length word: header in either encoding, and body.
///
/// # Panics
/// It is read differently the second time.
pub fn frame(bytes: &[u8]) {
    let Ok(command) = Command::decode(Bytes::copy_from_slice(bytes)) else { return };
    let fields = &command.head.fields;
    for (name, _) in fields.iter() {
        let _ = (fields.number(name), fields.int_or(name, 0), fields.flag(name));
    }
    // A binary header has 16 bits for a code, and JSON ones hold more.
    if i16::try_from(command.head.code).is_err() {
        return;
    }
    let written = Bytes::from(command.clone().encode().concat());
    let again = Command::decode(written.slice(4..));
    assert_eq!(again.as_ref().map(|it| &it.head.fields), Ok(fields), "{command:?}");
    assert_eq!(again.map(|it| it.body), Ok(command.body));
}

/// Messages as they are stored, one after another.
///
/// # Panics
/// One is written differently from how it was read.
pub fn records(bytes: &[u8]) {
    let mut left = Bytes::copy_from_slice(bytes);
    while !left.is_empty() {
        let Ok(stored) = Message::take_bytes(&mut left) else { return };
        let Ok(message) = Message::decode(stored) else { return };
        let mut written = BytesMut::new();
        message.encode(&mut written);
        assert_eq!(Message::decode(written.freeze()), Ok(message));
    }
}

/// The body of a batch.
///
/// # Panics
/// It holds more than it can.
pub fn batch(bytes: &[u8]) {
    let Ok(parts) = split_batch(Bytes::copy_from_slice(bytes), 4096) else { return };
    let held = parts.iter().map(|part| 22 + part.body.len() + part.properties.len()).sum::<usize>();
    assert_eq!(held, bytes.len());
}

/// Properties of a message.
///
/// # Panics
/// They are read differently the second time.
pub fn properties(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = Properties::parse(text);
    assert_eq!(Properties::parse(&read.to_text()), read);
    let _ = Properties::find(text, "KEYS");
}

/// Bodies in JSON: as requests have them, and with objects for keys.
///
/// # Panics
/// Standard JSON is not read.
pub fn bodies(bytes: &[u8]) {
    let mut command = Command::request(0, 0, Fields::default());
    command.body = Bytes::copy_from_slice(bytes);
    let read = command.json_body::<Value>();
    assert!(read.is_ok() || serde_json::from_slice::<Value>(bytes).is_err(), "{read:?}");
    let _ = std::str::from_utf8(bytes).map(object_keys::read);
}

/// What is done with any bytes.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("frame", frame),
    ("records", records),
    ("batch", batch),
    ("properties", properties),
    ("bodies", bodies),
];

//! Headers in JSON, as lenient as stock clients need it.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::command::Head;
use super::fields::Fields;
use super::frame::FrameError;
use super::plain_json;
use super::speaker::Speaker;

/// A header as clients write it: every key but the code may be missing (L1), and unknown ones are passed over.
#[derive(Deserialize)]
struct Read {
    code: i32,
    #[serde(default)]
    opaque: i32,
    #[serde(default)]
    flag: i32,
    #[serde(default)]
    language: Value,
    #[serde(default)]
    version: Value,
    #[serde(default)]
    remark: Option<String>,
    #[serde(default, rename = "extFields")]
    fields: Option<Fields>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut name = String::new();
        while map.next_key_seed(Name(&mut name))?.is_some() {
            map.next_value_seed(Field { name: &name, fields: &mut fields })?;
        }
        Ok(fields)
    }
}

/// Puts a name where the one before was.
struct Name<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(name);
        Ok(())
    }
}

/// Adds a field of this name. Values may be numbers, booleans and anything else (L2); null is none.
struct Field<'a> {
    name: &'a str,
    fields: &'a mut Fields,
}

impl Field<'_> {
    fn push(self, value: &str) {
        self.fields.push(self.name, value);
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's value")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.push(value);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.push(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.push(&value.to_string());
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.push(&value.to_string());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.push(&Value::from(value).to_string());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let value = Value::deserialize(SeqAccessDeserializer::new(seq))?;
        self.push(&value.to_string());
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let value = Value::deserialize(MapAccessDeserializer::new(map))?;
        self.push(&value.to_string());
        Ok(())
    }
}

/// Reads a header.
///
/// # Errors
/// It is none.
pub(super) fn decode(bytes: &[u8]) -> Result<Head, FrameError> {
    plain_json::decode(bytes).map_or_else(|| decode_whole(bytes), Ok)
}

/// Reads all that JSON allows.
pub(super) fn decode_whole(bytes: &[u8]) -> Result<Head, FrameError> {
    let Read { code, opaque, flag, language, version, remark, fields } =
        serde_json::from_slice(bytes).map_err(|error| FrameError::Header(error.to_string()))?;
    let speaker = Speaker::read(&language, &version);
    Ok(Head { code, opaque, flag, remark, fields: fields.unwrap_or_default(), speaker })
}

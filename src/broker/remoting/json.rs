//! Headers in JSON, as lenient as stock clients need it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::Head;
use super::fields::Fields;
use super::frame::FrameError;
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
    fields: Option<BTreeMap<String, Value>>,
}

/// A header as Java reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    code: i32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ext_fields: BTreeMap<&'a str, &'a str>,
    flag: i32,
    language: &'static str,
    opaque: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<&'a str>,
    #[serde(rename = "serializeTypeCurrentRPC")]
    serialize_type: &'static str,
    version: i32,
}

/// Values may be numbers and booleans (L2).
fn as_text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Head, FrameError> {
    let Read { code, opaque, flag, language, version, remark, fields } =
        serde_json::from_slice(bytes).map_err(|error| FrameError::Header(error.to_string()))?;
    let fields = fields.unwrap_or_default().into_iter();
    let fields: Fields =
        fields.filter_map(|(name, value)| as_text(value).map(|text| (name, text))).collect();
    let speaker = Speaker::read(&language, &version);
    Ok(Head { code, opaque, flag, remark, fields, speaker })
}

pub(super) fn encode(head: &Head) -> Vec<u8> {
    let written = Written {
        code: head.code,
        ext_fields: head.fields.iter().collect(),
        flag: head.flag,
        language: head.speaker.language(),
        opaque: head.opaque,
        remark: head.remark.as_deref(),
        serialize_type: "JSON",
        version: head.speaker.version,
    };
    serde_json::to_vec(&written).expect("text and numbers can be written as JSON")
}

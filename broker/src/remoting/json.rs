//! Headers in JSON, as lenient as programs need it: it reads every part that can be read.

use serde_json::{Map, Value};

use super::command::Head;
use super::fields::{FIELDS_MAX, Fields};
use super::lenient_json::{self, JsonError};
use super::plain_json;
use super::speaker::Speaker;

/// Reads a header. Every key but the code may be missing (L1), and unknown ones are passed over. Of a bad
/// header it reads enough to answer it.
///
/// # Errors
/// The problem, and the parts that could be read.
pub(super) fn decode(bytes: &[u8]) -> Result<Head, (Head, String)> {
    plain_json::decode(bytes).map_or_else(|| decode_whole(bytes), Ok)
}

/// Reads all that programs write.
pub(super) fn decode_whole(bytes: &[u8]) -> Result<Head, (Head, String)> {
    let (mut members, problem) = lenient_json::members(bytes);
    let mut problem = problem.as_ref().map(JsonError::to_string);
    if problem.is_some() {
        for name in ["opaque", "flag"] {
            if let Some(number) = lenient_json::number_named(bytes, name) {
                members.entry(name).or_insert(Value::Number(number));
            }
        }
    }
    let member = |name: &str| members.get(name).unwrap_or(&Value::Null);
    let code = whole(member("code")).and_then(|code| i32::try_from(code).ok());
    // As Java makes an int of a long.
    let int = |name: &str| whole(member(name)).unwrap_or_default() as i32;
    let mut head = Head {
        code: code.unwrap_or(-1),
        opaque: int("opaque"),
        flag: int("flag"),
        remark: member("remark").as_str().map(str::to_owned),
        fields: Fields::default(),
        speaker: Speaker::read(member("language"), member("version")),
    };
    if code.is_none() {
        problem.get_or_insert_with(|| "it has no code".to_owned());
    }
    match member("extFields") {
        Value::Object(fields) if fields.len() > FIELDS_MAX => {
            problem.get_or_insert_with(|| format!("it has more than {FIELDS_MAX} fields"));
        }
        Value::Object(fields) => put_fields(fields, &mut head.fields),
        _ => {}
    }
    match problem {
        None => Ok(head),
        Some(problem) => Err((head, problem)),
    }
}

/// Values may be numbers, booleans and anything else (L2); null is none. A whole number stays one however it is written:
/// Python writes some with a fraction.
fn put_fields(from: &Map<String, Value>, fields: &mut Fields) {
    for (name, value) in from {
        match value {
            Value::Null => {}
            Value::String(text) => fields.push(name, text),
            Value::Number(_) => match whole(value) {
                Some(number) => fields.push_shown(name, number),
                None => fields.push_shown(name, value),
            },
            other => fields.push_shown(name, other),
        }
    }
}

/// Whole numbers above this one are not all told apart once they are floating point.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number, however it is written.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => {
            let unsigned = || number.as_u64().map(|number| number as i64);
            let is_whole = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT_MAX;
            let float = number.as_f64().filter(is_whole);
            let float = || float.map(|number| number as i64);
            number.as_i64().or_else(unsigned).or_else(float)
        }
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

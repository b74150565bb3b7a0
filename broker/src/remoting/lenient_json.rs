//! JSON as programs write it, which is more than the standard allows: JavaScript and Python escape halves of surrogate
//! pairs, Python writes `NaN` and `Infinity`, and either writes numbers of any size and one name twice. None of that is a reason
//! not to understand a request.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

/// Values that are nested deeper are passed over, and count as null.
const DEPTH_MAX: usize = 32;
/// Values of one document. Each takes some tens of bytes, and two in the text.
const VALUES_MAX: usize = 65_536;
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// Text that is no JSON, too much of it, or not what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// Reads a document. Bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD; of two values with one name the
/// last one counts; what no number can hold is null.
///
/// # Errors
/// It is no JSON, or has more than 65,536 values.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = text(bytes);
    let mut reader = Reader::new(&text);
    let value = reader.value(0)?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.error("more than one value")),
    }
}

/// The members of an object, as far as they can be read; and why not all of them could be.
pub(super) fn members(bytes: &[u8]) -> (Map<String, Value>, Option<JsonError>) {
    let text = text(bytes);
    let mut reader = Reader::new(&text);
    let mut members = Map::new();
    let mut read = || {
        if reader.peek() != Some(b'{') {
            return Err(reader.error("no object"));
        }
        reader.object(0, &mut members)?;
        reader.peek().map_or(Ok(()), |_| Err(reader.error("more than one value")))
    };
    let problem = read().err();
    (members, problem)
}

/// The number that stands behind a name somewhere in text that is no JSON.
pub(super) fn number_named(bytes: &[u8], name: &str) -> Option<Number> {
    let text = text(bytes);
    let quoted = format!("\"{name}\"");
    let mut found = text.match_indices(&quoted);
    found.find_map(|(at, _)| {
        // A quote that is escaped belongs to another text.
        if text[..at].ends_with('\\') {
            return None;
        }
        let mut reader = Reader { at: at + quoted.len(), ..Reader::new(&text) };
        reader.takes(b':').then(|| reader.number().ok()).flatten()
    })
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        Self { text, at, values: 0 }
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError(format!("{what} at byte {}", self.at))
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let b' ' | b'\n' | b'\r' | b'\t' | 0x0B | 0x0C = bytes.get(self.at)? {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn takes(&mut self, wanted: u8) -> bool {
        let takes = self.peek() == Some(wanted);
        self.at += usize::from(takes);
        takes
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(self.error("too many values"));
        }
        match self.peek().ok_or_else(|| self.error("a value is missing"))? {
            b'{' | b'[' if depth >= DEPTH_MAX => self.pass_over().map(|()| Value::Null),
            b'{' => {
                let mut members = Map::new();
                self.object(depth, &mut members)?;
                Ok(Value::Object(members))
            }
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => Ok(self.number().map_or(Value::Null, Value::Number)),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize, members: &mut Map<String, Value>) -> Result<(), JsonError> {
        self.at += 1;
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error("a name is missing"));
            }
            let name = self.string()?;
            if !self.takes(b':') {
                return Err(self.error("a colon is missing"));
            }
            let value = self.value(depth + 1)?;
            members.insert(name, value);
            if !self.takes(b',') {
                return if self.takes(b'}') {
                    Ok(())
                } else {
                    Err(self.error("an object has no end"))
                };
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut values = Vec::new();
        if self.takes(b']') {
            return Ok(Value::Array(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            if !self.takes(b',') {
                let ended = self.takes(b']');
                return if ended {
                    Ok(Value::Array(values))
                } else {
                    Err(self.error("a list has no end"))
                };
            }
        }
    }

    /// Passes over an object or a list, however deep. What is in it need only have quotes and brackets that match.
    fn pass_over(&mut self) -> Result<(), JsonError> {
        let mut open = 0_usize;
        loop {
            match self.peek().ok_or_else(|| self.error("a value has no end"))? {
                b'"' => {
                    self.raw_string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// What stands between quotes, and whether there are escapes in it.
    fn raw_string(&mut self) -> Result<(&'a str, bool), JsonError> {
        let bytes = self.text.as_bytes();
        let begin = self.at + 1;
        let (mut end, mut escaped) = (begin, false);
        loop {
            match bytes.get(end).ok_or_else(|| self.error("a text has no end"))? {
                b'"' => break,
                b'\\' => (end, escaped) = (end + 2, true),
                _ => end += 1,
            }
        }
        let raw = self.text.get(begin..end).ok_or_else(|| self.error("an escape that is none"))?;
        self.at = end + 1;
        Ok((raw, escaped))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        match self.raw_string()? {
            (raw, false) => Ok(raw.to_owned()),
            (raw, true) => Ok(unescaped(raw)),
        }
    }

    /// A number in any notation.
    ///
    /// # Errors
    /// There is none here, or a number cannot hold it.
    fn number(&mut self) -> Result<Number, JsonError> {
        self.peek();
        let rest = &self.text[self.at..];
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let length = rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let digits = &rest[..length];
        self.at += length;
        let whole = digits.parse::<i64>().map(Number::from);
        let whole = whole.or_else(|_| digits.parse::<u64>().map(Number::from));
        let number = whole.ok().or_else(|| Number::from_f64(digits.parse().ok()?));
        number.ok_or_else(|| self.error("no number"))
    }

    fn word(&mut self) -> Result<Value, JsonError> {
        let rest = &self.text[self.at..];
        let length =
            rest.bytes().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(rest.len());
        let value = match &rest[..length] {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" | "undefined" | "NaN" | "Infinity" => Value::Null,
            _ => return Err(self.error("no value")),
        };
        self.at += length;
        Ok(value)
    }
}

/// What `raw` stands for. An escape that is none stands for what follows the backslash, as in JavaScript.
fn unescaped(mut raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    while let Some((plain, rest)) = raw.split_once('\\') {
        out.push_str(plain);
        let mut chars = rest.chars();
        let escape = chars.next();
        raw = chars.as_str();
        match escape {
            Some('b') => out.push('\x08'),
            Some('f') => out.push('\x0C'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => match unit(raw) {
                Some(first) => {
                    raw = &raw[4..];
                    let second = raw.strip_prefix("\\u").and_then(unit);
                    let (char, both) = pair(first, second);
                    out.push(char);
                    raw = if both { &raw[6..] } else { raw };
                }
                None => out.push('u'),
            },
            Some(other) => out.push(other),
            None => {}
        }
    }
    out.push_str(raw);
    out
}

/// Four hexadecimal digits at the begin of a text.
fn unit(raw: &str) -> Option<u16> {
    let digits = raw.get(..4).filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// The character of one UTF-16 unit, or of two that belong together; true if both are used.
fn pair(first: u16, second: Option<u16>) -> (char, bool) {
    let one = |unit: u16| char::decode_utf16([unit]).next().and_then(Result::ok);
    if let Some(char) = one(first) {
        return (char, false);
    }
    let two = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    two.map_or((char::REPLACEMENT_CHARACTER, false), |char| (char, true))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_javascript_and_python_write_is_read() {
        for (text, value) in [
            (r#""\ud83d\ude00""#, json!("\u{1F600}")),
            (r#""a\ud83db""#, json!("a\u{FFFD}b")),
            (r#""\ude00\ud83d""#, json!("\u{FFFD}\u{FFFD}")),
            (r#""\ud83d\u0041""#, json!("\u{FFFD}A")),
            (r#""\ud83d\\u0041""#, json!("\u{FFFD}\\u0041")),
            (r#""\/\b\f\n\r\t\"\\\u0000""#, json!("/\x08\x0C\n\r\t\"\\\0")),
            (r#""\x\'\u12""#, json!("x'u12")),
            ("\"\n\t\"", json!("\n\t")),
            ("NaN", json!(null)),
            ("-Infinity", json!(null)),
            ("[Infinity, NaN , -NaN]", json!([null, null, null])),
            ("1e999", json!(null)),
            ("-0", json!(0)),
            ("1E3", json!(1e3)),
            ("18446744073709551615", json!(u64::MAX)),
            ("123456789012345678901234567890", json!(123456789012345678901234567890_f64)),
            (r#"{"a":1,"a":{"b":[]},"a":2}"#, json!({ "a": 2 })),
            ("\u{FEFF} {} \r\n", json!({})),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(value), "{text}");
        }
        assert_eq!(
            parse(b"\"a\xff\xed\xa0\xbdb\""),
            Ok(json!("a\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}b"))
        );
        let deep = format!("[{}{}, 7]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(deep.as_bytes()).expect("it is JSON")[1], 7);
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in [
            "",
            "{",
            "[1 2]",
            "{\"a\" 1}",
            "{a:1}",
            "{'a':1}",
            "nul",
            "1 2",
            "\"\\",
            "[",
            "{\"a\":1,}",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert!(parse(many.as_bytes()).is_err());
        let deep = "[".repeat(1 << 20);
        assert!(parse(deep.as_bytes()).is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300_f64).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The same, with fractions as precise as serde reads them.
    fn rounded(value: Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => {
                json!(number.as_f64().expect("one") as f32)
            }
            Value::Array(values) => values.into_iter().map(rounded).collect(),
            Value::Object(members) => {
                members.into_iter().map(|(name, value)| (name, rounded(value))).collect()
            }
            other => other,
        }
    }

    /// As Python writes text: all of it in ASCII.
    fn ascii(text: &str) -> String {
        let units = |char: char| {
            let mut room = [0; 2];
            let units = char.encode_utf16(&mut room);
            units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
        };
        text.chars().map(|it| if it.is_ascii() { it.to_string() } else { units(it) }).collect()
    }

    proptest! {
        #[test]
        fn standard_json_is_read_as_serde_reads_it(value in values()) {
            for text in [value.to_string(), format!("{value:#}"), ascii(&value.to_string())] {
                let read = parse(text.as_bytes()).map(rounded);
                prop_assert_eq!(read, Ok(rounded(value.clone())), "{}", text);
            }
        }

        #[test]
        fn damaged_json_is_read_or_refused(value in values(), at: usize, byte: u8, cut: bool) {
            let mut bytes = value.to_string().into_bytes();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            let _ = (parse(&bytes), members(&bytes), number_named(&bytes, "opaque"));
            // What serde takes, we take.
            if let Ok(value) = serde_json::from_slice(&bytes) {
                prop_assert_eq!(parse(&bytes).map(rounded), Ok(rounded(value)));
            }
        }
    }
}

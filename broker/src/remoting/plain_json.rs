//! Headers in JSON as programs write them: an object of texts, numbers and words, in it the fields. Read and written in
//! one pass, since every message has two. What else JSON allows is left to a whole reader.

use super::command::Head;
use super::fields::{FIELDS_MAX, Fields};
use super::speaker::Speaker;
use crate::mutant::Mutant;

/// Digits of the numbers that are read here: all of them fit 64 bits.
const DIGITS_MAX: usize = 18;
/// Fields that are read here. Each name is looked for among those before it, so many of them are left to the whole reader.
const PLAIN_FIELDS_MAX: usize = 64;

/// Reads a header. None says nothing about it but that it is not so plain.
pub(super) fn decode(bytes: &[u8]) -> Option<Head> {
    let mut reader = Reader { text: std::str::from_utf8(bytes).ok()?, at: 0 };
    let (mut code, mut opaque, mut flag, mut version) = (None, None, None, None);
    let (mut language, mut remark, mut fields) = (None, None, None);
    reader.object(|name, reader| match name {
        "code" => once(&mut code, reader.int()?),
        "opaque" => once(&mut opaque, reader.int()?),
        "flag" => once(&mut flag, reader.int()?),
        "version" => once(&mut version, reader.int()?),
        "language" => once(&mut language, reader.plain_text()?),
        "remark" => once(&mut remark, reader.remark()?),
        "extFields" => once(&mut fields, reader.fields()?),
        _ => reader.value().map(drop),
    })?;
    if reader.peek().is_some() {
        return None;
    }
    Some(Head {
        code: code?,
        opaque: opaque.unwrap_or_default(),
        flag: flag.unwrap_or_default(),
        remark: remark.flatten(),
        fields: fields.unwrap_or_default(),
        speaker: Speaker::named(language?, version?)?,
    })
}

/// None if there is one already.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// A value that holds no other.
enum Value<'a> {
    /// What stands between the quotes.
    Text {
        raw: &'a str,
        escaped: bool,
    },
    /// A number, or a word other than null.
    Other(&'a str),
    Null,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let b' ' | b'\n' | b'\r' | b'\t' = bytes.get(self.at)? {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn takes(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Calls `member` with each name, to read what follows it.
    fn object(&mut self, mut member: impl FnMut(&'a str, &mut Self) -> Option<()>) -> Option<()> {
        self.takes(b'{')?;
        if self.takes(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.plain_text()?;
            self.takes(b':')?;
            member(name, self)?;
            if self.takes(b',').is_none() {
                return self.takes(b'}');
            }
        }
    }

    fn value(&mut self) -> Option<Value<'a>> {
        Some(match self.peek()? {
            b'"' => self.quoted()?,
            b'-' | b'0'..=b'9' => Value::Other(self.number()?),
            b't' => Value::Other(self.word("true")?),
            b'f' => Value::Other(self.word("false")?),
            b'n' => self.word("null").map(|_| Value::Null)?,
            _ => return None,
        })
    }

    fn quoted(&mut self) -> Option<Value<'a>> {
        let bytes = self.text.as_bytes();
        let begin = self.at + 1;
        let (mut end, mut escaped) = (begin, false);
        loop {
            match bytes.get(end)? {
                b'"' => break,
                b'\\' => (end, escaped) = (end + 2, true),
                0..0x20 => return None,
                _ => end += 1,
            }
        }
        self.at = end + 1;
        Some(Value::Text { raw: self.text.get(begin..end)?, escaped })
    }

    fn number(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.starts_with('-'));
        let digits = &rest.as_bytes()[sign..];
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // No number begins with a zero, and minus zero is one with a fraction.
        let zero = digits.first() == Some(&b'0') && sign + count > 1;
        self.at += sign + count;
        ((1..=DIGITS_MAX).contains(&count) && !zero).then(|| &rest[..sign + count])
    }

    fn word(&mut self, word: &'static str) -> Option<&'static str> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())?;
        Some(word)
    }

    fn int(&mut self) -> Option<i32> {
        match self.value()? {
            Value::Other(number) => number.parse().ok(),
            Value::Text { .. } | Value::Null => None,
        }
    }

    fn plain_text(&mut self) -> Option<&'a str> {
        match self.value()? {
            Value::Text { raw, escaped: false } => Some(raw),
            _ => None,
        }
    }

    fn remark(&mut self) -> Option<Option<String>> {
        match self.value()? {
            Value::Text { raw, .. } => {
                let mut remark = String::with_capacity(raw.len());
                unescape(raw, &mut remark)?;
                Some(Some(remark))
            }
            Value::Null => Some(None),
            Value::Other(_) => None,
        }
    }

    fn fields(&mut self) -> Option<Fields> {
        // Without its quotes and escapes it is shorter.
        let mut fields = Fields::with_room(self.text.len() - self.at);
        let mut seen = 0_u64;
        self.object(|name, reader| {
            // Of a name that appears twice the last value counts, which is for the whole reader.
            let bit = bit_of(name);
            if seen & bit != 0 && fields.get(name).is_some() {
                return None;
            }
            seen |= bit;
            match reader.value()? {
                Value::Text { raw, escaped: true } => {
                    fields.push_with(name, |text| unescape(raw, text))?;
                }
                Value::Text { raw, .. } | Value::Other(raw) => fields.push(name, raw),
                Value::Null => {}
            }
            let most = match Mutant::PlainFieldsUnbounded.is_active() {
                true => FIELDS_MAX,
                false => PLAIN_FIELDS_MAX,
            };
            (fields.len() <= most).then_some(())
        })?;
        Some(fields)
    }
}

/// One of 64 bits for a name, so that most names are known to be new without a search.
fn bit_of(name: &str) -> u64 {
    let ends = [name.bytes().next(), name.bytes().next_back()];
    let mixed =
        ends.into_iter().flatten().fold(name.len(), |sum, byte| sum * 7 + usize::from(byte));
    1 << (mixed % 64)
}

/// Puts what `raw` stands for behind `out`. None for halves of a pair, and what is no escape.
fn unescape(mut raw: &str, out: &mut String) -> Option<()> {
    while let Some((plain, rest)) = raw.split_once('\\') {
        out.push_str(plain);
        let escape = *rest.as_bytes().first()?;
        raw = rest.get(1..)?;
        out.push(match escape {
            b'"' | b'\\' | b'/' => escape.into(),
            b'b' => '\x08',
            b'f' => '\x0C',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let digits =
                    raw.get(..4).filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
                raw = &raw[4..];
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        });
    }
    out.push_str(raw);
    Some(())
}

/// Puts a header behind what is there, as Java reads it.
pub(super) fn encode(head: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":");
    put_number(out, head.code);
    if !head.fields.is_empty() {
        out.extend_from_slice(b",\"extFields\":");
        let mut before = b'{';
        for (name, value) in head.fields.iter() {
            out.push(before);
            put_text(out, name);
            out.push(b':');
            put_text(out, value);
            before = b',';
        }
        out.push(b'}');
    }
    out.extend_from_slice(b",\"flag\":");
    put_number(out, head.flag);
    out.extend_from_slice(b",\"language\":");
    put_text(out, head.speaker.language());
    out.extend_from_slice(b",\"opaque\":");
    put_number(out, head.opaque);
    if let Some(remark) = &head.remark {
        out.extend_from_slice(b",\"remark\":");
        put_text(out, remark);
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_number(out, head.speaker.version);
    out.push(b'}');
}

fn put_number(out: &mut Vec<u8>, number: i32) {
    let mut digits = [0; 10];
    let (mut at, mut left) = (digits.len(), number.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut begin = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[begin..at]);
        begin = at + 1;
        out.push(b'\\');
        match byte {
            b'"' | b'\\' => out.push(*byte),
            b'\n' => out.push(b'n'),
            b'\r' => out.push(b'r'),
            b'\t' => out.push(b't'),
            _ => {
                out.extend_from_slice(b"u00");
                out.extend([byte >> 4, byte & 0xF].map(|digit| DIGITS[usize::from(digit)]));
            }
        }
    }
    out.extend_from_slice(&bytes[begin..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json;
    use super::*;

    /// What both readers say of a header; the plain one may have nothing to say.
    fn agree(bytes: &[u8]) -> bool {
        let plain = decode(bytes);
        if let Some(plain) = &plain {
            let whole = json::decode_whole(bytes);
            assert_eq!(whole.as_ref(), Ok(plain), "{}", String::from_utf8_lossy(bytes));
        }
        plain.is_some()
    }

    const SEND: &str = r#"{"code":310,"extFields":{"a":"g","b":"T","e":"3","g":"1700000000000","i":"UNIQ_KEY\u0001AB\u0002K\u0001é\"\\\/\b\f\n\r\t\u00e9\u0002","h":0,"k":false,"n":null,"x":-12},
        "flag":0,"language":"JAVA" , "opaque":-7,"remark":null,"serializeTypeCurrentRPC":"JSON","version":401}"#;

    #[test]
    fn what_stock_clients_write_is_plain() {
        assert!(agree(SEND.as_bytes()));
        assert!(agree(br#"{"language":"CPP","version":1,"code":0,"extFields":{},"more":true}"#));
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_whole_reader() {
        for header in [
            r#"{"code":1,"code":2,"language":"JAVA","version":1}"#,
            r#"{"code":1,"language":"JAVA","version":1}x"#,
            r#"{"code":1,"language":"JAVA","version":1,}"#,
            r#"{"code":01,"language":"JAVA","version":1}"#,
            r#"{"code":-0,"language":"JAVA","version":1}"#,
            r#"{"code":1.5,"language":"JAVA","version":1}"#,
            r#"{"code":1,"language":"JAVA","version":1,"extFields":{"a":1e3}}"#,
            r#"{"code":1,"language":"JAVA","version":1,"extFields":{"a":[1]}}"#,
            r#"{"code":1,"language":"JAVA","version":1,"extFields":{"a":"\ud83d\ude00"}}"#,
            r#"{"code":1,"language":"JAVA","version":1,"extFields":{"a":"\u+123"}}"#,
            r#"{"code":1,"language":"JAVA","version":1,"extFields":{"a":99999999999999999999}}"#,
            r#"{"code":1,"language":3,"version":"401"}"#,
            r#"{"code":1,"language":"JAVA","version":1,"extFields":{"a":1,"b":2,"a":3}}"#,
            r#"{"code":1,"language":"JAVA","version":1,"extFields":{"topic":1,"topic":null}}"#,
            "{\"code\":1,\"language\":\"JAVA\",\"version\":1,\"extFields\":{\"a\":\"\n\"}}",
        ] {
            assert!(!agree(header.as_bytes()), "{header}");
        }
    }

    #[test]
    fn so_many_fields_that_a_search_among_them_takes_long_are_left_to_the_whole_reader() {
        let with = |count: usize| {
            let fields: Vec<_> = (0..count).map(|n| format!(r#""f{n}":{n}"#)).collect();
            let fields = fields.join(",");
            format!(r#"{{"code":1,"language":"JAVA","version":1,"extFields":{{{fields}}}}}"#)
        };
        assert!(agree(with(PLAIN_FIELDS_MAX).as_bytes()));
        assert!(!agree(with(PLAIN_FIELDS_MAX + 1).as_bytes()));
    }

    #[test]
    fn both_readers_agree_wherever_a_header_is_cut() {
        for end in 0..SEND.len() {
            assert!(!agree(&SEND.as_bytes()[..end]), "{end}");
        }
    }

    proptest! {
        #[test]
        fn both_readers_agree_on_damaged_headers(at in 0..SEND.len(), byte: u8, other: u8) {
            let mut bytes = SEND.as_bytes().to_vec();
            bytes[at] = byte;
            agree(&bytes);
            bytes.insert(at, other);
            agree(&bytes);
        }

        #[test]
        fn what_is_written_is_json_and_read_again(
            code: i32,
            opaque: i32,
            remark in proptest::option::of(".*"),
            all in proptest::collection::vec((any::<String>(), any::<String>()), 0..8),
        ) {
            let fields: Fields = all.iter().map(|(name, value)| (name, value)).collect();
            let head = Head { code, opaque, remark, fields, ..Head::default() };
            let mut out = Vec::new();
            encode(&head, &mut out);
            prop_assert_eq!(json::decode_whole(&out), Ok(head.clone()));
            if let Some(plain) = decode(&out) {
                prop_assert_eq!(plain, head);
            }
        }
    }
}

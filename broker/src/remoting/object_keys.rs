//! Maps whose keys are objects, as RocketMQ's JSON has them: `{{"queueId":1}:7}`. Other JSON readers know no such thing.

use std::fmt::Write as _;

use serde_json::Value;

/// Deeper than any body is nested.
const DEPTH_MAX: usize = 32;

/// Writes such a map.
pub(crate) fn write(entries: impl IntoIterator<Item = (Value, Value)>) -> String {
    let mut text = String::from("{");
    entries.into_iter().for_each(|(key, value)| push(&mut text, &key, &value));
    text.push('}');
    text
}

/// Puts another entry behind those of such a map, which has no end yet.
pub(crate) fn push(text: &mut String, key: &Value, value: &Value) {
    let comma = if text.ends_with('{') { "" } else { "," };
    // Text takes all that is written.
    let _ = write!(text, "{comma}{key}:{value}");
}

/// Reads JSON in which keys may be objects or numbers: each such key is the text that stood there. None if it is no JSON.
pub(crate) fn read(text: &str) -> Option<Value> {
    let mut reader = Reader { text, at: 0, out: String::with_capacity(text.len() + 64) };
    reader.value(0)?;
    serde_json::from_str(&reader.out).ok().filter(|_| text[reader.at..].trim().is_empty())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The same with keys that are text.
    out: String,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes `wanted` over if it comes next.
    fn takes(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| {
            self.at += 1;
            self.out.push(char::from(wanted));
        })
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            open @ (b'{' | b'[') => {
                self.takes(open)?;
                let close = if open == b'{' { b'}' } else { b']' };
                while self.peek()? != close {
                    if open == b'{' {
                        self.key()?;
                        self.takes(b':')?;
                    }
                    self.value(depth + 1)?;
                    if self.takes(b',').is_none() {
                        break;
                    }
                }
                self.takes(close)
            }
            _ => {
                let plain = self.plain()?;
                self.out.push_str(plain);
                Some(())
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        let key = match self.peek()? {
            b'"' => self.plain()?.to_owned(),
            b'{' => serde_json::to_string(self.object()?).ok()?,
            _ => serde_json::to_string(self.plain()?).ok()?,
        };
        self.out.push_str(&key);
        Some(())
    }

    /// A string with its quotes, a number or a word.
    fn plain(&mut self) -> Option<&'a str> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = if *rest.first()? == b'"' {
            let mut escaped = false;
            let end = rest.iter().skip(1).position(|byte| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            });
            end? + 2
        } else {
            rest.iter().position(|byte| b",:{}[]\" \t\r\n".contains(byte)).unwrap_or(rest.len())
        };
        let plain = self.text.get(self.at..self.at + length).filter(|plain| !plain.is_empty())?;
        self.at += length;
        Some(plain)
    }

    /// An object of plain values, as it stands.
    fn object(&mut self) -> Option<&'a str> {
        let begin = self.at;
        loop {
            match self.peek()? {
                b'}' => {
                    self.at += 1;
                    return self.text.get(begin..self.at);
                }
                b'"' => drop(self.plain()?),
                b'{' if self.at > begin => return None,
                b'{' | b',' | b':' => self.at += 1,
                b'[' | b']' => return None,
                _ => drop(self.plain()?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_with_its_keys_as_text() {
        let key = json!({ "brokerName": "b", "queueId": 1, "topic": "T\"}{" });
        let text =
            write([(key.clone(), json!({ "x": [1, {}] })), (json!({ "queueId": 2 }), json!(7))]);
        assert_eq!(text, format!(r#"{{{key}:{{"x":[1,{{}}]}},{{"queueId":2}}:7}}"#));
        let map = read(&format!(" {text} ")).expect("it is JSON but for its keys");
        assert_eq!(map[key.to_string()], json!({ "x": [1, {}] }));
        assert_eq!(map[r#"{"queueId":2}"#], 7);
        assert_eq!(read(r#"{0:"a",1 : true}"#), Some(json!({ "0": "a", "1": true })));
    }

    #[test]
    fn what_is_no_json_is_none_wherever_it_is_cut_and_however_deep() {
        let text = r#"{"t":{{"a":"b","c":1}:{"d":[1,"e"]}},"f":null}"#;
        assert!(read(text).is_some());
        for end in 0..text.len() {
            assert_eq!(read(&text[..end]), None, "{}", &text[..end]);
        }
        for bad in ["", "{{{}:1}:1}", "{{[1]:2}:1}", "{1}", "[1 2]", "{} x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&"[".repeat(100_000)), None);
    }
}

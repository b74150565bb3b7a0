//! The subset of EDN that histories need: maps, vectors, keywords, strings, integers, booleans and nil.

use std::collections::BTreeMap;
use std::fmt::Write;

/// How deep values may lie within each other. Histories need five.
const DEPTH_MAX: u32 = 8;

/// A map with keywords as its keys.
pub(super) type Map<'a> = BTreeMap<&'a str, Value<'a>>;

#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Number(u64),
    Keyword(&'a str),
    Text(String),
    Vector(Vec<Self>),
    Map(Map<'a>),
}

impl<'a> Value<'a> {
    pub(super) fn number(&self) -> Option<u64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(super) fn keyword(&self) -> Option<&'a str> {
        if let Self::Keyword(keyword) = self { Some(keyword) } else { None }
    }

    /// A vector of numbers.
    pub(super) fn numbers(&self) -> Option<Vec<u64>> {
        let Self::Vector(values) = self else { return None };
        values.iter().map(Self::number).collect()
    }

    /// A vector of pairs of numbers; nil is an empty one.
    pub(super) fn pairs(&self) -> Option<Vec<(u64, u64)>> {
        let pair = |value: &Self| match value {
            Self::Vector(pair) if pair.len() == 2 => Some((pair[0].number()?, pair[1].number()?)),
            _ => None,
        };
        match self {
            Self::Nil => Some(Vec::new()),
            Self::Vector(values) => values.iter().map(pair).collect(),
            _ => None,
        }
    }

    /// The same as JSON; names get underscores for dashes.
    pub(super) fn into_json(self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Nil => Json::Null,
            Self::Bool(bool) => Json::Bool(bool),
            Self::Number(number) => Json::from(number),
            Self::Keyword(keyword) => Json::String(keyword.to_owned()),
            Self::Text(text) => Json::String(text),
            Self::Vector(values) => Json::Array(values.into_iter().map(Self::into_json).collect()),
            Self::Map(map) => {
                let pair = |(key, value): (&str, Self)| (key.replace('-', "_"), value.into_json());
                Json::Object(map.into_iter().map(pair).collect())
            }
        }
    }
}

/// Writes JSON as EDN; names get dashes for underscores.
pub(super) fn from_json(json: &serde_json::Value, out: &mut String) {
    use serde_json::Value as Json;
    match json {
        Json::Null => out.push_str("nil"),
        Json::Bool(bool) => *out += &bool.to_string(),
        Json::Number(number) => *out += &number.to_string(),
        Json::String(text) => *out += &quoted(text),
        Json::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { " " });
                from_json(value, out);
            }
            out.push(']');
        }
        Json::Object(map) => {
            out.push('{');
            for (at, (key, value)) in map.iter().enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                write!(out, "{comma}:{} ", key.replace('_', "-"))
                    .expect("a string takes all that fits in memory");
                from_json(value, out);
            }
            out.push('}');
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// One line as one map.
pub(super) fn parse(line: &str) -> Option<Map<'_>> {
    let mut parser = Parser { rest: line };
    let Value::Map(map) = parser.value(0)? else { return None };
    parser.skip().is_empty().then_some(map)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Drops what separates values.
    fn skip(&mut self) -> &'a str {
        self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        self.rest
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.rest = self.skip().strip_prefix(c)?;
        Some(())
    }

    fn word(&mut self) -> &'a str {
        let inside = |c: char| c.is_ascii_alphanumeric() || "-_.?!".contains(c);
        let end = self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn value(&mut self, depth: u32) -> Option<Value<'a>> {
        if depth > DEPTH_MAX {
            return None;
        }
        if self.take('{').is_some() {
            let mut map = Map::new();
            while self.take('}').is_none() {
                let Value::Keyword(key) = self.value(depth + 1)? else { return None };
                map.insert(key, self.value(depth + 1)?);
            }
            Some(Value::Map(map))
        } else if self.take('[').is_some() {
            let mut values = Vec::new();
            while self.take(']').is_none() {
                values.push(self.value(depth + 1)?);
            }
            Some(Value::Vector(values))
        } else if self.take('"').is_some() {
            self.text().map(Value::Text)
        } else if self.take(':').is_some() {
            Some(Value::Keyword(self.word()))
        } else {
            match self.word() {
                "nil" => Some(Value::Nil),
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                word => word.parse().ok().map(Value::Number),
            }
        }
    }

    /// The rest of a string whose quote was taken.
    fn text(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let end = self.rest.find(['"', '\\'])?;
            text.push_str(&self.rest[..end]);
            let quoted = self.rest[end..].strip_prefix('\\');
            self.rest = quoted.unwrap_or(&self.rest[end + 1..]);
            let Some(quoted) = quoted else { return Some(text) };
            let c = quoted.chars().next().filter(|c| "\"\\".contains(*c))?;
            text.push(c);
            self.rest = &quoted[1..];
        }
    }
}

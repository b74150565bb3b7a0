//! Histories as EDN, in the form that Jepsen's checkers take: an event for each call and each return.
//!
//! Calls are `:invoke`, returns `:ok`, `:fail` or `:info`. An operation without a return event never returned.
//! Only the subset of EDN that histories need is read: one flat map per line with keywords, integers, strings,
//! nil and vectors.

use std::collections::HashMap;
use std::fmt::Write;

use crate::history::{Action, History, HistoryError, Operation, Outcome};

/// Writes one map per line, in the order of time.
pub fn to_edn(history: &History) -> String {
    let mut events = Vec::new();
    for (at, op) in history.operations.iter().enumerate() {
        events.push((op.call, at, "invoke"));
        if let Some(ret) = op.ret {
            events.push((ret, at, type_of(op.outcome)));
        }
    }
    // Stable, so that an operation's call stays before its return.
    events.sort_by_key(|event| event.0);
    let mut text = String::new();
    for (time, at, kind) in events {
        let op = &history.operations[at];
        let process = op.process;
        let fields = fields(&op.action, kind == "invoke");
        writeln!(text, "{{:process {process}, :type :{kind}, :time {time}, {fields}}}")
            .expect("a string takes all that fits in memory");
    }
    text
}

fn type_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Fail => "fail",
        Outcome::Info => "info",
    }
}

fn fields(action: &Action, invoke: bool) -> String {
    let list = |records: &[(u64, u64)]| {
        let pairs: Vec<_> = records.iter().map(|(i, v)| format!("[{i} {v}]")).collect();
        if invoke { "nil".to_owned() } else { format!("[{}]", pairs.join(" ")) }
    };
    let number = |number: &Option<u64>| match number {
        Some(number) if !invoke => number.to_string(),
        _ => "nil".to_owned(),
    };
    match action {
        Action::Append { value, index } => {
            format!(":f :append, :value {value}, :index {}", number(index))
        }
        Action::Read { from, to, records, bound } => format!(
            ":f :read, :from {from}, :to {to}, :value {}, :bound {}",
            list(records),
            number(bound)
        ),
        Action::FinalRead { from, to, records } => {
            format!(":f :final-read, :from {from}, :to {to}, :value {}", list(records))
        }
        Action::Fault { name, bites } => format!(":f :fault, :name {name:?}, :value {bites}"),
    }
}

/// Reads what [`to_edn`] wrote. What an operation without a return event would have said is not in the text,
/// and comes back empty and `info`.
///
/// # Errors
/// The first line that is no event, or returns from a call that was never made.
pub fn from_edn(text: &str) -> Result<History, HistoryError> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut open: HashMap<u64, usize> = HashMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |reason: &str| HistoryError { line: at + 1, reason: reason.to_owned() };
        let event = Parser { rest: line }.map().ok_or_else(|| wrong("not a flat EDN map"))?;
        let number = |key: &str| event.get(key).and_then(Value::number);
        let process = number("process").ok_or_else(|| wrong("no :process"))?;
        let time = number("time").ok_or_else(|| wrong("no :time"))?;
        let action = action(&event).ok_or_else(|| wrong("no known :f, or not its fields"))?;
        let outcome = match event.get("type") {
            Some(Value::Keyword("invoke")) => {
                open.insert(process, operations.len());
                let outcome = Outcome::Info;
                operations.push(Operation { process, call: time, ret: None, outcome, action });
                continue;
            }
            Some(Value::Keyword("ok")) => Outcome::Ok,
            Some(Value::Keyword("fail")) => Outcome::Fail,
            Some(Value::Keyword("info")) => Outcome::Info,
            _ => return Err(wrong("no known :type")),
        };
        let call = open.remove(&process).ok_or_else(|| wrong("a return without a call"))?;
        let op = &mut operations[call];
        (op.ret, op.outcome, op.action) = (Some(time), outcome, action);
    }
    Ok(History { operations })
}

fn action(event: &HashMap<&str, Value<'_>>) -> Option<Action> {
    let number = |key: &str| event.get(key).and_then(Value::number);
    let Some(Value::Keyword(kind)) = event.get("f") else { return None };
    Some(match *kind {
        "append" => Action::Append { value: number("value")?, index: number("index") },
        "read" | "final-read" => {
            let (from, to) = (number("from")?, number("to")?);
            let records = event.get("value")?.pairs()?;
            if *kind == "read" {
                Action::Read { from, to, records, bound: number("bound") }
            } else {
                Action::FinalRead { from, to, records }
            }
        }
        "fault" => {
            let Some(Value::Text(name)) = event.get("name") else { return None };
            Action::Fault { name: name.clone(), bites: number("value")? }
        }
        _ => return None,
    })
}

#[derive(Debug)]
enum Value<'a> {
    Nil,
    Number(u64),
    Keyword(&'a str),
    Text(String),
    Vector(Vec<Value<'a>>),
}

impl Value<'_> {
    fn number(&self) -> Option<u64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// A vector of pairs of numbers; nil is an empty one.
    fn pairs(&self) -> Option<Vec<(u64, u64)>> {
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
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// The whole rest as one map.
    fn map(mut self) -> Option<HashMap<&'a str, Value<'a>>> {
        self.take('{')?;
        let mut map = HashMap::new();
        while self.take('}').is_none() {
            let Value::Keyword(key) = self.value(0)? else { return None };
            map.insert(key, self.value(0)?);
        }
        self.skip().is_empty().then_some(map)
    }

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
        if self.take('[').is_some() {
            let mut values = Vec::new();
            while self.take(']').is_none() {
                // Histories need two levels.
                values.push(if depth < 2 { self.value(depth + 1)? } else { return None });
            }
            Some(Value::Vector(values))
        } else if self.take('"').is_some() {
            let mut text = String::new();
            loop {
                let end = self.rest.find(['"', '\\'])?;
                text.push_str(&self.rest[..end]);
                let quoted = self.rest[end..].strip_prefix('\\');
                self.rest = quoted.unwrap_or(&self.rest[end + 1..]);
                let Some(quoted) = quoted else { return Some(Value::Text(text)) };
                let c = quoted.chars().next().filter(|c| "\"\\".contains(*c))?;
                text.push(c);
                self.rest = &quoted[1..];
            }
        } else if self.take(':').is_some() {
            Some(Value::Keyword(self.word()))
        } else {
            match self.word() {
                "nil" => Some(Value::Nil),
                word => word.parse().ok().map(Value::Number),
            }
        }
    }
}

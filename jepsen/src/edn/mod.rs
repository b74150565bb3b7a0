//! Histories as EDN, in the form that Jepsen's checkers take: an event for each call and each return.
//!
//! Calls are `:invoke`, returns `:ok`, `:fail` or `:info`. An operation without a return event never returned.
//! A process that was not told what came out does nothing more, as Jepsen has it: its client goes on as another
//! process, and its events name the `:client`. Everything that clients did not do is an `:info` of the
//! process `:nemesis`, so that who wants the clients' part alone takes the processes that are numbers.

mod value;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use crate::history::{Action, History, HistoryError, Line, Operation, Outcome};
use value::{Map, Value, from_json, parse};

const ROOM: &str = "a string takes all that fits in memory";

/// Writes one map per line, in the order of time.
pub fn to_edn(history: &History) -> String {
    let mut events = Vec::new();
    for (at, op) in history.operations.iter().enumerate() {
        events.push((op.call, Event::Invoke(at)));
        if let Some(ret) = op.ret {
            events.push((ret, Event::Return(at)));
        }
    }
    for line in history.other_lines() {
        let json = json_of(&line);
        events.push((json["time"].as_u64().unwrap_or(0), Event::Other(json)));
    }
    // Stable, so that an operation's call stays before its return.
    events.sort_by_key(|event| event.0);
    let required = json_of(&Line::Required(Cow::Borrowed(&history.required)));
    events.insert(0, (0, Event::Other(required)));

    let mut processes = Processes::new(&history.operations);
    let mut text = String::new();
    for (number, (time, event)) in events.into_iter().enumerate() {
        write!(text, "{{:index {number}, :time {time}, ").expect(ROOM);
        match event {
            Event::Invoke(at) => {
                let op = &history.operations[at];
                processes.invoke(at, op.process).write(&mut text);
                write!(text, ":type :invoke, {}", fields(&op.action, true)).expect(ROOM);
            }
            Event::Return(at) => {
                let op = &history.operations[at];
                processes.end(at, op).write(&mut text);
                let kind = type_of(op.outcome);
                write!(text, ":type :{kind}, {}", fields(&op.action, false)).expect(ROOM);
            }
            Event::Other(mut json) => {
                let kind = json["type"].take();
                let kind = kind.as_str().unwrap_or_default().replace('_', "-");
                write!(text, ":process :nemesis, :type :info, :f :{kind}, :value ").expect(ROOM);
                if let Some(map) = json.as_object_mut() {
                    map.remove("type");
                }
                from_json(&json, &mut text);
            }
        }
        text.push_str("}\n");
    }
    text
}

enum Event {
    Invoke(usize),
    Return(usize),
    /// A line with its `type` and mostly a `time`.
    Other(serde_json::Value),
}

fn json_of(line: &Line<'_>) -> serde_json::Value {
    serde_json::to_value(line).expect("keys are strings, numbers integers")
}

/// As which process a client makes a call.
#[derive(Clone, Copy)]
struct Process {
    number: u64,
    client: u64,
}

impl Process {
    fn write(self, text: &mut String) {
        write!(text, ":process {}, ", self.number).expect(ROOM);
        if self.number != self.client {
            write!(text, ":client {}, ", self.client).expect(ROOM);
        }
    }
}

/// Gives clients that cannot go on as the process that they were another number.
struct Processes {
    /// What a client's next number is apart from its last: more than there are clients, as Jepsen has it.
    step: u64,
    /// For each client its number, and whether that may make a call.
    clients: HashMap<u64, (u64, bool)>,
    /// For each operation that is open the process that made the call.
    open: HashMap<usize, Process>,
}

impl Processes {
    fn new(operations: &[Operation]) -> Self {
        let last = operations.iter().map(|op| op.process).max().unwrap_or(0);
        Self { step: last.saturating_add(1), clients: HashMap::new(), open: HashMap::new() }
    }

    fn invoke(&mut self, operation: usize, client: u64) -> Process {
        let (number, free) = self.clients.entry(client).or_insert((client, true));
        if !*free {
            *number = number.saturating_add(self.step);
        }
        *free = false;
        let process = Process { number: *number, client };
        self.open.insert(operation, process);
        process
    }

    fn end(&mut self, operation: usize, op: &Operation) -> Process {
        let itself = Process { number: op.process, client: op.process };
        let process = self.open.remove(&operation).unwrap_or(itself);
        if let Some((number, free)) = self.clients.get_mut(&op.process)
            && *number == process.number
        {
            *free = op.outcome != Outcome::Info;
        }
        process
    }
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
        Action::Append { value, index, term } => {
            let (index, term) = (number(index), number(term));
            format!(":f :append, :value {value}, :offset {index}, :term {term}")
        }
        Action::AppendBatch { values, index, term } => {
            let values: Vec<_> = values.iter().map(u64::to_string).collect();
            let (values, index, term) = (values.join(" "), number(index), number(term));
            format!(":f :append-batch, :value [{values}], :offset {index}, :term {term}")
        }
        Action::Read { from, to, records, bound } => {
            let (to, bound) = (if invoke { from } else { to }, number(bound));
            let records = list(records);
            format!(":f :read, :from {from}, :to {to}, :value {records}, :bound {bound}")
        }
        Action::Tail { bound } => format!(":f :tail, :value {}", number(bound)),
        Action::Deliver { subscription, start, records } => {
            let records = list(records);
            format!(":f :deliver, :subscription {subscription}, :start {start}, :value {records}")
        }
        Action::FinalRead { from, to, records } => {
            format!(":f :final-read, :from {from}, :to {to}, :value {}", list(records))
        }
    }
}

/// Reads what [`to_edn`] wrote. What an operation without a return event would have said is not in the text,
/// and comes back empty and `info`. Operations come in the order of their calls.
///
/// # Errors
/// The first line that is no event, or returns from a call that was never made.
pub fn from_edn(text: &str) -> Result<History, HistoryError> {
    let mut history = History::default();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let event = parse(line).ok_or("not one EDN map");
        let added = event.and_then(|event| add(event, &mut history, &mut open));
        added.map_err(|reason| HistoryError { line: at + 1, reason: reason.to_owned() })?;
    }
    Ok(history)
}

fn add(
    mut event: Map<'_>,
    history: &mut History,
    open: &mut BTreeMap<u64, usize>,
) -> Result<(), &'static str> {
    let kind = event.get("type").and_then(Value::keyword).ok_or("no :type")?;
    let number = |event: &Map<'_>, key: &str| event.get(key).and_then(Value::number);
    let Some(process) = number(&event, "process") else {
        let name = event.get("f").and_then(Value::keyword).ok_or("no :f")?;
        let value = event.remove("value").ok_or("no :value")?.into_json();
        history.add(line(name, value).ok_or("no known :f of the nemesis, or not its :value")?);
        return Ok(());
    };
    let time = number(&event, "time").ok_or("no :time")?;
    let action = action(&event).ok_or("no known :f, or not its fields")?;
    let outcome = match kind {
        "invoke" => {
            if open.insert(process, history.operations.len()).is_some() {
                return Err("a call of a process that waits");
            }
            let process = number(&event, "client").unwrap_or(process);
            let (ret, outcome) = (None, Outcome::Info);
            history.operations.push(Operation { process, call: time, ret, outcome, action });
            return Ok(());
        }
        "ok" => Outcome::Ok,
        "fail" => Outcome::Fail,
        "info" => Outcome::Info,
        _ => return Err("no known :type"),
    };
    let call = open.remove(&process).ok_or("a return without a call")?;
    let op = &mut history.operations[call];
    (op.ret, op.outcome, op.action) = (Some(time), outcome, action);
    Ok(())
}

/// What the nemesis said of kind `name`.
fn line(name: &str, mut value: serde_json::Value) -> Option<Line<'static>> {
    value.as_object_mut()?.insert("type".to_owned(), name.replace('-', "_").into());
    let line = serde_json::from_value(value).ok()?;
    // What clients do has its own form.
    (!matches!(line, Line::Operation(_))).then_some(line)
}

fn action(event: &Map<'_>) -> Option<Action> {
    let number = |key: &str| event.get(key).and_then(Value::number);
    let (index, term) = (number("offset"), number("term"));
    Some(match event.get("f")?.keyword()? {
        "append" => Action::Append { value: number("value")?, index, term },
        "append-batch" => {
            Action::AppendBatch { values: event.get("value")?.numbers()?, index, term }
        }
        "read" => Action::Read {
            from: number("from")?,
            to: number("to")?,
            records: event.get("value")?.pairs()?,
            bound: number("bound"),
        },
        "tail" => Action::Tail { bound: number("value") },
        "deliver" => Action::Deliver {
            subscription: number("subscription")?,
            start: number("start")?,
            records: event.get("value")?.pairs()?,
        },
        "final-read" => Action::FinalRead {
            from: number("from")?,
            to: number("to")?,
            records: event.get("value")?.pairs()?,
        },
        _ => return None,
    })
}

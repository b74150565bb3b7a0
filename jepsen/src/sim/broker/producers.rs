//! Producers: single messages, batches, and messages without an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::{QueueName, Told};
use super::message::{batch, body, physicals, properties};
use super::wire::{Connection, Frame, answer, code};
use super::{Caller, TOPICS, lane, name_of};
use crate::sim::random::Random;

/// Pause after what failed.
const PAUSE: Duration = Duration::from_millis(10);
/// Of 100 sends, so many are batches, and so many want no answer.
const BATCHES: u64 = 20;
const ONEWAY: u64 = 10;
/// And so many of the single ones are delayed: the levels, their delays, and how often they are drawn.
const DELAYED: u64 = 12;
const LEVELS: [((&str, u64), u64); 2] = [(("1", 1_000), 6), (("2", 5_000), 1)];
/// How often a message is sent again whose outcome is not known, or that was refused.
const TRIES_AGAIN: u64 = 2;

/// A send as it goes over the wire.
struct Request {
    queue: QueueName,
    ids: Vec<u64>,
    delay_ms: u64,
    code: i32,
    properties: String,
    body: Vec<u8>,
}

impl Request {
    fn fields<'a>(&'a self, queue: &'a str, broker: &'a str) -> Vec<(&'static str, &'a str)> {
        let is_batch = if self.code == code::SEND_BATCH { "true" } else { "false" };
        vec![
            ("a", "producers"),
            ("b", &self.queue.1),
            ("c", "TBW102"),
            ("d", "3"),
            ("e", queue),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", &self.properties),
            ("j", "0"),
            ("k", "false"),
            ("l", "16"),
            ("m", is_batch),
            ("n", broker),
        ]
    }
}

/// Sends until it is time to stop.
pub(super) async fn produce(caller: Caller, mut random: Random) {
    let shared = caller.shared.clone();
    let _busy = shared.begin_work();
    let mut connections: BTreeMap<u32, Connection> = BTreeMap::new();
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.append_think_ms.clone()).await;
        shared.spared().await;
        let log = random.below(shared.profile.logs) as u32;
        // Now and then through another node.
        if random.percent(5) {
            connections.remove(&log);
        }
        let connection = match connections.remove(&log) {
            Some(connection) => Some(connection),
            None => caller.connect(log, &mut random).await,
        };
        let Some(mut connection) = connection else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let request = draw(&caller, log, &mut random);
        let is_single = request.code == code::SEND;
        if is_single && random.percent(ONEWAY) {
            send_oneway(&caller, &mut connection, request).await;
            connections.insert(log, connection);
            continue;
        }
        if send_until_stored(&caller, &mut connection, request, &mut random).await {
            connections.insert(log, connection);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Sends a message, and again if that failed, as stock producers do: to the same queue, or to the same topic of another log.
/// False if the connection is of no use any more.
async fn send_until_stored(
    caller: &Caller,
    connection: &mut Connection,
    mut request: Request,
    random: &mut Random,
) -> bool {
    let mut stored = send(caller, connection, &request).await;
    let is_usable = stored.is_some();
    for _ in 0..if request.code == code::SEND { TRIES_AGAIN } else { 0 } {
        if stored == Some(true) || caller.shared.is_stopping() || random.percent(30) {
            break;
        }
        if random.percent(30) {
            request.queue.0 = random.below(caller.shared.profile.logs) as u32;
        }
        let Some(mut other) = caller.connect(request.queue.0, random).await else { break };
        stored = send(caller, &mut other, &request).await;
        if stored == Some(true) {
            caller.happened("sent-again");
        }
    }
    is_usable
}

/// What to send.
fn draw(caller: &Caller, log: u32, random: &mut Random) -> Request {
    let shared = &caller.shared;
    let topic = random.pick(&TOPICS).to_owned();
    let queues = caller.queues_of(&topic);
    let queue = (log, topic, random.below(queues.into()) as u32);
    let is_batch = random.percent(BATCHES);
    let count = if is_batch { random.within(2..6) } else { 1 };
    let ids: Vec<u64> = (0..count).map(|_| shared.broker.facts().next_id()).collect();
    let bodies = ids.iter().map(|id| body(*id, random.within(shared.profile.padding.clone())));
    let bodies: Vec<_> = bodies.collect();
    let named = |id: &u64| {
        let key = format!("U{id}");
        properties(&[("UNIQ_KEY", &key), ("KEYS", &key), ("WAIT", "true"), ("TAGS", "a")])
    };
    if !is_batch {
        let (mut named, body) = (named(&ids[0]), bodies.concat());
        let delay = random.percent(DELAYED).then(|| random.weighted(&LEVELS));
        named += &delay.map(|(level, _)| properties(&[("DELAY", level)])).unwrap_or_default();
        let delay_ms = delay.map_or(0, |(_, delay_ms)| delay_ms);
        return Request { queue, ids, delay_ms, code: code::SEND, properties: named, body };
    }
    let parts: Vec<_> = bodies.into_iter().zip(ids.iter().map(named)).collect();
    let body = batch(&parts);
    let (code, properties) = (code::SEND_BATCH, String::new());
    Request { queue, ids, delay_ms: 0, code, properties, body }
}

/// Notes that a send begins.
fn note(caller: &Caller, request: &Request) -> usize {
    let times = (request.delay_ms, caller.shared.now_ms());
    let mut facts = caller.shared.broker.facts();
    facts.sends(request.queue.clone(), request.ids.clone(), times)
}

async fn send_oneway(caller: &Caller, connection: &mut Connection, request: Request) {
    note(caller, &request);
    let (queue, broker) = (request.queue.2.to_string(), name_of(request.queue.0));
    let fields = request.fields(&queue, &broker);
    connection.oneway(request.code, &fields, &request.body).await;
}

/// Sends, and notes what was told: true if it is stored. None if the connection is of no use any more.
async fn send(caller: &Caller, connection: &mut Connection, request: &Request) -> Option<bool> {
    let shared = &caller.shared;
    let number = note(caller, request);
    let after_faults = shared.is_healed();
    let (queue, broker) = (request.queue.2.to_string(), name_of(request.queue.0));
    let fields = request.fields(&queue, &broker);
    let told = connection.call(request.code, &fields, &request.body).await;
    let (ids, node) = (&request.ids, connection.node);
    let Some(frame) = told else {
        shared.trace.line("producer", format_args!("{ids:?}: no answer of {node}"));
        return None;
    };
    let told = told_of(&frame, ids.len());
    shared.trace.line("producer", format_args!("{:?} {ids:?}: {told:?}", request.queue));
    match told {
        Ok(told) => {
            let stored = matches!(told, Told::Stored { .. });
            shared.broker.facts().sends[number].told = told;
            if stored && request.delay_ms > 0 {
                caller.happened("delayed");
            }
            if after_faults && stored {
                shared.note_served(caller.number, &broker);
            }
            Some(stored)
        }
        Err(what) => {
            shared.breach("bad-answer", format!("{}: {what}", lane(node)));
            None
        }
    }
}

/// What an answer says of `count` messages.
fn told_of(frame: &Frame, count: usize) -> Result<Told, String> {
    let physicals = || physicals(frame.fields.get("msgId").map_or("", String::as_str));
    let told = match frame.code {
        answer::OK => {
            let offset = frame.number("queueOffset").and_then(|offset| u64::try_from(offset).ok());
            let offset = offset.ok_or_else(|| format!("SEND_OK without an offset: {frame:?}"))?;
            Told::Stored { offset, physicals: physicals() }
        }
        answer::FLUSH_DISK_TIMEOUT | answer::SLAVE_NOT_AVAILABLE | answer::FLUSH_SLAVE_TIMEOUT => {
            Told::Appended { physicals: physicals() }
        }
        code => Told::Refused(code),
    };
    match &told {
        Told::Stored { physicals, .. } | Told::Appended { physicals }
            if physicals.len() != count =>
        {
            Err(format!("{count} messages, and the answer is {frame:?}"))
        }
        _ => Ok(told),
    }
}

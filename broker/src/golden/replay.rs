//! Recorded requests sent to a broker of ours: each answer must look like that of genuine RocketMQ.
//!
//! A recording is not a whole session (requests that differ in nothing but values were left out), so what depends on them
//! may come out differently: whether something is found. All else is the same but for `DIFFERENT`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorumlog::ByteCount;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{frames, recordings};
use crate::Broker;
use crate::open::single::Single;
use crate::record::Message;
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, object_keys, read_frame};

const TO_NAME_SERVER: u8 = 0;
const TO_BROKER: u8 = 2;

/// A field or a key of a body that genuine RocketMQ gives and we do not, on purpose: the request, which one, and why.
const DIFFERENT: [(i32, &str, &str); 9] = [
    (request::SEND_MESSAGE, "transactionId", UNIQUE_KEY),
    (request::SEND_MESSAGE_V2, "transactionId", UNIQUE_KEY),
    (request::PULL_MESSAGE, "groupSysFlag", FLAGS),
    (request::PULL_MESSAGE, "topicSysFlag", FLAGS),
    (request::QUERY_MESSAGE, "indexLastUpdatePhyoffset", NOTHING_FOUND),
    (request::QUERY_MESSAGE, "indexLastUpdateTimestamp", NOTHING_FOUND),
    (request::HEART_BEAT, "IS_SUB_CHANGE", HEARTBEAT_V2),
    (request::HEART_BEAT, "IS_SUPPORT_HEART_BEAT_V2", HEARTBEAT_V2),
    (
        request::GET_ROUTEINFO_BY_TOPIC,
        ".brokerDatas[].enableActingMaster",
        "no slave acts as a master",
    ),
];
const UNIQUE_KEY: &str = "the key that the producer gave; of use with transactions only";
const FLAGS: &str = "units are not served, so that they are always 0";
const NOTHING_FOUND: &str = "where nothing is found, nothing is said of an index";
const HEARTBEAT_V2: &str = "shortened heartbeats are not served; clients send whole ones";

/// Answers that say whether something is there, or not yet.
fn is_found_or_not(code: i32, theirs: i32, ours: i32) -> bool {
    let either: &[i32] = match code {
        request::GET_ROUTEINFO_BY_TOPIC => &[response::SUCCESS, response::TOPIC_NOT_EXIST],
        // 25: the subscription is newer than the last heartbeat. We serve such a pull.
        request::PULL_MESSAGE => &[
            response::SUCCESS,
            response::PULL_NOT_FOUND,
            response::PULL_RETRY_IMMEDIATELY,
            response::PULL_OFFSET_MOVED,
            25,
        ],
        request::QUERY_MESSAGE | request::QUERY_CONSUMER_OFFSET => {
            &[response::SUCCESS, response::QUERY_NOT_FOUND]
        }
        request::GET_CONSUMER_LIST_BY_GROUP => &[response::SUCCESS, response::SYSTEM_ERROR],
        _ => &[],
    };
    theirs == ours || (either.contains(&theirs) && either.contains(&ours) && ours != 25)
}

/// The keys of a JSON body and of what is in it.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                paths(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(list) => {
            list.iter().for_each(|value| paths(value, &format!("{path}[]"), found));
        }
        _ => {}
    }
}

/// What an answer's body is like.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    Empty,
    Messages,
    Json(BTreeSet<String>),
    Other,
}

fn shape(body: &Bytes) -> Shape {
    if body.is_empty() {
        return Shape::Empty;
    }
    let json = std::str::from_utf8(body).ok().and_then(object_keys::read);
    if let Some(json) = json {
        let mut found = BTreeSet::new();
        paths(&json, "", &mut found);
        return Shape::Json(found);
    }
    let mut left = body.clone();
    while !left.is_empty() {
        let Ok(stored) = Message::take_bytes(&mut left) else { return Shape::Other };
        if Message::decode(stored).is_err() {
            return Shape::Other;
        }
    }
    Shape::Messages
}

/// What differs between genuine RocketMQ's answer and ours, in words.
fn differences(code: i32, theirs: &Command, ours: &Command) -> Vec<String> {
    let mut found = Vec::new();
    if !is_found_or_not(code, theirs.head.code, ours.head.code) {
        found.push(format!("code {} and not {}", ours.head.code, theirs.head.code));
    }
    if theirs.head.code != ours.head.code {
        return found;
    }
    let missing = |name: &str| format!("no {name}");
    let names = |command: &Command| -> BTreeSet<String> {
        command.head.fields.iter().map(|(name, _)| name.to_owned()).collect()
    };
    found.extend(names(theirs).difference(&names(ours)).map(|name| missing(name)));
    match (shape(&theirs.body), shape(&ours.body)) {
        (Shape::Json(theirs), Shape::Json(ours)) => {
            found.extend(theirs.difference(&ours).map(|key| missing(key)));
        }
        (theirs, ours) if theirs != ours => {
            found.push(format!("a body {ours:?} and not {theirs:?}"))
        }
        _ => {}
    }
    found
}

/// Where requests of a kind go.
fn addr(broker: &Broker, kind: u8) -> SocketAddr {
    match kind {
        TO_NAME_SERVER => broker.name_server().expect("it has one"),
        _ => broker.addrs()[0],
    }
}

/// A frame with its length word.
fn framed(frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + frame.len());
    out.put_u32(frame.len() as u32);
    out.put_slice(frame);
    out
}

/// The name of genuine RocketMQ's broker in the recordings, and that of ours. They are equally long.
const THEIR_NAME: &[u8] = b"broker-a";
const OUR_NAME: &[u8] = b"broker-0";

/// The request for our broker.
fn to_send(frame: &Bytes, request: &Command, stored: u64) -> Vec<u8> {
    let mut bytes = for_theirs(frame, request, stored);
    for at in 0..=bytes.len().saturating_sub(THEIR_NAME.len()) {
        if bytes[at..].starts_with(THEIR_NAME) {
            bytes[at..at + OUR_NAME.len()].copy_from_slice(OUR_NAME);
        }
    }
    bytes
}

/// The request as it is to be sent: as it was, save what says where genuine RocketMQ stored a message, and how long to
/// wait for one.
fn for_theirs(frame: &Bytes, request: &Command, stored: u64) -> Vec<u8> {
    let mut changed = request.clone();
    match request.head.code {
        request::PULL_MESSAGE => changed.head.fields.set("suspendTimeoutMillis", "20"),
        request::CONSUMER_SEND_MSG_BACK | request::VIEW_MESSAGE_BY_ID => {
            changed.head.fields.set("offset", &stored.to_string());
        }
        _ => return framed(frame),
    }
    changed.encode().concat()
}

async fn answer(stream: &mut TcpStream, buffer: &mut BytesMut, opaque: i32) -> Command {
    loop {
        let frame = read_frame(stream, buffer).await.expect("a frame").expect("no end");
        let command = Command::decode(frame).expect("our own frame");
        if command.is_answer() && command.head.opaque == opaque {
            return command;
        }
    }
}

/// Sends a recording's requests. Returns how many were answered with the same code, and in how many ways answers differ.
async fn replay(path: &Path) -> (usize, BTreeMap<(i32, String), usize>) {
    let single =
        Single::start(|config, _| config.storage.segment_size = ByteCount::new(1 << 20)).await;
    let recorded: Vec<_> = frames(path)
        .into_iter()
        .map(|(kind, connection, frame)| {
            let command = Command::decode(frame.clone()).expect("it is read elsewhere");
            (kind, connection, frame, command)
        })
        .collect();
    let mut streams = BTreeMap::new();
    let (mut same, mut found, mut stored) = (0, BTreeMap::new(), 0);
    for (kind, connection, frame, request) in &recorded {
        if !matches!(*kind, TO_NAME_SERVER | TO_BROKER) || request.is_answer() {
            continue;
        }
        let key = (*kind, *connection);
        let (stream, buffer) = match streams.entry(key) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(free) => {
                let stream =
                    TcpStream::connect(addr(&single.broker, *kind)).await.expect("it listens");
                free.insert((stream, BytesMut::new()))
            }
        };
        stream.write_all(&to_send(frame, request, stored)).await.expect("it takes requests");
        let opaque = request.head.opaque;
        let theirs = recorded.iter().find(|(from, of, _, it)| {
            (*from, *of) == (kind + 1, *connection) && it.is_answer() && it.head.opaque == opaque
        });
        if request.is_oneway() {
            continue;
        }
        // Also where theirs was left out: what comes next may depend on it.
        let waiting = tokio::time::timeout(Duration::from_secs(20), answer(stream, buffer, opaque));
        let ours = waiting.await.unwrap_or_else(|_| panic!("{path:?}: no answer to {request:?}"));
        let Some((_, _, _, theirs)) = theirs else { continue };
        // Theirs are JSON, whatever was asked in.
        assert_eq!(ours.encoding, request.encoding, "{path:?}: {request:?}");
        same += usize::from(ours.head.code == theirs.head.code);
        if let Some(id) = ours.head.fields.get("msgId").filter(|id| id.len() == 32) {
            stored = u64::from_str_radix(&id[16..], 16).expect("an id");
        }
        for what in differences(request.head.code, theirs, &ours) {
            *found.entry((request.head.code, what)).or_default() += 1;
        }
    }
    drop(streams);
    let _ = single.node.shutdown().await;
    single.broker.shutdown().await;
    (same, found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_requests_get_answers_that_look_like_those_of_genuine_rocketmq() {
    let mut replays = tokio::task::JoinSet::new();
    let paths: Vec<PathBuf> = recordings();
    for path in paths {
        replays.spawn(async move { replay(&path).await });
    }
    let (mut same, mut found) = (0, BTreeMap::new());
    while let Some(replayed) = replays.join_next().await {
        let (matching, differing) = replayed.expect("no panic");
        same += matching;
        for (what, count) in differing {
            *found.entry(what).or_insert(0) += count;
        }
    }
    for (code, which, why) in DIFFERENT {
        let differs = found.remove(&(code, format!("no {which}")));
        assert!(differs.is_some(), "not different any more: {code}, {which} ({why})");
    }
    assert_eq!(
        found,
        BTreeMap::new(),
        "request and difference, and how often; {same} have the same code"
    );
    assert!(same > 450, "{same} answers have the same code");
}

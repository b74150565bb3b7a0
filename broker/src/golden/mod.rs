//! What stock clients and genuine RocketMQ said to each other, as recorded in `tests/golden/remoting`: all of it is
//! read, and messages that genuine RocketMQ stored are written by us to the byte.

mod mutated;
mod replay;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, Bytes, BytesMut};

use super::record::{Message, split_batch};
use super::remoting::{Command, codes::request};

/// Kind of a recorded frame that a broker sent; it names the same connection as the request.
const FROM_BROKER: u8 = 3;
const FROM_NAME_SERVER: u8 = 1;

fn recordings() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/remoting");
    let list = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
        entries.map(|entry| entry.expect("an entry can be read").path()).collect::<Vec<_>>()
    };
    let dirs = list(&root).into_iter().filter(|path| path.is_dir());
    let files = dirs.flat_map(|dir| list(&dir));
    files.filter(|path| path.extension().is_some_and(|name| name == "frames")).collect()
}

/// Kind, connection and frame without its length word.
fn frames(path: &Path) -> Vec<(u8, u8, Bytes)> {
    let mut bytes = Bytes::from(std::fs::read(path).expect("a recording can be read"));
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (kind, connection) = (bytes.get_u8(), bytes.get_u8());
        let length = bytes.get_u32() as usize;
        frames.push((kind, connection, bytes.split_to(length)));
    }
    frames
}

/// A frame of ours, without its length word.
fn written(command: Command) -> Bytes {
    Bytes::from(command.encode().concat()).slice(4..)
}

/// Checks the messages of a pull's or a query's body; returns their number.
fn check_messages(mut body: Bytes, context: &str) -> usize {
    let mut count = 0;
    while !body.is_empty() {
        let stored =
            Message::take_bytes(&mut body).unwrap_or_else(|error| panic!("{context}: {error}"));
        let message = Message::decode(stored.clone());
        let message = message.unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut ours = BytesMut::new();
        message.encode(&mut ours);
        // Both offsets are the log's, and are put in on the way out.
        ours[20..36].copy_from_slice(&stored[20..36]);
        assert_eq!(ours.freeze(), stored, "{context}: {message:?}");
        count += 1;
    }
    count
}

#[test]
fn everything_recorded_is_read_and_stored_messages_are_written_to_the_byte() {
    let (mut seen, mut stored, mut batches) = (0, 0, 0);
    for path in recordings() {
        let mut asked: BTreeMap<(u8, i32), i32> = BTreeMap::new();
        for (at, (kind, connection, frame)) in frames(&path).into_iter().enumerate() {
            let context = format!("{} frame {at}", path.display());
            let read = Command::decode(frame);
            let read = read.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(Command::decode(written(read.clone())).as_ref(), Ok(&read), "{context}");
            seen += 1;
            let from_server = matches!(kind, FROM_BROKER | FROM_NAME_SERVER);
            if !from_server && !read.is_answer() {
                asked.insert((connection, read.head.opaque), read.head.code);
            }
            if read.head.code == request::SEND_BATCH_MESSAGE && !read.is_answer() {
                let parts = split_batch(read.body.clone(), 4096);
                let parts = parts.unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(parts.len() > 1, "{context}");
                batches += 1;
            }
            let answered = asked.get(&(connection, read.head.opaque)).filter(|_| read.is_answer());
            let holds_messages = answered.is_some_and(|code| {
                matches!(
                    *code,
                    request::PULL_MESSAGE | request::QUERY_MESSAGE | request::VIEW_MESSAGE_BY_ID
                )
            });
            if kind == FROM_BROKER && holds_messages && read.head.code == 0 {
                stored += check_messages(read.body, &context);
            }
        }
    }
    assert!(seen > 500 && stored > 50 && batches > 0, "{seen} {stored} {batches}");
}

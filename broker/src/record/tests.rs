//! Messages are read as they were written; hashes and ids are Java's.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;

use super::batch::split;
use super::{Message, Properties, UniqueIds, java_hash, names, offset_id};

fn message(topic: &str, born: &str, store: &str) -> Message {
    Message {
        topic: topic.to_owned(),
        queue: 3,
        flag: -7,
        system_flag: 0,
        born_ms: 1_700_000_000_123,
        born_host: born.parse().expect("an address"),
        stored_ms: 1_700_000_000_456,
        store_host: store.parse().expect("an address"),
        reconsumed: 2,
        body: Bytes::from_static(b"hello"),
        properties: "TAGS\u{1}TagA\u{2}KEYS\u{1}k1 k2\u{2}".to_owned(),
    }
}

fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    assert_eq!(out.len(), message.stored_bytes());
    out.freeze()
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let long = "t".repeat(128);
    for (topic, born, store) in [
        ("T", "127.0.0.1:5", "10.0.0.1:10911"),
        ("T", "[::1]:5", "10.0.0.1:10911"),
        ("T", "127.0.0.1:5", "[fd00::1]:65535"),
        (long.as_str(), "[::1]:5", "[::2]:6"),
    ] {
        let written = message(topic, born, store);
        let bytes = encoded(&written);
        let outline = Message::outline(&bytes).expect("our own bytes");
        assert_eq!((outline.topic, outline.queue), (topic, written.queue));
        let rest = (outline.stored_ms, outline.properties);
        assert_eq!(rest, (written.stored_ms, written.properties.as_str()));
        let mut read = Message::decode(bytes).expect("our own bytes");
        // The bits that say IPv6 are the layout's.
        read.system_flag = 0;
        assert_eq!(read, written);
    }
}

#[test]
fn the_layout_is_the_one_that_clients_decode() {
    let bytes = encoded(&message("T", "127.0.0.1:5", "10.0.0.1:10911"));
    let mut from = bytes.clone();
    assert_eq!(from.get_u32() as usize, bytes.len());
    assert_eq!(from.get_i32(), -626_843_481);
    assert_eq!(from.get_u32(), 0x3610_A686, "CRC of `hello`, 31 bits of it");
    assert_eq!((from.get_i32(), from.get_i32()), (3, -7));
    assert_eq!((from.get_u64(), from.get_u64()), (0, 0), "offsets are put in on the way out");
    assert_eq!((from.get_i32(), from.get_i64()), (0, 1_700_000_000_123));
    assert_eq!(&from.split_to(8)[..], [127, 0, 0, 1, 0, 0, 0, 5]);
    assert_eq!(from.get_i64(), 1_700_000_000_456);
    assert_eq!(&from.split_to(8)[..], [10, 0, 0, 1, 0, 0, 0x2A, 0x9F]);
    assert_eq!((from.get_i32(), from.get_u64()), (2, 0));
    assert_eq!(&from[..], b"\0\0\0\x05hello\x01T\0\x15TAGS\x01TagA\x02KEYS\x01k1 k2\x02");
}

#[test]
fn every_cut_of_a_message_is_an_error() {
    let whole = encoded(&message("T", "127.0.0.1:5", "[::1]:6"));
    for length in 0..whole.len() {
        assert!(Message::decode(whole.slice(..length)).is_err(), "cut at {length}");
        assert!(Message::outline(&whole[..length]).is_err(), "cut at {length}");
        assert!(Message::take_bytes(&mut whole.slice(..length)).is_err(), "cut at {length}");
    }
}

#[test]
fn a_hash_is_javas() {
    for (text, hash) in
        [("", 0), ("TagA", 2_598_919), ("hello", 99_162_322), ("polygenelubricants", i32::MIN)]
    {
        assert_eq!(java_hash(text), hash, "{text}");
    }
}

#[test]
fn properties_keep_their_order_and_the_last_of_a_name_counts() {
    let text = "A\u{1}1\u{2}B\u{1}\u{2}junk\u{2}A\u{1}2\u{2}";
    assert_eq!(Properties::find(text, "A"), Some("2"));
    assert_eq!((Properties::find(text, "B"), Properties::find(text, "C")), (Some(""), None));
    let odd = "AB\u{1}é\u{2}\u{2}BA\u{1}A\u{1}x\u{2}A\u{1}\u{1}y";
    for name in ["A", "B", "AB", "BA", "x", "", "none"] {
        assert_eq!(Properties::find(odd, name), Properties::parse(odd).get(name), "{name}");
    }
    let mut properties = Properties::parse(text);
    assert_eq!(properties.get("A"), Some("2"));
    properties.set("A", "3");
    properties.remove("B");
    properties.set(names::KEYS, "k");
    assert_eq!(properties.to_text(), "A\u{1}3\u{2}KEYS\u{1}k\u{2}");
}

#[test]
fn an_id_names_the_broker_and_the_place() {
    let id = offset_id("127.0.0.1:10911".parse().expect("an address"), 0x1234);
    assert_eq!(id, "7F00000100002A9F0000000000001234");
    let id = offset_id("[::1]:1".parse().expect("an address"), 7);
    assert_eq!(id, "00000000000000000000000000000001000000010000000000000007");
}

#[test]
fn a_key_differs_from_all_others_of_its_broker_and_depends_on_nothing_but_its_start_and_the_time() {
    let host = "127.0.0.1:10911".parse().expect("an address");
    let keys = |random, now_ms| {
        let ids = UniqueIds::new(host, random);
        [ids.next(now_ms), ids.next(now_ms)]
    };
    assert_eq!(keys(0x1_0002, 7)[0], "7F00000100022A9F0000000700000001");
    assert_ne!(keys(0x1_0002, 7)[0], keys(0x1_0002, 7)[1]);
    assert_eq!(keys(0x1_0002, 7), keys(0x1_0002, 7), "two simulated runs give the same");
    assert_ne!(keys(0x1_0002, 7)[0], keys(0x1_0003, 7)[0], "it started again");
}

fn part(body: &[u8], properties: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32((22 + body.len() + properties.len()) as u32);
    out.put_u64(0);
    out.put_i32(9);
    out.put_u32(body.len() as u32);
    out.put_slice(body);
    out.put_u16(properties.len() as u16);
    out.put_slice(properties.as_bytes());
    out
}

#[test]
fn a_batch_comes_apart_and_lengths_that_lie_are_errors() {
    let whole = [part(b"one", "A\u{1}1\u{2}"), part(b"", "")].concat();
    let parts = split(Bytes::from(whole.clone()), 2).expect("a batch");
    assert_eq!((&parts[0].body[..], parts[0].flag), (&b"one"[..], 9));
    assert_eq!(parts[0].properties, "A\u{1}1\u{2}");
    assert!(parts[1].body.is_empty() && parts.len() == 2);
    assert!(split(Bytes::from(whole.clone()), 1).is_err(), "too many messages");
    let boundary = part(b"one", "A\u{1}1\u{2}").len();
    for length in (1..whole.len()).filter(|length| *length != boundary) {
        let cut = Bytes::copy_from_slice(&whole[..length]);
        assert!(split(cut, 2).is_err(), "cut at {length}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(
        start in 0_usize..2,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut all = BytesMut::new();
        if start == 1 {
            all.put_slice(&encoded(&message("T", "127.0.0.1:5", "[::1]:6"))[..8]);
        }
        all.put_slice(&bytes);
        let all = all.freeze();
        let _ = Message::decode(all.clone());
        let _ = Message::take_bytes(&mut all.clone());
        let _ = split(all, 16);
    }

    #[test]
    fn no_damage_of_a_message_makes_the_reader_panic(at in 0_usize..140, value in any::<u8>()) {
        let mut bytes = encoded(&message("T", "127.0.0.1:5", "[::1]:6")).to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = Message::decode(Bytes::from(bytes));
    }
}

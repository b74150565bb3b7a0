//! Frames and headers: what is written is read, what clients write is read, and what is wrong costs nothing.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;

use super::command::Encoding;
use super::frame::FRAME_BYTES_MAX;
use super::{Command, Fields, Reply, read_frame};

/// A frame without its length word.
fn frame(encoding: u32, header: &[u8], body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u32(encoding << 24 | header.len() as u32);
    frame.put_slice(header);
    frame.put_slice(body);
    frame.freeze()
}

/// Chunks as one frame without its length word, which must be right.
fn unframed(chunks: &[Bytes]) -> Bytes {
    let all = Bytes::from(chunks.concat());
    assert_eq!((&all[..]).get_u32() as usize, all.len() - 4, "the length word");
    all.slice(4..)
}

fn json(header: &str) -> Command {
    Command::decode(frame(0, header.as_bytes(), b"")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_request_is_read_as_it_was_written_in_both_encodings() {
    for encoding in [Encoding::Json, Encoding::Binary] {
        let fields: Fields = [("topic", "T"), ("properties", "A\u{1}é\u{2}")].into_iter().collect();
        let mut request = Command::request(310, 77, fields);
        request.encoding = encoding;
        request.head.remark = Some("why".to_owned());
        request.body = Bytes::from_static(b"body");
        let read = Command::decode(unframed(&request.clone().encode())).expect("our own frame");
        assert_eq!(read, request);
        assert!(!read.is_answer() && !read.is_oneway());
        assert!(read.oneway().is_oneway());
    }
}

#[test]
fn an_answer_has_its_requests_number_and_encoding() {
    let mut request = Command::request(34, -5, Fields::default());
    request.encoding = Encoding::Binary;
    let reply = Reply::refused(17, "no such topic").with("offset", 9).with_body("b");
    let answer = Command::decode(unframed(&reply.encode(&request))).expect("our own frame");
    assert!(answer.is_answer());
    assert_eq!((answer.encoding, answer.head.opaque, answer.head.code), (Encoding::Binary, -5, 17));
    assert_eq!(answer.head.remark.as_deref(), Some("no such topic"));
    assert_eq!((answer.head.fields.get("offset"), &answer.body[..]), (Some("9"), &b"b"[..]));
}

#[test]
fn headers_of_stock_clients_are_read() {
    // The C++ client: no serializeTypeCurrentRPC, numbers and booleans as fields, keys that nobody knows.
    let read = json(
        r#"{"code":10,"language":"CPP","opaque":3,"flag":0,"version":317,
            "extFields":{"queueId":0,"batch":"0","unitMode":"1","k":false,"m":true,"topic":"T",
            "Signature":"x","nothing":null},"surprise":[1,{"a":2}]}"#,
    );
    let fields = &read.head.fields;
    assert_eq!((fields.int("queueId"), fields.text("topic")), (Ok(0), Ok("T")));
    assert_eq!((fields.flag("batch"), fields.flag("unitMode")), (false, true));
    assert_eq!((fields.flag("k"), fields.flag("m"), fields.flag("absent")), (false, true, false));
    assert_eq!(fields.get("nothing"), None);
    assert_eq!(json(r#"{"code":34}"#).head.opaque, 0);
    assert_eq!(json(r#"{"code":34,"extFields":null,"remark":null}"#).head.fields.len(), 0);
}

#[test]
fn of_two_fields_of_one_name_the_later_one_counts() {
    let mut fields = json(r#"{"code":1,"extFields":{"a":"1","b":[1,2.5,null],"a":{"c":-3}}}"#);
    let fields = &mut fields.head.fields;
    assert_eq!((fields.get("a"), fields.get("b")), (Some(r#"{"c":-3}"#), Some("[1,2.5,null]")));
    fields.set("a", "new");
    fields.set("d", "4");
    assert_eq!((fields.get("a"), fields.get("d"), fields.get("")), (Some("new"), Some("4"), None));
    let same: Fields = [("d", "4"), ("b", "[1,2.5,null]"), ("a", "new")].into_iter().collect();
    assert_eq!(*fields, same, "in whatever order they came");
}

#[test]
fn fields_that_are_missing_or_no_numbers_are_named() {
    let fields: Fields = [("a", "x"), ("big", "4294967296")].into_iter().collect();
    assert_eq!(fields.number("a").expect_err("x").to_string(), "the field a is no number");
    assert_eq!(fields.text("b").expect_err("absent").to_string(), "the field b is missing");
    assert_eq!(
        fields.int("big").expect_err("33 bits").to_string(),
        "the field big is out of range"
    );
    assert_eq!((fields.number("big"), fields.int_or("b", 7)), (Ok(1 << 32), Ok(7)));
}

#[test]
fn frames_that_are_none_are_refused() {
    let bad = |frame: Bytes| Command::decode(frame).expect_err("no frame").to_string();
    assert!(bad(Bytes::from_static(b"\0\0")).contains("2 bytes"));
    assert!(bad(frame(0, b"{}", b"")).contains("code"));
    assert!(bad(frame(2, b"{}", b"")).contains("encoding 2"));
    assert!(bad(Bytes::from_static(b"\0\0\0\x09{}")).contains("header of 9 bytes"));
    let deep = format!(r#"{{"code":1,"extFields":{}"#, r#"{"a":"#.repeat(10_000));
    assert!(bad(frame(0, deep.as_bytes(), b"")).contains("recursion limit"));
}

#[test]
fn every_cut_of_a_binary_header_is_an_error() {
    let fields: Fields = [("topic", "T"), ("queueId", "1")].into_iter().collect();
    let mut request = Command::request(11, 1, fields);
    request.encoding = Encoding::Binary;
    let whole = unframed(&request.encode());
    for length in 0..whole.len() - 4 {
        let cut = frame(1, &whole[4..4 + length], b"");
        assert!(Command::decode(cut).is_err(), "cut at {length}");
    }
}

#[tokio::test]
async fn a_length_over_the_limit_ends_the_connection_before_anything_is_allocated() {
    for length in [FRAME_BYTES_MAX as u32 + 1, u32::MAX, 3, 0] {
        let mut bytes = Vec::new();
        bytes.put_u32(length);
        let mut buffer = BytesMut::new();
        let error = read_frame(&mut &bytes[..], &mut buffer).await.expect_err("no such frame");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(buffer.capacity() <= 128 << 10, "{} bytes for {length}", buffer.capacity());
    }
}

#[tokio::test]
async fn a_large_frame_that_is_only_claimed_takes_little_memory() {
    let mut bytes = Vec::new();
    bytes.put_u32(16 << 20);
    bytes.put_bytes(0, 1000);
    let mut buffer = BytesMut::new();
    let error = read_frame(&mut &bytes[..], &mut buffer).await.expect_err("it is cut short");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(buffer.capacity() <= 256 << 10, "{} bytes", buffer.capacity());
}

#[tokio::test]
async fn frames_come_out_whole_however_they_came_in() {
    let request = Command::request(105, 1, [("topic", "T")].into_iter().collect());
    let bytes = [request.clone(), request.clone()].map(|one| one.encode().concat()).concat();
    let (near, mut far) = tokio::io::duplex(7);
    let writer = tokio::spawn(async move {
        let mut near = near;
        tokio::io::AsyncWriteExt::write_all(&mut near, &bytes).await
    });
    let mut buffer = BytesMut::new();
    for _ in 0..2 {
        let frame = read_frame(&mut far, &mut buffer).await.expect("a frame").expect("no end");
        assert_eq!(Command::decode(frame), Ok(request.clone()));
    }
    writer.await.expect("no panic").expect("written");
    assert_eq!(read_frame(&mut far, &mut buffer).await.expect("the end"), None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Command::decode(Bytes::from(bytes));
    }

    #[test]
    fn no_damage_of_a_header_makes_the_reader_panic(
        at in 0_usize..90,
        value in any::<u8>(),
        binary in any::<bool>(),
    ) {
        let mut request = Command::request(310, 1, [("b", "topic"), ("i", "x\u{1}y\u{2}")].into_iter().collect());
        request.encoding = if binary { Encoding::Binary } else { Encoding::Json };
        let mut bytes = unframed(&request.encode()).to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = Command::decode(Bytes::from(bytes));
    }
}

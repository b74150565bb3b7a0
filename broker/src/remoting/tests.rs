//! Frames and headers: what is written is read, what clients write is read, and what is wrong costs nothing.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;

use super::command::Encoding;
use super::frame::{FRAME_BYTES_MAX, FrameError};
use super::{Activity, Budget, Command, Fields, FrameReader, Reply, Share, read_frame};

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

/// `Long.parseLong`, by which RocketMQ reads numbers in headers.
#[test]
fn numbers_in_headers_are_decimal_digits_and_nothing_else() {
    let number = |text: &str| [("n", text)].into_iter().collect::<Fields>().number("n").ok();
    for (text, expected) in [
        ("7", 7),
        ("+7", 7),
        ("-007", -7),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        assert_eq!(number(text), Some(expected), "{text}");
    }
    for text in [
        "1e3",
        "3.0",
        "0x10",
        "1_000",
        " 7",
        "7 ",
        "7L",
        "",
        "-",
        "+",
        "--1",
        "inf",
        "NaN",
        "9223372036854775808",
    ] {
        assert_eq!(number(text), None, "{text:?}");
    }
}

#[test]
fn frames_that_are_none_are_refused() {
    let bad = |frame: Bytes| Command::decode(frame).expect_err("no frame").to_string();
    assert!(bad(Bytes::from_static(b"\0\0")).contains("2 bytes"));
    assert!(bad(frame(0, b"{}", b"")).contains("code"));
    assert!(bad(frame(2, b"{}", b"")).contains("encoding 2"));
    assert!(bad(Bytes::from_static(b"\0\0\0\x09{}")).contains("header of 9 bytes"));
    let deep = format!(r#"{{"code":1,"extFields":{}"#, r#"{"a":"#.repeat(10_000));
    assert!(bad(frame(0, deep.as_bytes(), b"")).contains("no end"));
}

/// What can be read of a header that is wrong: opaque, flag and encoding.
fn read_of(encoding: u32, header: &[u8]) -> (i32, i32, Encoding) {
    match Command::decode(frame(encoding, header, b"body")) {
        Err(FrameError::Header { request, problem }) => {
            assert!(!problem.is_empty());
            (request.head.opaque, request.head.flag, request.encoding)
        }
        other => panic!("{}: {other:?}", String::from_utf8_lossy(header)),
    }
}

#[test]
fn a_header_that_is_wrong_has_its_number_read_if_it_is_there() {
    for (header, opaque, flag) in [
        (r#"{"opaque":7,"flag":2}"#, 7, 2),
        (r#"{"opaque":7,"code":1e99}"#, 7, 0),
        (r#"{"opaque":7,"code":4294967306}"#, 7, 0),
        (r#"{"opaque":7,"code":10.5}"#, 7, 0),
        (r#"{"opaque":7,"code":{}}"#, 7, 0),
        (r#"{"opaque":"7","code":"ten"}"#, 7, 0),
        (r#"{"opaque":7,"code":10"#, 7, 0),
        (r#"{"code":10,"extFields":{"a":}, "opaque" : 7 ,"flag":2}"#, 7, 2),
        (r#"{'code':10,"opaque":7}"#, 7, 0),
        (r#"{"code":10,"extFields":{"a":"\"opaque\":5",},"opaque":7}"#, 7, 0),
        (r#"{"code":10,"opaque":4294967303} x"#, 7, 0),
        (r#"[{"opaque":7}]"#, 7, 0),
        ("\u{FEFF}{\"opaque\":7}", 7, 0),
        ("", 0, 0),
        ("\"opaque\"", 0, 0),
        ("7", 0, 0),
    ] {
        assert_eq!(read_of(0, header.as_bytes()), (opaque, flag, Encoding::Json), "{header}");
    }
    let fields: String = (0..1024).map(|n| format!(r#""{n}":1,"#)).collect();
    let many = format!(r#"{{"code":10,"opaque":7,"extFields":{{{fields}"z":1}}}}"#);
    assert_eq!(read_of(0, many.as_bytes()).0, 7);
    let mut request = Command::request(11, 7, [("topic", "T")].into_iter().collect());
    request.encoding = Encoding::Binary;
    let whole = unframed(&request.encode());
    for length in 17..whole.len() - 4 {
        assert_eq!(read_of(1, &whole[4..4 + length]), (7, 0, Encoding::Binary), "cut at {length}");
    }
    assert_eq!(read_of(1, b"\0\x0b").0, 0);
}

#[test]
fn headers_as_javascript_and_python_may_write_them_are_read() {
    let header = r#"{"opaque": 7.0, "code": "105", "code": 105, "flag": null,
        "nested": {"a": [NaN, {"b": [[[-Infinity]]]}]}, "language": "PYTHON", "version": 401.0,
        "extFields": {"topic": "T\ud83d", "topic": "\ud83d\ude00\udc00\/", "queueId": 3.0, "offset": "1e3",
        "big": 123456789012345678901234567890, "nan": NaN, "deep": {"a": [1]}}, "x": 1e999} "#;
    let read = json(&format!("\u{FEFF}{header}\n\t "));
    assert_eq!((read.head.code, read.head.opaque, read.head.flag), (105, 7, 0));
    let fields = &read.head.fields;
    assert_eq!(fields.get("topic"), Some("\u{1F600}\u{FFFD}/"));
    assert_eq!((fields.int("queueId"), fields.number("offset").is_err()), (Ok(3), true));
    assert!(fields.number("big").is_err() && fields.get("nan").is_none());
    assert_eq!(fields.get("deep"), Some(r#"{"a":[1]}"#));
    assert_eq!(json(r#"{"code":105,"opaque":4294967295}"#).head.opaque, -1, "as Java casts it");
    assert_eq!(json(r#"{"code":105,"opaque":-2147483648}"#).head.opaque, i32::MIN);
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

/// A reader of what comes from a client, and the budget that it draws on.
fn reader<R: tokio::io::AsyncRead + Unpin>(
    from: R,
    limit: usize,
) -> (FrameReader<R>, std::sync::Arc<Budget>) {
    let budget = Budget::new(limit);
    (FrameReader::new(from, Share::new(&budget, limit), std::sync::Arc::default()), budget)
}

#[tokio::test]
async fn a_clients_frames_come_out_whole_and_are_counted_until_nobody_holds_them() {
    for (size, step) in [(0, 7), (10, 1 << 20), (20_000, 3_000), (300_000, 1 << 20)] {
        let mut request = Command::request(105, 1, [("topic", "T")].into_iter().collect());
        request.body = Bytes::from(vec![7; size]);
        let bytes = vec![request.clone(); 3].into_iter().map(|one| one.encode().concat());
        let bytes = bytes.collect::<Vec<_>>().concat();
        let (mut near, far) = tokio::io::duplex(step);
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut near, &bytes).await.expect("it is read");
        });
        let (mut reader, budget) = reader(far, 1 << 30);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(reader.next().await.expect("a frame").expect("no end"));
            assert_eq!(Command::decode(held[held.len() - 1].clone()), Ok(request.clone()));
        }
        assert!(budget.used() >= 3 * size, "{} bytes for 3 of {size}", budget.used());
        writer.await.expect("written");
        assert_eq!(reader.next().await.expect("the end"), None);
        held.clear();
        assert_eq!(budget.used(), 0);
    }
}

#[tokio::test]
async fn a_clients_frame_that_is_cut_or_over_the_limit_ends_the_connection_after_those_before_it() {
    let whole = Command::request(34, 1, Fields::default()).encode().concat();
    for length in [FRAME_BYTES_MAX as u32 + 1, u32::MAX, 3, 0, 100, 1 << 20] {
        let mut bytes = whole.clone();
        bytes.put_u32(length);
        bytes.put_bytes(0, 50);
        let (mut reader, budget) = reader(&bytes[..], 1 << 30);
        assert!(reader.next().await.expect("the first").is_some());
        let error = reader.next().await.expect_err("no such frame").kind();
        let cut = matches!(length, 100 | 0x10_0000);
        let kinds = [std::io::ErrorKind::InvalidData, std::io::ErrorKind::UnexpectedEof];
        assert_eq!(error, kinds[usize::from(cut)], "{length}");
        assert!(budget.used() <= 128 << 10, "{} bytes for {length}", budget.used());
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_has_thirty_seconds_to_come_and_a_large_one_less_while_others_wait_for_its_room() {
    for (claimed, sent, used_up, seconds) in
        [(1000, 3, true, 30), (1 << 20, 100_000, false, 30), (1 << 20, 100_000, true, 1)]
    {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let (mut reader, budget) = reader(far, 4 << 20);
        let other = Share::new(&budget, usize::MAX);
        let bytes = [&u32::to_be_bytes(claimed)[..], &vec![0; sent]].concat();
        tokio::io::AsyncWriteExt::write_all(&mut near, &bytes[..sent]).await.expect("room");
        let since = tokio::time::Instant::now();
        let used_up = async {
            // paced: time is simulated, and passes while nothing else happens.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            if used_up {
                other.take(4 << 20);
            }
            std::future::pending::<()>().await;
        };
        let read = tokio::select! {
            read = reader.next() => read,
            () = used_up => unreachable!("it never ends"),
        };
        assert_eq!(read.expect_err("too slow").kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed().as_secs(), seconds, "{claimed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_once_neither_end_sent_a_byte_for_long_enough() {
    let limit = std::time::Duration::from_secs(120);
    let activity = std::sync::Arc::new(Activity::default());
    let since = tokio::time::Instant::now();
    let idle = tokio::spawn({
        let activity = std::sync::Arc::clone(&activity);
        async move { activity.idle(limit).await }
    });
    for _ in 0..3 {
        // paced: a client that says something now and then.
        tokio::time::sleep(limit / 2).await;
        let command = Command::request(34, 1, Fields::default()).encode().concat();
        let share = Share::new(&Budget::new(1 << 20), 1 << 20);
        let mut reader = FrameReader::new(&command[..], share, std::sync::Arc::clone(&activity));
        reader.next().await.expect("a frame");
    }
    idle.await.expect("it ends");
    assert_eq!(since.elapsed().as_secs(), 180 + 120);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Command::decode(Bytes::from(bytes));
    }

    /// Whatever else is in a header, and however it is damaged behind its number: that is read.
    #[test]
    fn the_number_of_a_request_is_read_from_any_header(
        opaque: i32,
        code in 0..1000_i32,
        fields in proptest::collection::btree_map("[a-z]{1,6}", ".{0,20}", 0..6),
        odd in prop_oneof![
            Just("NaN"), Just("-Infinity"), Just("1e999"), Just("-12345678901234567890123"),
            Just("1.50E+2"), Just("null"), Just("true"),
            Just(r#""\\udfff\ud800x""#), Just(r#"{"a":[{},[[]],{"a":1,"a":2}]}"#),
        ],
        at: usize,
        cut: bool,
    ) {
        let shown = serde_json::to_string(&fields).expect("text");
        let header = format!(
            r#"{{"opaque":{opaque},"odd":{odd},"code":{code},"extFields":{shown},"odd":{odd},"flag":0}}"#
        );
        let read = Command::decode(frame(0, header.as_bytes(), b"")).expect("JSON");
        prop_assert_eq!((read.head.opaque, read.head.code), (opaque, code));
        let expected: Fields = fields.iter().collect();
        prop_assert_eq!(read.head.fields, expected);
        let head = header.find(",\"odd\"").expect("it is there");
        let mut bytes = header.into_bytes();
        let at = head + 1 + at % (bytes.len() - head - 1);
        if cut { bytes.truncate(at) } else { bytes[at] = 0 }
        let found = match Command::decode(frame(0, &bytes, b"")) {
            Ok(command) => command.head.opaque,
            Err(FrameError::Header { request, .. }) => request.head.opaque,
            Err(error) => panic!("{error}"),
        };
        prop_assert_eq!(found, opaque);
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

//! Input that is wrong costs its sender the connection or gets RocketMQ's code, and harms nobody else.

use bytes::BufMut as _;

use crate::client::{SEND, send_fields};
use crate::nodes::{Brokers, Setup};

#[tokio::test]
async fn bytes_that_are_no_frame_end_their_connection_and_no_other() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let mut other = brokers.client(leader).await;
    for bad in [
        &b"\xff\xff\xff\xff"[..],
        b"\x01\x00\x00\x01",
        b"\0\0\0\x02xx",
        b"\0\0\0\x08\x07\0\0\x04abcd",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = brokers.client(leader).await;
        client.write(bad).await;
        client.ended().await;
        other.send("T", 0, "x").await.done();
    }
}

#[tokio::test]
async fn requests_that_cannot_be_done_get_the_codes_of_rocketmq() {
    let brokers = Brokers::start_with(Setup { auto_create: false, ..Setup::default() }).await;
    let mut client = brokers.client(brokers.follower().await).await;
    let answer = client.call(9999, &[], b"").await;
    assert_eq!((answer.code, answer.remark.trim()), (3, "request type 9999 not supported"));
    let answer = client.send("T", 0, "x").await;
    assert_eq!(answer.code, 17, "no topic is made: {answer:?}");
    let fields = [("topic", "T"), ("readQueueNums", "2"), ("writeQueueNums", "2"), ("perm", "6")];
    client.call(17, &fields, b"").await.done();
    client.send("T", 1, "x").await.done();
    let long = format!("k\u{1}{}\u{2}", "v".repeat(32_800));
    let name = "t".repeat(128);
    for (topic, queue, properties, code) in [
        ("T", "2", "", 29),
        ("a b", "0", "", 29),
        ("", "0", "", 29),
        (name.as_str(), "0", "", 29),
        ("T", "0", long.as_str(), 13),
        ("T", "x", "", 1),
        ("SCHEDULE_TOPIC_XXXX", "0", "", 16),
        ("T", "0", "TRAN_MSG\u{1}true\u{2}", 16),
    ] {
        let answer = client.call(SEND, &send_fields(topic, queue, properties), b"x").await;
        assert_eq!(answer.code, code, "{topic} {queue}: {answer:?}");
        assert!(!answer.remark.is_empty(), "{answer:?}");
    }
    let body = vec![0; (4 << 20) + 1];
    let answer = client.call(SEND, &send_fields("T", "0", ""), &body).await;
    assert_eq!(answer.code, 13, "too large: {answer:?}");
    assert_eq!(client.pull("T", 7, 0).await.code, 29);
    assert_eq!(client.pull("unknown", 0, 0).await.code, 17);
    assert_eq!(client.call(34, &[], b"{").await.code, 1);
    assert_eq!(client.call(41, &[], b"[]").await.code, 1);
    assert_eq!(client.call(14, &[("topic", "T")], b"").await.code, 1);
    // After all of that the connection is as good as before.
    let answer = client.send("T", 1, "y").await.done();
    assert_eq!(answer.number("queueOffset"), 1);
    client.call(215, &[("topic", "T")], b"").await.done();
    assert_eq!(client.send("T", 1, "z").await.code, 17);
}

/// Topic, queue, properties and body of a send; code and begin of the remark that it gets.
type Wrong<'a> = (&'a str, &'a str, &'a str, &'a [u8], i64, &'a str);

/// What RocketMQ's own broker says, up to where it goes on about its web pages.
#[tokio::test]
async fn each_wrong_request_gets_rocketmqs_code_and_remark_and_its_connection_stays() {
    let brokers = Brokers::start_with(Setup { auto_create: false, ..Setup::default() }).await;
    let long_name = "t".repeat(128);
    let long_topic =
        format!("The specified topic: {long_name}, is longer than topic max length: 127");
    let large = vec![0; (4 << 20) + 1];
    let properties = |length: usize| format!("k\u{1}{}\u{2}", "v".repeat(length - 3));
    let (fits, long) = (properties(32_767 - 60), properties(32_768));
    for id in [brokers.leader().await, brokers.follower().await] {
        let mut client = brokers.client(id).await;
        let fields =
            [("topic", "T"), ("readQueueNums", "2"), ("writeQueueNums", "2"), ("perm", "6")];
        client.call(17, &fields, b"").await.done();
        let before = client.send("T", 1, "before").await.done().number("queueOffset");
        let sends: [Wrong<'_>; 10] = [
            ("new", "0", "", b"x", 17, "topic[new] not exist, apply first please!"),
            ("a b", "0", "", b"x", 29, "The specified topic: a b, contains illegal characters, "),
            (" ", "0", "", b"x", 29, "The specified topic is blank."),
            (&long_name, "0", "", b"x", 29, &long_topic),
            ("TBW102", "0", "", b"x", 16, "Sending message to topic[TBW102] is forbidden."),
            ("T", "2", "", b"x", 29, "request queueId[2] is illegal, topic[T] has 2"),
            ("T", "one", "", b"x", 1, "the field e is no number"),
            ("T", "99999999999", "", b"x", 1, "the field e is out of range"),
            ("T", "1", &long, b"x", 13, "message properties length 32768 is too long"),
            ("T", "1", "", &large, 13, "msg body size 4194305 is not legal, the limit is 4194304"),
        ];
        for (topic, queue, properties, body, code, remark) in sends {
            let answer = client.call(SEND, &send_fields(topic, queue, properties), body).await;
            assert_eq!(answer.code, code, "{topic} {queue}: {answer:?}");
            assert!(answer.remark.starts_with(remark), "{topic} {queue}: {answer:?}");
            assert!(!answer.fields.contains_key("msgId"), "{answer:?}");
        }
        client.send_with("T", 1, "fits", &fits).await.done();
        let group = |name| {
            [("consumerGroup", name), ("topic", "T"), ("queueId", "1"), ("commitOffset", "0")]
        };
        for (code, fields, expected, remark) in [
            (15, group("a b"), 29, "The specified group: a b, contains illegal characters, "),
            (15, group(""), 29, "The specified group is blank."),
            (
                15,
                [("consumerGroup", "g"), ("topic", "new"), ("queueId", "0"), ("commitOffset", "0")],
                17,
                "Topic new not exist!",
            ),
            (
                15,
                [("consumerGroup", "g"), ("topic", "T"), ("queueId", "1"), ("commitOffset", "-7")],
                29,
                "commitOffset[-7] is illegal",
            ),
            (38, group("nobody"), 1, "no consumer for this group, nobody"),
        ] {
            let answer = client.call(code, &fields, b"").await;
            assert_eq!(answer.code, expected, "{fields:?}: {answer:?}");
            assert!(answer.remark.starts_with(remark), "{fields:?}: {answer:?}");
        }
        // Out of range: where to go on is in the answer.
        let answer = client.pull("T", 1, 1_000).await;
        assert_eq!((answer.code, answer.number("nextBeginOffset")), (21, before + 2));
        for (topic, queue, code, remark) in [
            ("new", 0, 17, "topic[new] not exist, apply first please!"),
            ("T", 2, 29, "queueId[2] is illegal, topic:[T]"),
        ] {
            let answer = client.pull(topic, queue, 0).await;
            assert_eq!(answer.code, code, "{answer:?}");
            assert!(answer.remark.starts_with(remark), "{answer:?}");
        }
        // Nothing of that was stored, and nothing was lost.
        let after = client.send("T", 1, "after").await.done();
        assert_eq!(after.number("queueOffset"), before + 2);
    }
}

#[tokio::test]
async fn a_group_that_says_it_is_of_another_kind_is_taken_at_its_last_word_and_filters_by_sql_are_refused()
 {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    for (model, kind) in [("CLUSTERING", "CONSUME_PASSIVELY"), ("BROADCASTING", "CONSUME_ACTIVELY")]
    {
        let group = serde_json::json!({
            "groupName": "g", "consumeType": kind, "messageModel": model,
            "subscriptionDataSet": [{ "topic": "T", "subString": "*", "subVersion": 1 }],
        });
        let beat = serde_json::json!({ "clientID": "c", "consumerDataSet": [group] }).to_string();
        client.call(34, &[], beat.as_bytes()).await.done();
        let online = client.call(203, &[("consumerGroup", "g")], b"").await.done().json();
        assert_eq!(
            (&online["messageModel"], &online["consumeType"]),
            (&model.into(), &kind.into())
        );
    }
    let check = r#"{"subscriptionData":{"expressionType":"SQL92","subString":"a > 1"}}"#;
    let answer = client.call(46, &[], check.as_bytes()).await;
    let remark = "The broker does not support consumer to filter message by SQL92";
    assert_eq!((answer.code, answer.remark.as_str()), (1, remark));
    client.send("T", 0, "goes on").await.done();
}

#[tokio::test]
async fn frames_that_are_cut_or_lie_end_their_connection_wherever_they_are_wrong() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let mut other = brokers.client(leader).await;
    let header = br#"{"code":105,"opaque":1}"#;
    let length = header.len() as u32;
    let frame = |total: u32, mark: u32| {
        let mut frame = Vec::new();
        frame.put_u32(total);
        frame.put_u32(mark);
        frame.put_slice(header);
        frame
    };
    for (what, bytes) in [
        ("a frame above 16 MiB", frame((16 << 20) + 1, length)),
        ("a negative length", frame(u32::MAX, length)),
        ("no room for the mark", frame(3, length)),
        ("a header beyond its frame", frame(4 + length, length + 1)),
        ("a header above 1 MiB", frame(4 + length, (1 << 20) + 1)),
        ("an encoding that is none", frame(4 + length, 9 << 24 | length)),
    ] {
        let mut client = brokers.client(leader).await;
        client.write(&bytes).await;
        client.ended().await;
        other.send("T", 0, what).await.done();
    }
    assert_eq!(crate::client::bodies(&other.pull("T", 0, 0).await).len(), 6, "nothing was lost");
}

#[tokio::test]
async fn any_header_and_any_json_body_is_answered_under_its_number_and_the_connection_stays() {
    let brokers = Brokers::start().await;
    let (leader, follower) = (brokers.leader().await, brokers.follower().await);
    let mut clients = vec![
        brokers.name_server(leader).await,
        brokers.client(leader).await,
        brokers.client(follower).await,
    ];
    for client in &mut clients {
        for (header, code) in [
            (r#"{"opaque":7}"#, 1),
            (r#"{"opaque":7,"code":9999}"#, 3),
            (r#"{"code":"x","opaque":7,"extFields":5}"#, 1),
            (r#"{"opaque":7,"code":9999,"extFields":{"a":"\ud800"},"code":9999}"#, 3),
            (
                r#"{"opaque":7,"code":9999,"remark":"\udc00\ud800","extFields":{"a":NaN,"b":1e999}}"#,
                3,
            ),
            (r#"{"opaque":7.0,"code":9999,"a":{"b":[{}]}} "#, 3),
            (r#"{"opaque":7,"code":9999"#, 1),
            (r#"{"opaque":7,,}"#, 1),
            (r#"[1,{"opaque":7}]"#, 1),
        ] {
            client.ask_with(7, 0, header.as_bytes(), b"{}").await;
            let answer = client.answer().await;
            assert_eq!(answer.code, code, "{header}: {answer:?}");
            assert!(!answer.remark.is_empty(), "{answer:?}");
        }
        client.ask_with(0, 0, b"", b"").await;
        assert_eq!(client.answer().await.code, 1, "no header at all");
    }
    let mut client = brokers.client(leader).await;
    let beat = r#"{"clientID":"c","consumerDataSet":7}"#;
    for body in ["", "{", "5", "[]", r#"{"clientID":5}"#, beat, "\u{0}"] {
        for code in [34, 41, 42, 46] {
            client.ask(code, &[], body.as_bytes()).await;
            client.answer().await;
        }
    }
    // As Python and JavaScript write it.
    let beat = r#"{"clientID":"a","clientID":"c\ud83d","consumerDataSet":[{"groupName":"g","consumeType":NaN,
        "subscriptionDataSet":[{"topic":"T","subString":"*","subVersion":1.7e12,"x":Infinity,"tagsSet":null}]}],
        "heartbeatFingerprint":-0.0}"#;
    client.call(34, &[], beat.as_bytes()).await.done();
    let ids = client.call(38, &[("consumerGroup", "g")], b"").await.done().json();
    assert_eq!(ids["consumerIdList"][0], "c\u{FFFD}");
    client.send("T", 0, "goes on").await.done();
}

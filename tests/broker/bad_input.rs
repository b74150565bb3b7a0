//! Input that is wrong costs its sender the connection or gets RocketMQ's code, and harms nobody else.

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
        b"\0\0\0\x06\0\0\0\x02{}",
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

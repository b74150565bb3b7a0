//! Messages that ask for things that are not served.

use bytes::BufMut as _;

use crate::client::{SEND, SEND_BATCH, batch, messages, send_fields};
use crate::nodes::Brokers;

#[tokio::test]
async fn what_is_not_served_is_refused_with_rocketmqs_code_and_nothing_is_stored() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 0, "first").await.done();
    for (name, value, code) in [
        ("TIMER_DELAY_SEC", "10", 1),
        ("TIMER_DELAY_MS", "10000", 1),
        ("TIMER_DELIVER_MS", "9999999999999", 1),
        ("TRAN_MSG", "true", 16),
        ("INNER_NUM", "2", 13),
        ("INNER_MULTI_DISPATCH", "%LMQ%a", 1),
        ("REPLY_TO_CLIENT", "c", 3),
        ("DELAY", "soon", 1),
    ] {
        let properties = format!("KEYS\u{1}k\u{2}{name}\u{1}{value}\u{2}");
        let answer = client.send_with("T", 0, "x", &properties).await;
        assert_eq!(answer.code, code, "{name}: {answer:?}");
        let mut part = Vec::new();
        part.put_u32(23 + properties.len() as u32);
        part.put_bytes(0, 12);
        part.put_u32(1);
        part.put_slice(b"x");
        part.put_u16(properties.len() as u16);
        part.put_slice(properties.as_bytes());
        let answer = client.call(SEND_BATCH, &send_fields("T", "0", ""), &part).await;
        assert_eq!(answer.code, code, "{name} in a batch: {answer:?}");
    }
    for (flag, code) in [("4", 16), ("12", 16), ("128", 13), ("1025", 13)] {
        let mut fields = send_fields("T", "0", "").to_vec();
        fields.retain(|(name, _)| *name != "f");
        fields.push(("f", flag));
        let answer = client.call(SEND, &fields, b"x").await;
        assert_eq!(answer.code, code, "{flag}: {answer:?}");
    }
    client.send_with("T", 0, "second", "POP_CK\u{1}x\u{2}KEYS\u{1}k\u{2}").await.done();
    let stored = messages(&client.pull("T", 0, 0).await.done().body);
    let bodies: Vec<_> = stored.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["first", "second"]);
    assert!(!stored[1].properties.contains_key("POP_CK"), "{stored:?}");
}

/// A batch says twice what it asks for: in the request, and in each message. What the request asked for got SEND_OK, and was
/// dropped.
#[tokio::test]
async fn a_batch_whose_request_asks_for_what_is_not_served_is_refused() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 0, "first").await.done();
    let body = batch(&["one", "two"]);
    for (property, code) in [
        ("DELAY\u{1}3\u{2}", 13),
        ("DELAY\u{1}soon\u{2}", 1),
        ("TIMER_DELAY_SEC\u{1}10\u{2}", 1),
        ("TRAN_MSG\u{1}true\u{2}", 16),
        ("INNER_NUM\u{1}2\u{2}", 13),
        ("REPLY_TO_CLIENT\u{1}c\u{2}", 3),
    ] {
        let mut flagged = send_fields("T", "0", property);
        flagged.iter_mut().filter(|(name, _)| *name == "m").for_each(|(_, value)| *value = "true");
        for (kind, fields) in [(SEND_BATCH, send_fields("T", "0", property)), (SEND, flagged)] {
            let answer = client.call(kind, &fields, &body).await;
            assert_eq!(answer.code, code, "{property:?} in {kind}: {answer:?}");
        }
    }
    client.call(SEND_BATCH, &send_fields("T", "0", "DELAY\u{1}0\u{2}"), &body).await.done();
    let stored = messages(&client.pull("T", 0, 0).await.done().body);
    let bodies: Vec<_> = stored.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["first", "one", "two"]);
}

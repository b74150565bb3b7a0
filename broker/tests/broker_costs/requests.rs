//! Requests as clients write them, as large as they are wanted.

use std::collections::BTreeMap;

use bytes::BufMut as _;
use serde_json::json;

/// Names of 255 bytes.
pub(crate) const LONGEST: usize = 255;

pub(crate) type Fields<'a> = &'a [(&'a str, &'a str)];

/// A frame as a client writes it.
pub(crate) fn frame(code: i32, fields: Fields<'_>, body: &[u8]) -> Vec<u8> {
    let fields: BTreeMap<_, _> = fields.iter().copied().collect();
    let header = json!({ "code": code, "language": "JAVA", "version": 401, "opaque": 1, "flag": 0, "extFields": fields });
    let header = header.to_string();
    let mut frame = Vec::with_capacity(8 + header.len() + body.len());
    frame.put_u32((4 + header.len() + body.len()) as u32);
    frame.put_u32(header.len() as u32);
    frame.put_slice(header.as_bytes());
    frame.put_slice(body);
    frame
}

pub(crate) fn name(n: usize) -> String {
    format!("{n:0>LONGEST$}")
}

/// The fields of a send.
pub(crate) fn send<'a>(
    topic: &'a str,
    queue: &'a str,
    properties: &'a str,
) -> Vec<(&'a str, &'a str)> {
    vec![
        ("producerGroup", "g"),
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", queue),
        ("sysFlag", "0"),
        ("bornTimestamp", "0"),
        ("flag", "0"),
        ("properties", properties),
    ]
}

/// A batch of `count` messages with bodies of `bytes`.
pub(crate) fn batch(count: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        out.put_u32(22 + bytes as u32);
        out.put_bytes(0, 12);
        out.put_u32(bytes as u32);
        out.put_bytes(7, bytes);
        out.put_u16(0);
    }
    out
}

/// A request for locks of `count` queues, 1,024 of a topic.
pub(crate) fn locks(client: &str, count: usize) -> Vec<u8> {
    let queue = |n: usize| json!({ "topic": format!("{:0>127}", n / 1024), "queueId": n % 1024 });
    let queues: Vec<_> = (0..count).map(queue).collect();
    json!({ "consumerGroup": name(1), "clientId": client, "mqSet": queues })
        .to_string()
        .into_bytes()
}

/// What a node asks the home log for whose log has topics from before there was a registry; anybody can.
pub(crate) fn topics_to_adopt(count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32_le(3);
    out.put_u32_le(0);
    out.put_u64_le(count as u64);
    for n in 0..count {
        out.put_u64_le(127);
        out.put_slice(format!("{n:a>127}").as_bytes());
        [1024, 1024, 6].into_iter().for_each(|number| out.put_u32_le(number));
        out.put_u8(0);
    }
    out
}

/// A heartbeat of a client in `groups` groups with `topics` subscriptions each.
pub(crate) fn heartbeat(client: &str, groups: usize, topics: usize, expression: &str) -> Vec<u8> {
    let subscription =
        |n: usize| json!({ "topic": format!("T{n}"), "subString": expression, "subVersion": 1 });
    let group = |n: usize| {
        let topics: Vec<_> = (0..topics).map(subscription).collect();
        json!({ "groupName": format!("{client:.20}-{n}"), "consumeType": 1, "subscriptionDataSet": topics })
    };
    let groups: Vec<_> = (0..groups).map(group).collect();
    json!({ "clientID": client, "consumerDataSet": groups }).to_string().into_bytes()
}

//! Topics, and how far groups have consumed them.

use crate::costs::{Costs, KIB, MIB, SMALL};
use crate::requests::{frame, name, send, topics_to_adopt};

/// Ours, between brokers: a decision on a topic.
const DECIDE: i32 = 0x514C_0003;

pub(crate) async fn topics(costs: &mut Costs) {
    for n in 0..16 {
        let topic = format!("{n:0>127}");
        let fields = [
            ("topic", topic.as_str()),
            ("readQueueNums", "1024"),
            ("writeQueueNums", "1024"),
            ("perm", "6"),
        ];
        costs.measure("a topic of 1,024 queues", 17, (&fields, b""), 0, (SMALL, KIB)).await;
    }
    let over = [("topic", "T"), ("readQueueNums", "1025"), ("writeQueueNums", "8"), ("perm", "6")];
    costs.refused("a topic of 1,025 queues", 17, &over, b"").await;
    costs
        .refused("the name of a topic over the limit", 17, &[("topic", &"t".repeat(128))], b"")
        .await;
    let topic = format!("{:0>127}", 0);
    costs
        .client
        .all((0..1024).map(|n: u32| frame(10, &send(&topic, &n.to_string(), ""), b"x")))
        .await;
    costs.measure("1,024 queues", 202, (&[("topic", &topic)], b""), 0, (4 * MIB, 0)).await;
    costs.measure("one topic", 351, (&[("topic", &topic)], b""), 0, (SMALL, 0)).await;
    costs.measure("a route", 105, (&[("topic", &topic)], b""), 0, (SMALL, 0)).await;
    costs
        .measure(
            "the longest name that a frame's fields hold",
            105,
            (&[("topic", &"t".repeat(65_000))], b""),
            17,
            (SMALL, 0),
        )
        .await;
    costs
        .measure(
            "1,024 topics to take over",
            DECIDE,
            (&[], &topics_to_adopt(1024)),
            0,
            (8 * MIB, 512 * KIB),
        )
        .await;
    costs.refused("more than a decision may hold", DECIDE, &[], &topics_to_adopt(4000)).await;
    costs.measure("the cluster", 106, (&[], b""), 0, (SMALL, 0)).await;
    costs.measure("all topics", 206, (&[], b""), 0, (32 * MIB, 0)).await;
    costs.measure("a topic", 216, (&[("topic", "T")], b""), 0, (SMALL, 0)).await;
}

pub(crate) async fn offsets(costs: &mut Costs) {
    let of = |group: &str, topic: &str, queue: &str, offset: &str| -> Vec<u8> {
        frame(
            15,
            &[
                ("consumerGroup", group),
                ("topic", topic),
                ("queueId", queue),
                ("commitOffset", offset),
            ],
            b"",
        )
    };
    let topics: Vec<_> = (0..16).map(|n| format!("{n:0>127}")).collect();
    let all = name(0);
    costs.client.all(topics.iter().map(|topic| of(&all, topic, "0", "1"))).await;
    let fields = [
        ("consumerGroup", all.as_str()),
        ("topic", topics[0].as_str()),
        ("queueId", "1"),
        ("commitOffset", "7"),
    ];
    costs.measure("the longest names", 15, (&fields, b""), 0, (SMALL, KIB)).await;
    costs.measure("the longest names", 14, (&fields, b""), 0, (SMALL, 0)).await;
    let over = name(0) + "g";
    let fields =
        [("consumerGroup", over.as_str()), ("topic", "T"), ("queueId", "0"), ("commitOffset", "7")];
    costs.refused("a group over the limit", 15, &fields, b"").await;
    costs
        .measure(
            "all that a group consumes, in 16,384 queues",
            208,
            (&[("consumerGroup", &all)], b""),
            0,
            (16 * MIB, 0),
        )
        .await;
    costs.measure("the topics of a group", 343, (&[("group", &all)], b""), 0, (SMALL, 0)).await;
    let reset =
        [("group", all.as_str()), ("topic", &topics[0]), ("timestamp", "0"), ("isForce", "true")];
    costs.measure("a reset of 1,024 queues", 222, (&reset, b""), 0, (8 * MIB, 257 * KIB)).await;
    costs.client.all((1..8_000).map(|n| of(&name(n), &topics[1], "0", "1"))).await;
    costs.measure("8,000 groups with the longest names", 201, (&[], b""), 0, (32 * MIB, 0)).await;
    costs.client.all((8_000..58_000).map(|n| of(&name(n), &topics[1], "0", "1"))).await;
    costs
        .measure(
            "58,000 groups with the longest names",
            300,
            (&[("topic", &topics[1])], b""),
            0,
            (32 * MIB, 0),
        )
        .await;
    costs.measure("more groups than one answer holds", 201, (&[], b""), 1, (20 * MIB, 0)).await;
    let page = [("after", all.as_str())];
    costs.measure("a page of 58,000 groups", 201, (&page, b""), 0, (4 * MIB, 0)).await;
    let admin = costs.groups();
    let lag = admin.lag(&name(57_999), Some(&topics[1])).await.expect("one group is looked at");
    assert_eq!(lag.len(), 1024);
    costs
        .measure(
            "the offsets of 58,000 groups",
            215,
            (&[("topic", &topics[1])], b""),
            0,
            (32 * MIB, KIB),
        )
        .await;
}

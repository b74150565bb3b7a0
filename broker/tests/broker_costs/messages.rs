//! Messages: sent, handed back, and asked for.

use crate::costs::{Costs, KIB, MIB, SMALL};
use crate::requests::{batch, frame, name, send};

pub(crate) async fn messages(costs: &mut Costs) {
    let key = |bytes: usize| format!("UNIQ_KEY\u{1}{}\u{2}", "k".repeat(bytes - 10));
    let body = vec![7; 4 * MIB];
    let record = 4 * MIB + 33 * KIB;
    for code in [10, 310] {
        let properties = key(32_767);
        let fields = send("T", "0", &properties);
        costs
            .measure(
                "the largest message, with the longest key",
                code,
                (&fields, &body),
                0,
                (32 * MIB, record),
            )
            .await;
        let delayed = format!("{}DELAY\u{1}18\u{2}", key(32_600));
        let fields = send("T", "0", &delayed);
        costs
            .measure("the largest message, delayed", code, (&fields, &body), 0, (32 * MIB, record))
            .await;
        costs
            .refused("a body over the limit", code, &send("T", "0", ""), &vec![0; 4 * MIB + 1])
            .await;
        costs.refused("properties over the limit", code, &send("T", "0", &key(32_768)), b"x").await;
    }
    let keys = format!("KEYS\u{1}{}\u{2}", "k ".repeat(16_000));
    costs
        .measure(
            "a message with 16,000 keys",
            10,
            (&send("T", "0", &keys), b"x"),
            0,
            (8 * MIB, 34 * KIB),
        )
        .await;
    let topic = "t".repeat(127);
    let fields = send(&topic, "1", "");
    costs
        .measure(
            "4,096 messages of a batch",
            320,
            (&fields, &batch(4096, 0)),
            0,
            (8 * MIB, MIB + 512 * KIB),
        )
        .await;
    costs
        .measure(
            "a batch of 4 MiB",
            320,
            (&fields, &batch(1024, 4 * KIB - 22)),
            0,
            (32 * MIB, 5 * MIB),
        )
        .await;
    costs.refused("4,097 messages of a batch", 320, &fields, &batch(4097, 0)).await;
    let fields = [("offset", "0"), ("group", "g"), ("delayLevel", "1")];
    costs.measure("a message that is not there", 36, (&fields, b""), 1, (SMALL, 0)).await;
}

/// Questions about messages: what they cost is what they read.
pub(crate) async fn reading(costs: &mut Costs) {
    let large = vec![7; 4 * MIB];
    costs.client.all([frame(10, &send("Large", "0", "KEYS\u{1}k\u{2}"), &large)]).await;
    let last = (costs.log.watermarks().committed - 1) << 12;
    let (last, group) = (last.to_string(), name(2));
    let answer = 16 * MIB;
    let back = [
        ("offset", last.as_str()),
        ("group", group.as_str()),
        ("delayLevel", "18"),
        ("originMsgId", &"i".repeat(30_000)),
    ];
    costs
        .measure(
            "the largest message is handed back",
            36,
            (&back, b""),
            0,
            (32 * MIB, 4 * MIB + 64 * KIB),
        )
        .await;
    let pull = |flags: &'static str, tags: &'static str| {
        [
            ("consumerGroup", "g"),
            ("topic", "Large"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "1024"),
            ("sysFlag", flags),
            ("subscription", tags),
            ("commitOffset", "1"),
        ]
    };
    let tags: &'static str = Box::leak("t||".repeat(1024).into_boxed_str());
    for code in [11, 361] {
        costs.measure("an offset goes along", code, (&pull("1", "*"), b""), 0, (answer, KIB)).await;
        // It is answered once the offset is applied.
        costs.client.call(&frame(14, &pull("1", "*"), b"")).await;
        costs
            .measure("the largest message", code, (&pull("0", "*"), b""), 0, (answer, 4 * KIB))
            .await;
        costs
            .measure("the longest subscription", code, (&pull("4", tags), b""), 20, (SMALL, 0))
            .await;
        let over: &'static str = Box::leak("t||".repeat(1025).into_boxed_str());
        costs.refused("a subscription over the limit", code, &pull("4", over), b"").await;
        let group = name(0) + "g";
        let mut fields: Vec<(&str, &str)> = pull("0", "*").to_vec();
        fields[0].1 = &group;
        costs.refused("a group over the limit", code, &fields, b"").await;
    }
    costs.measure("the largest message", 33, (&[("offset", &last)], b""), 0, (answer, 0)).await;
    let query = [
        ("topic", "Large"),
        ("key", "k"),
        ("maxNum", "64"),
        ("beginTimestamp", "0"),
        ("endTimestamp", "9000000000000"),
    ];
    costs.measure("the largest message by key", 12, (&query, b""), 0, (answer, 0)).await;
    let of_queue = [("topic", "Large"), ("queueId", "0"), ("timestamp", "1")];
    for code in [29, 30, 31] {
        costs.measure("a queue", code, (&of_queue, b""), 0, (answer, 0)).await;
    }
    costs.measure("all values", 28, (&[], b""), 0, (answer, 0)).await;
}

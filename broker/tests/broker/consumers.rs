//! Consumer groups: who is in them, what they have consumed, what they hand back.

use serde_json::json;

use crate::client::{Client, HEARTBEAT, Message, QUERY_OFFSET, UPDATE_OFFSET, messages};
use crate::cluster::eventually;
use crate::nodes::Brokers;

/// Says that a client consumes in a group.
async fn heartbeat(client: &mut Client, id: &str, group: &str) {
    let beat = json!({
        "clientID": id,
        "consumerDataSet": [{
            "groupName": group, "consumeType": 1, "messageModel": "CLUSTERING",
            "subscriptionDataSet": [{ "topic": "T", "subString": "*", "subVersion": "7" }],
        }],
    });
    client.call(HEARTBEAT, &[], beat.to_string().as_bytes()).await.done();
}

async fn members(client: &mut Client, group: &str) -> Vec<String> {
    let answer = client.call(38, &[("consumerGroup", group)], b"").await;
    if answer.code != 0 {
        return Vec::new();
    }
    let ids = answer.json()["consumerIdList"].clone();
    serde_json::from_value(ids).expect("a list of names")
}

#[tokio::test]
async fn a_group_is_told_when_a_member_comes_or_goes_through_whichever_node() {
    let brokers = Brokers::start().await;
    let mut first = brokers.client(brokers.follower().await).await;
    heartbeat(&mut first, "a", "g").await;
    assert_eq!(first.told().await.code, 40, "it joined itself");
    let mut second = brokers.client(brokers.leader().await).await;
    heartbeat(&mut second, "b", "g").await;
    let told = first.told().await;
    assert_eq!((told.code, told.fields["consumerGroup"].as_str()), (40, "g"));
    assert_eq!(members(&mut first, "g").await, ["a", "b"]);
    let fields = [("clientID", "b"), ("consumerGroup", "g")];
    second.call(35, &fields, b"").await.done();
    assert_eq!(first.told().await.code, 40);
    assert_eq!(members(&mut first, "g").await, ["a"]);
    heartbeat(&mut second, "b", "g").await;
    assert_eq!(first.told().await.code, 40);
    drop(second);
    assert_eq!(first.told().await.code, 40, "its connection ended");
    assert_eq!(members(&mut first, "g").await, ["a"]);
}

#[tokio::test]
async fn consumed_offsets_are_kept_and_those_never_noted_are_told_apart() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.follower().await).await;
    client.send("T", 0, "x").await.done();
    let of = |group: &'static str| [("consumerGroup", group), ("topic", "T"), ("queueId", "0")];
    let answer = client.call(QUERY_OFFSET, &of("g"), b"").await.done();
    assert_eq!(answer.number("offset"), 0, "a new group on a young queue begins at its begin");
    let mut fields = of("g").to_vec();
    fields.push(("setZeroIfNotFound", "false"));
    assert_eq!(client.call(QUERY_OFFSET, &fields, b"").await.code, 22);
    let mut fields = of("g").to_vec();
    fields.push(("commitOffset", "1"));
    client.call(UPDATE_OFFSET, &fields, b"").await.done();
    assert_eq!(client.call(QUERY_OFFSET, &of("g"), b"").await.done().number("offset"), 1);
    // As clients do it: without an answer.
    let mut fields = of("h").to_vec();
    fields.push(("commitOffset", "5"));
    client.oneway(UPDATE_OFFSET, &fields, b"").await;
    eventually("the offset to be noted", async || {
        let answer = client.call(QUERY_OFFSET, &of("h"), b"").await.done();
        (answer.number("offset") == 5).then_some(())
    })
    .await;
}

/// Seven of five hundred were never answered: the next one had taken their place before they were seen to be applied.
#[tokio::test]
async fn every_awaited_offset_is_answered_though_the_next_ones_replace_it() {
    let brokers = Brokers::start().await;
    let (leader, follower) = (brokers.leader().await, brokers.follower().await);
    brokers.client(leader).await.send("T", 0, "x").await.done();
    let update = async |id: u64, from: u64| {
        let mut clients = Vec::new();
        for n in 0..50 {
            let mut client = brokers.client(id).await;
            for offset in 0..5 {
                let offset = (from + 50 * offset + n).to_string();
                let fields = [
                    ("consumerGroup", "g"),
                    ("topic", "T"),
                    ("queueId", "0"),
                    ("commitOffset", offset.as_str()),
                ];
                client.ask(UPDATE_OFFSET, &fields, b"").await;
            }
            clients.push(client);
        }
        for mut client in clients {
            client.answers(5).await.into_iter().for_each(|answer| drop(answer.done()));
        }
    };
    update(leader, 0).await;
    update(follower, 1_000).await;
}

/// A consumer that takes a queue over asks right after its last owner reported; what it is told is in the log.
#[tokio::test]
async fn who_asks_for_an_offset_is_told_of_one_that_was_just_reported() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 0, "x").await.done();
    for offset in 1..50 {
        let text = offset.to_string();
        let of = offset_of("g", "T", &text);
        client.oneway(UPDATE_OFFSET, &of, b"").await;
        let answer = client.call(QUERY_OFFSET, &of[..3], b"").await.done();
        assert_eq!(answer.number("offset"), offset);
    }
}

fn offset_of<'a>(group: &'a str, topic: &'a str, offset: &'a str) -> [(&'static str, &'a str); 4] {
    [("consumerGroup", group), ("topic", topic), ("queueId", "0"), ("commitOffset", offset)]
}

#[tokio::test]
async fn names_that_are_too_long_hold_up_no_other_groups_offsets() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let mut client = brokers.client(leader).await;
    client.send("T", 0, "x").await.done();
    let long = "g".repeat(400_000);
    let retry = format!("%RETRY%{long}");
    for (group, topic) in [
        (long.as_str(), "T"),
        ("g", retry.as_str()),
        ("g", "%RETRY%other"),
        (&long, &retry),
        ("g", "nothing"),
    ] {
        let of = offset_of(group, topic, "1");
        client.oneway(UPDATE_OFFSET, &of, b"").await;
        let answer = client.call(UPDATE_OFFSET, &of, b"").await;
        assert!([29, 17].contains(&answer.code), "{answer:?}");
        let pull = [("queueOffset", "0"), ("maxMsgNums", "1"), ("sysFlag", "1")];
        client.call(11, &[&of[..], &pull].concat(), b"").await;
    }
    client.call(UPDATE_OFFSET, &offset_of("g", "%RETRY%g", "2"), b"").await.done();
    client.call(UPDATE_OFFSET, &offset_of("g", "T", "1"), b"").await.done();
    brokers.kill(leader);
    let mut client = brokers.client(brokers.leader().await).await;
    for (topic, offset) in [("T", 1), ("%RETRY%g", 2)] {
        let of = offset_of("g", topic, "");
        let answer = client.call(QUERY_OFFSET, &of[..3], b"").await.done();
        assert_eq!(answer.number("offset"), offset, "{topic}");
    }
    let groups = client.call(300, &[("topic", "T")], b"").await.done().json();
    assert_eq!(groups["groupList"], json!(["g"]));
}

/// The next message of a queue, as soon as there is one.
async fn next(client: &mut Client, topic: &str, from: i64) -> Message {
    let pulled = eventually("a message", async || {
        client.start_pull(topic, 0, from, 5_000, "*").await;
        let answer = client.answer().await;
        (answer.code == 0).then(|| messages(&answer.body))
    });
    pulled.await.remove(0)
}

#[tokio::test]
async fn a_message_handed_back_comes_again_later_and_at_last_is_dead() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send_with("T", 0, "bad", "KEYS\u{1}k\u{2}").await.done();
    let mut message = next(&mut client, "T", 0).await;
    for attempt in 1..=2_i64 {
        let physical = message.physical.to_string();
        let fields = [
            ("offset", physical.as_str()),
            ("group", "g"),
            ("delayLevel", "1"),
            ("originMsgId", "ORIGIN"),
            ("maxReconsumeTimes", "2"),
        ];
        client.call(36, &fields, b"").await.done();
        message = next(&mut client, "%RETRY%g", attempt - 1).await;
        assert_eq!((message.reconsumed, message.topic.as_str()), (attempt as u32, "%RETRY%g"));
        assert_eq!((message.body.as_str(), message.properties["KEYS"].as_str()), ("bad", "k"));
        assert_eq!(message.properties["RETRY_TOPIC"], "T");
        assert_eq!(message.properties["ORIGIN_MESSAGE_ID"], "ORIGIN");
        assert!(!message.properties.contains_key("DELAY"), "{message:?}");
    }
    let physical = message.physical.to_string();
    let fields = [
        ("offset", physical.as_str()),
        ("group", "g"),
        ("delayLevel", "1"),
        ("maxReconsumeTimes", "2"),
    ];
    client.call(36, &fields, b"").await.done();
    let dead = next(&mut client, "%DLQ%g", 0).await;
    assert_eq!((dead.body.as_str(), dead.properties["DLQ_ORIGIN_TOPIC"].as_str()), ("bad", "T"));
}

#[tokio::test]
async fn a_queue_is_locked_for_one_consumer_at_a_time() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.follower().await).await;
    let body = |id: &str| {
        let queue = json!({ "brokerName": "broker-0", "topic": "T", "queueId": 2 });
        json!({ "consumerGroup": "g", "clientId": id, "mqSet": [queue] }).to_string()
    };
    let mut lock = async |id: &str| {
        let answer = client.call(41, &[], body(id).as_bytes()).await.done().json();
        answer["lockOKMQSet"].as_array().expect("a list").clone()
    };
    assert_eq!(lock("a").await[0]["queueId"], 2);
    assert!(lock("b").await.is_empty());
    assert_eq!(lock("a").await.len(), 1, "renewed");
    let leader = brokers.leader().await;
    brokers.kill(leader);
    let mut client = brokers.client(brokers.leader().await).await;
    let answer = client.call(41, &[], body("b").as_bytes()).await.done().json();
    assert_eq!(answer["lockOKMQSet"], json!([]), "the new leader knows who holds it");
    client.call(42, &[], body("a").as_bytes()).await.done();
    let answer = client.call(41, &[], body("b").as_bytes()).await.done().json();
    assert_eq!(answer["lockOKMQSet"][0]["topic"], "T");
}

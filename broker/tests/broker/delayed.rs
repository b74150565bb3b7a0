//! Delayed messages whose place is gone when they are due, and consumers that give up messages.

use serde_json::json;

use crate::client::{Client, SEND, bodies, messages, send_fields};
use crate::cluster::eventually;
use crate::nodes::Brokers;

const DEAD_DELAYED: &str = "%DLQ%SCHEDULE_CONSUMER";

async fn set_queues(client: &mut Client, topic: &str, queues: &str) {
    let fields = [
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", queues),
        ("writeQueueNums", queues),
        ("perm", "6"),
    ];
    client.call(17, &fields, b"").await.done();
}

async fn end_of(client: &mut Client, topic: &str, queue: &str) -> i64 {
    let fields = [("topic", topic), ("queueId", queue)];
    client.call(30, &fields, b"").await.done().number("offset")
}

/// Waits until a queue has so many messages.
async fn grown(client: &mut Client, topic: &str, queue: &str, end: i64) {
    eventually("the delivery", async || (end_of(client, topic, queue).await == end).then_some(()))
        .await;
}

#[tokio::test]
async fn a_delayed_message_whose_queue_is_gone_is_in_it_when_the_topic_has_it_again() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    set_queues(&mut client, "T", "4").await;
    client.send_with("T", 3, "late", "DELAY\u{1}1\u{2}").await.done();
    client.send_with("T", 0, "next", "DELAY\u{1}1\u{2}").await.done();
    set_queues(&mut client, "T", "2").await;
    grown(&mut client, "T", "0", 1).await;
    assert_eq!(end_of(&mut client, "T", "3").await, 1);
    set_queues(&mut client, "T", "4").await;
    assert_eq!(bodies(&client.pull("T", 3, 0).await), ["late"]);
}

#[tokio::test]
async fn a_delayed_message_whose_topic_is_gone_is_a_dead_letter_and_holds_nothing_up() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send_with("T", 2, "gone", "KEYS\u{1}k\u{2}DELAY\u{1}1\u{2}").await.done();
    client.send_with("U", 0, "next", "DELAY\u{1}1\u{2}").await.done();
    client.call(215, &[("topic", "T")], b"").await.done();
    grown(&mut client, "U", "0", 1).await;
    let dead = messages(&client.pull(DEAD_DELAYED, 0, 0).await.done().body);
    let [dead] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!((dead.body.as_str(), dead.topic.as_str(), dead.queue), ("gone", DEAD_DELAYED, 0));
    assert_eq!(dead.properties["DLQ_ORIGIN_TOPIC"], "T");
    assert_eq!(dead.properties["KEYS"], "k");
    assert!(dead.properties.contains_key("DLQ_ORIGIN_MESSAGE_ID"));
    for ours in ["DELAY", "__ARRIVED_MS"] {
        assert!(!dead.properties.contains_key(ours), "{dead:?}");
    }
    assert_eq!(end_of(&mut client, "T", "2").await, 0, "it does not come back by itself");
}

#[tokio::test]
async fn a_message_handed_back_whose_retry_topic_is_gone_is_a_dead_letter_of_its_group() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 0, "bad").await.done();
    let first = messages(&client.pull("T", 0, 0).await.body).remove(0);
    let physical = first.physical.to_string();
    let fields = [
        ("offset", physical.as_str()),
        ("group", "g"),
        ("delayLevel", "1"),
        ("originMsgId", "ORIGIN"),
    ];
    client.call(36, &fields, b"").await.done();
    client.call(215, &[("topic", "%RETRY%g")], b"").await.done();
    grown(&mut client, "%DLQ%g", "0", 1).await;
    let dead = messages(&client.pull("%DLQ%g", 0, 0).await.done().body).remove(0);
    assert_eq!((dead.body.as_str(), dead.reconsumed), ("bad", 1));
    assert_eq!(dead.properties["DLQ_ORIGIN_TOPIC"], "T");
    assert_eq!(dead.properties["DLQ_ORIGIN_MESSAGE_ID"], "ORIGIN");
}

/// A consumer sends a message to its retry topic: it was consumed `reconsumed` times, and may be `most` times.
async fn give_up(client: &mut Client, group: &str, reconsumed: &str, most: &str) {
    let topic = format!("%RETRY%{group}");
    let mut fields = send_fields(&topic, "0", "RETRY_TOPIC\u{1}T\u{2}DELAY\u{1}4\u{2}").to_vec();
    for (name, value) in [("j", reconsumed), ("l", most)] {
        fields.retain(|(held, _)| *held != name);
        fields.push((name, value));
    }
    client.call(SEND, &fields, b"poison").await.done();
}

#[tokio::test]
async fn what_a_consumer_in_order_gives_up_is_a_dead_letter_at_once() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    let queue = json!({ "brokerName": "broker-0", "topic": "T", "queueId": 0 });
    let lock = json!({ "consumerGroup": "g", "clientId": "a", "mqSet": [queue] }).to_string();
    client.call(41, &[], lock.as_bytes()).await.done();
    // As Java 4.9.8 says it. With 5.3.3 the first number is 2, which is enough by itself.
    give_up(&mut client, "g", "1", "1").await;
    give_up(&mut client, "h", "2", "1").await;
    for group in ["g", "h"] {
        let dead = client.pull(&format!("%DLQ%{group}"), 0, 0).await.done();
        let dead = messages(&dead.body).remove(0);
        assert_eq!(dead.body, "poison");
        assert!(!dead.properties.contains_key("DELAY"), "{dead:?}");
    }
    assert_eq!(end_of(&mut client, "SCHEDULE_TOPIC_XXXX", "3").await, 0);
    // A group without locks tries again, as often as it may.
    give_up(&mut client, "i", "1", "1").await;
    assert_eq!(end_of(&mut client, "SCHEDULE_TOPIC_XXXX", "3").await, 1);
    client.call(42, &[], lock.as_bytes()).await.done();
    give_up(&mut client, "g", "1", "1").await;
    assert_eq!(end_of(&mut client, "%DLQ%g", "0").await, 1, "it has given its locks back");
}

//! Messages: sent, pulled, waited for, found again.

use std::time::{Duration, Instant};

use quorumlog_broker::BrokerClient;

use crate::client::{ROUTE, SEND, SEND_BATCH, batch, bodies, messages, send_fields};
use crate::nodes::{Brokers, Setup};

#[tokio::test]
async fn messages_sent_through_any_node_are_numbered_and_pulled_back_from_any() {
    let brokers = Brokers::start().await;
    for (sent, id) in brokers.ids().into_iter().enumerate() {
        let mut client = brokers.client(id).await;
        let answer = client.send("T", 1, &format!("from {id}")).await.done();
        assert_eq!((answer.number("queueId"), answer.number("queueOffset")), (1, sent as i64));
        assert_eq!(answer.fields["msgId"].len(), 32, "{answer:?}");
    }
    for id in brokers.ids() {
        let mut client = brokers.client(id).await;
        let answer = client.pull("T", 1, 0).await.done();
        let numbers = ["nextBeginOffset", "minOffset", "maxOffset"].map(|name| answer.number(name));
        assert_eq!(numbers, [3, 0, 3]);
        let pulled = messages(&answer.body);
        let offsets: Vec<_> = pulled.iter().map(|m| (m.queue, m.offset)).collect();
        assert_eq!(offsets, [(1, 0), (1, 1), (1, 2)]);
        assert!(pulled.is_sorted_by(|a, b| a.physical < b.physical), "{pulled:?}");
        assert_eq!(bodies(&answer), ["from 1", "from 2", "from 3"]);
        // The client gave no key, so the broker did.
        assert!(pulled.iter().all(|m| m.properties.contains_key("UNIQ_KEY")), "{pulled:?}");
        let edges = [(30, 3), (31, 0)];
        for (code, offset) in edges {
            let answer = client.call(code, &[("topic", "T"), ("queueId", "1")], b"").await.done();
            assert_eq!(answer.number("offset"), offset);
        }
    }
}

#[tokio::test]
async fn a_pull_that_waits_is_woken_by_a_message_that_it_wants() {
    let brokers = Brokers::start().await;
    for id in [brokers.leader().await, brokers.follower().await] {
        let topic = format!("T{id}");
        let mut producer = brokers.client(brokers.leader().await).await;
        producer.send(&topic, 0, "first").await.done();
        let mut consumer = brokers.client(id).await;
        consumer.start_pull(&topic, 0, 1, 25_000, "TagB").await;
        let begun = Instant::now();
        producer.send(&topic, 0, "not wanted").await.done();
        producer.send_with(&topic, 0, "wanted", "TAGS\u{1}TagB\u{2}").await.done();
        let answer = consumer.answer().await.done();
        assert_eq!(bodies(&answer), ["wanted"]);
        assert_eq!(answer.number("nextBeginOffset"), 3);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_pull_that_finds_nothing_says_where_to_go_on() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 0, "x").await.done();
    let answer = client.pull("T", 0, 1).await;
    assert_eq!((answer.code, answer.number("nextBeginOffset")), (19, 1));
    client.start_pull("T", 0, 1, 50, "*").await;
    let answer = client.answer().await;
    assert_eq!((answer.code, answer.number("nextBeginOffset")), (19, 1), "after a wait");
    // What is not wanted is not looked at again.
    client.start_pull("T", 0, 0, 50, "TagB").await;
    let answer = client.answer().await;
    assert_eq!((answer.code, answer.number("nextBeginOffset")), (20, 1));
    let answer = client.pull("T", 0, 9).await;
    assert_eq!((answer.code, answer.number("nextBeginOffset")), (21, 1));
    let answer = client.pull("T", 3, 0).await;
    assert_eq!((answer.code, answer.number("maxOffset")), (19, 0), "a queue without messages");
}

#[tokio::test]
async fn a_batch_is_stored_whole_with_an_id_for_each_message() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    let body = batch(&["one", "two", "three"]);
    let answer = client.call(SEND_BATCH, &send_fields("T", "0", ""), &body).await.done();
    assert_eq!(answer.fields["msgId"].split(',').count(), 3);
    assert_eq!(bodies(&client.pull("T", 0, 0).await), ["one", "two", "three"]);
    let cut = &body[..body.len() - 1];
    let answer = client.call(SEND_BATCH, &send_fields("T", "0", ""), cut).await;
    assert_eq!(answer.code, 13, "{answer:?}");
    assert_eq!(client.pull("T", 0, 3).await.code, 19, "nothing of it is stored");
}

#[tokio::test]
async fn a_pull_from_below_zero_is_out_of_range_and_does_not_wait() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 1, "x").await.done();
    // Queue 0 has no message, and so no other offset than 0.
    for (queue, from) in [(1, -1), (1, i64::MIN), (0, -1), (0, 1)] {
        client.start_pull("T", queue, from, 25_000, "*").await;
        let answer = client.answer().await;
        assert_eq!((answer.code, answer.number("nextBeginOffset")), (21, 0), "{answer:?}");
    }
}

#[tokio::test]
async fn messages_are_found_by_id_by_key_and_by_time() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    let keyed = "KEYS\u{1}k1 k2\u{2}UNIQ_KEY\u{1}U1\u{2}";
    client.send("T", 0, "other").await.done();
    client.send_with("T", 0, "keyed", keyed).await.done();
    let pulled = messages(&client.pull("T", 0, 0).await.body);
    let physical = pulled[1].physical.to_string();
    let answer = client.call(33, &[("offset", &physical)], b"").await.done();
    assert_eq!(messages(&answer.body), pulled[1..]);
    let answer = client.call(33, &[("offset", "99999999")], b"").await;
    assert_eq!(answer.code, 1, "{answer:?}");
    for (key, unique, found) in
        [("k2", "false", 0), ("U1", "true", 0), ("U1", "false", 22), ("k", "false", 22)]
    {
        let fields = [
            ("topic", "T"),
            ("key", key),
            ("maxNum", "8"),
            ("beginTimestamp", "0"),
            ("endTimestamp", "9223372036854775807"),
            ("_UNIQUE_KEY_QUERY", unique),
        ];
        let answer = client.call(12, &fields, b"").await;
        assert_eq!(answer.code, found, "{key} {unique}: {answer:?}");
        if found == 0 {
            assert_eq!(bodies(&answer), ["keyed"]);
        }
    }
    for (time, offset) in [("0", 0), ("9000000000000", 2)] {
        let fields = [("topic", "T"), ("queueId", "0"), ("timestamp", time)];
        assert_eq!(client.call(29, &fields, b"").await.done().number("offset"), offset);
    }
}

#[tokio::test]
async fn the_name_server_lists_every_log_and_topics_of_one_are_topics_of_all() {
    let brokers = Brokers::start_with(Setup { logs: 2, ..Setup::default() }).await;
    let mut names = brokers.name_server(2).await;
    assert_eq!(names.call(ROUTE, &[("topic", "T")], b"").await.code, 17);
    for topic in ["TBW102", "%RETRY%g"] {
        let route = names.call(ROUTE, &[("topic", topic)], b"").await.done().json();
        let listed = route["queueDatas"].as_array().expect("queues").len();
        assert_eq!(listed, 2, "{topic}: {route}");
    }
    let mut producer = brokers.client(brokers.leader().await).await;
    producer.send("T", 0, "x").await.done();
    let route = crate::cluster::eventually("the topic on every node", async || {
        let route = names.call(ROUTE, &[("topic", "T")], b"").await;
        (route.code == 0).then(|| route.json())
    });
    let route = route.await;
    assert_eq!(route["queueDatas"][1]["readQueueNums"], 4, "{route}");
    let other = &route["brokerDatas"][1];
    assert_eq!(other["brokerName"], "broker-1");
    let addr = other["brokerAddrs"]["0"].as_str().expect("an address").parse().expect("one");
    let mut producer = crate::client::Client::connect(addr).await;
    // No default topic: it may be sent to since the other log has it.
    let mut fields = send_fields("T", "3", "").to_vec();
    fields[2].1 = "";
    producer.call(SEND, &fields, b"x").await.done();
}

#[tokio::test]
async fn a_topics_queues_are_listed_with_where_they_begin_and_end() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 0, "first").await.done();
    client.send("T", 0, "last").await.done();
    let stats = client.call(202, &[("topic", "T")], b"").await.done();
    let body = String::from_utf8(stats.body).expect("text");
    // Keys are objects, as RocketMQ's clients have them.
    let queue = |number| format!(r#"{{"brokerName":"broker-0","queueId":{number},"topic":"T"}}:"#);
    let (_, used) = body.split_once(&queue(0)).expect("the queue that was sent to");
    let (used, _) = used.split_once('}').expect("its numbers");
    assert!(used.ends_with(r#","maxOffset":2,"minOffset":0"#), "{body}");
    assert!(!used.contains(r#""lastUpdateTimestamp":0,"#), "{body}");
    let empty = r#"{"lastUpdateTimestamp":0,"maxOffset":0,"minOffset":0}"#;
    assert!(body.contains(&format!("{}{empty}", queue(3))), "{body}");
    let settings = client.call(351, &[("topic", "T")], b"").await.done().json();
    assert_eq!((&settings["topicName"], &settings["readQueueNums"]), (&"T".into(), &4.into()));
    for code in [202, 351] {
        assert_eq!(client.call(code, &[("topic", "none")], b"").await.code, 17, "{code}");
    }
}

#[tokio::test]
async fn the_client_for_tools_has_many_requests_under_way_and_hears_of_the_end() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let client = BrokerClient::connect(brokers.broker_addr(leader), "tools").await;
    let client = client.expect("it listens");
    let waiting = client.pull(("T", 0), 0, 32, Duration::from_secs(25));
    let missing = waiting.await.expect_err("there is no such topic yet").to_string();
    assert!(missing.contains("17: topic[T] not exist"), "{missing}");
    let first = client.send("T", 0, "first".into()).await.expect("stored");
    let waiting = client.pull(("T", 0), first.offset + 1, 32, Duration::from_secs(25));
    let batch = ["second".into(), "third".into()];
    let (found, sent) = tokio::join!(waiting, client.send_batch("T", 0, &batch));
    let (found, sent) = (found.expect("they came"), sent.expect("stored"));
    assert_eq!((sent.offset, sent.id.split(',').count(), found.next), (1, 2, 3));
    let bodies: Vec<_> = messages(&found.messages).into_iter().map(|it| it.body).collect();
    assert_eq!(bodies, ["second", "third"]);
    let empty = client.pull(("T", 0), 3, 32, Duration::from_millis(1)).await.expect("an answer");
    assert_eq!((empty.next, empty.messages.len()), (3, 0));
    let waiting = client.pull(("T", 0), 3, 32, Duration::from_secs(25));
    let killed = async { brokers.kill(leader) };
    let (ended, ()) = tokio::join!(waiting, killed);
    assert!(ended.is_err(), "{ended:?}");
    assert!(client.send("T", 0, "late".into()).await.is_err());
}

/// As many as four looks for one answer go through, and some more.
#[tokio::test]
async fn a_pull_whose_filter_finds_nothing_looks_at_some_messages_and_has_its_client_go_on() {
    const SENDS: i64 = 66;
    const EACH: i64 = 1024;
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    let body = batch(&["x"; EACH as usize]);
    for _ in 0..SENDS {
        let mut fields = send_fields("T", "0", "");
        fields[12].1 = "true";
        client.call(SEND_BATCH, &fields, &body).await.done();
    }
    client.start_pull("T", 0, 0, 0, "wanted").await;
    let answer = client.answer().await;
    let next = answer.number("nextBeginOffset");
    assert_eq!((answer.code, next), (20, 4 * 16_384), "{answer:?}");
    client.start_pull("T", 0, next, 0, "wanted").await;
    let answer = client.answer().await;
    assert_eq!((answer.code, answer.number("nextBeginOffset")), (20, SENDS * EACH), "{answer:?}");
}

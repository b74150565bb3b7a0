//! Tools that look at consumer groups and reset them, while their consumers run.

use std::io::ErrorKind;

use quorumlog_broker::{GroupAdmin, QueueReset, ResetTo};
use serde_json::{Value, json};

use crate::client::{Client, Frame, HEARTBEAT, QUERY_OFFSET, UPDATE_OFFSET};
use crate::nodes::{Brokers, Setup};

async fn heartbeat(client: &mut Client, id: &str, group: &str) {
    let beat = json!({
        "clientID": id,
        "consumerDataSet": [{
            "groupName": group, "consumeType": 1, "messageModel": "CLUSTERING", "consumeFromWhere": 4,
            "subscriptionDataSet": [{ "topic": "T", "subString": "a || b", "subVersion": 7 }],
        }],
    });
    client.call(HEARTBEAT, &[], beat.to_string().as_bytes()).await.done();
    // That it joined is told to it as well.
    assert_eq!(client.told().await.code, 40);
}

fn of(group: &'static str, queue: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![("consumerGroup", group), ("topic", "T"), ("queueId", queue)]
}

/// Says how far a group is; waits until that is noted, or passed over.
async fn commit(
    client: &mut Client,
    group: &'static str,
    queue: &'static str,
    offset: &str,
) -> Frame {
    let fields = [of(group, queue), vec![("commitOffset", offset)]].concat();
    client.call(UPDATE_OFFSET, &fields, b"").await.done()
}

async fn committed(client: &mut Client, group: &'static str, queue: &'static str) -> i64 {
    client.call(QUERY_OFFSET, &of(group, queue), b"").await.done().number("offset")
}

async fn admin(brokers: &Brokers) -> GroupAdmin {
    let id = brokers.follower().await;
    GroupAdmin::new([brokers.name_server_addr(id).to_string()])
}

/// Broker and queue, from and to.
fn changes(resets: &[QueueReset]) -> Vec<(u32, u64, u64)> {
    resets.iter().map(|reset| (reset.queue, reset.from, reset.to)).collect()
}

/// Queue 0 with five messages, queue 1 with two, of four; group `g` has consumed three and one.
async fn consumed(brokers: &Brokers) -> Client {
    let mut client = brokers.client(brokers.leader().await).await;
    for n in 0..7 {
        client.send("T", n / 5, &n.to_string()).await.done();
    }
    commit(&mut client, "g", "0", "3").await;
    commit(&mut client, "g", "1", "1").await;
    client
}

#[tokio::test]
async fn groups_are_listed_with_members_topics_and_how_far_they_are() {
    let brokers = Brokers::start().await;
    let mut client = consumed(&brokers).await;
    let mut through = brokers.client(brokers.follower().await).await;
    heartbeat(&mut through, "a", "fresh").await;
    let admin = admin(&brokers).await;
    let groups = admin.groups().await.expect("they are listed");
    let names: Vec<_> =
        groups.iter().map(|group| (group.name.as_str(), group.members.len())).collect();
    assert_eq!(names, [("fresh", 1), ("g", 0)]);
    let member = groups[0].members.first().expect("a member");
    assert_eq!((member.client_id.as_str(), &member.addr[..10]), ("a", "127.0.0.1:"));
    assert!(groups.iter().all(|group| group.topics.contains("T")), "{groups:?}");
    let lags = admin.lag("g", None).await.expect("it is known");
    let numbers: Vec<_> = lags.iter().map(|l| (l.queue, l.consumed, l.max, l.lag())).collect();
    assert_eq!(numbers, [(0, 3, 5, 2), (1, 1, 2, 1), (2, 0, 0, 0), (3, 0, 0, 0)]);
    assert!(lags[0].last_stored_ms.is_some_and(|ms| ms > 1_700_000_000_000), "{lags:?}");
    assert_eq!(lags[2].last_stored_ms, None, "nothing of it is consumed");
    let lags = admin.lag("fresh", Some("T")).await.expect("it is known");
    assert_eq!(lags.iter().map(|lag| lag.lag()).sum::<u64>(), 7);
    for (group, topic, what) in
        [("nobody", None, "group nobody"), ("g", Some("nothing"), "topic nothing")]
    {
        let error = admin.lag(group, topic).await.expect_err("there is none");
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::NotFound, format!("there is no {what}"))
        );
    }
    // What the stock tool asks beside that.
    let answer = client.call(300, &[("topic", "T")], b"").await.done().json();
    assert_eq!(answer, json!({ "groupList": ["fresh", "g"] }));
    let answer = client.call(343, &[("group", "g")], b"").await.done().json();
    assert_eq!(answer["topicList"], json!(["T"]));
    let online = client.call(203, &[("consumerGroup", "fresh")], b"").await.done().json();
    let kind = ["consumeType", "messageModel", "consumeFromWhere"].map(|name| online[name].clone());
    assert_eq!(
        Value::from_iter(kind),
        json!(["CONSUME_PASSIVELY", "CLUSTERING", "CONSUME_FROM_FIRST_OFFSET"])
    );
    assert_eq!(online["subscriptionTable"]["T"]["subString"], "a || b");
    assert_eq!(online["connectionSet"][0]["language"], "JAVA");
    let answer = client.call(203, &[("consumerGroup", "g")], b"").await;
    assert_eq!((answer.code, answer.remark.as_str()), (206, "the consumer group[g] not online"));
}

#[tokio::test]
async fn a_group_is_reset_to_begin_end_offset_and_time_and_a_dry_run_changes_nothing() {
    let brokers = Brokers::start().await;
    let mut client = consumed(&brokers).await;
    let admin = admin(&brokers).await;
    let planned = admin.plan_reset("g", "T", ResetTo::Begin).await.expect("a plan");
    assert_eq!(changes(&planned)[..2], [(0, 3, 0), (1, 1, 0)]);
    assert_eq!(committed(&mut client, "g", "0").await, 3, "a plan is only that");
    for (to, offsets) in [
        (ResetTo::End, [5, 2]),
        (ResetTo::Begin, [0, 0]),
        (ResetTo::Time(9_000_000_000_000), [5, 2]),
        (ResetTo::Time(1), [0, 0]),
    ] {
        let planned = admin.plan_reset("g", "T", to).await.expect("a plan");
        let done = admin.reset("g", "T", to).await.expect("it is reset");
        assert_eq!(done, planned, "{to:?}");
        let now = [committed(&mut client, "g", "0").await, committed(&mut client, "g", "1").await];
        assert_eq!(now, offsets, "{to:?}");
    }
    // Queues 2 and 3 have no message 2.
    let error = admin.reset("g", "T", ResetTo::Offset(2)).await.expect_err("no such offset");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("has offsets 0 to 0, not 2"), "{error}");
    let fields = |queue, offset| {
        [
            ("group", "g"),
            ("topic", "T"),
            ("timestamp", "0"),
            ("isForce", "false"),
            ("queueId", queue),
            ("offset", offset),
        ]
    };
    // As the stock tool does it for one queue.
    client.call(222, &fields("0", "4"), b"").await.done();
    assert_eq!(committed(&mut client, "g", "0").await, 4);
    for (queue, offset, code, remark) in [
        ("0", "6", 1, "Target offset 6 not in consume queue range [0-5]"),
        ("9", "0", 29, "queueId[9] of topic[T] is illegal"),
    ] {
        let answer = client.call(222, &fields(queue, offset), b"").await;
        assert_eq!((answer.code, answer.remark.as_str()), (code, remark));
    }
    for (group, topic, code, remark) in [
        ("nobody", "T", 26, "Group nobody does not exist"),
        ("g", "nothing", 17, "Topic nothing does not exist"),
    ] {
        let fields = [("group", group), ("topic", topic), ("timestamp", "-1"), ("isForce", "true")];
        let answer = client.call(222, &fields, b"").await;
        assert_eq!((answer.code, answer.remark.as_str()), (code, remark));
        let error = admin.reset(group, topic, ResetTo::End).await.expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    // Not by force: only back.
    let fields = [("group", "g"), ("topic", "T"), ("timestamp", "-1"), ("isForce", "false")];
    client.call(222, &fields, b"").await.done();
    assert_eq!(committed(&mut client, "g", "0").await, 4);
}

#[tokio::test]
async fn consumers_are_told_of_a_reset_and_where_they_were_before_is_passed_over() {
    let brokers = Brokers::start().await;
    let mut client = consumed(&brokers).await;
    let mut consumer = brokers.client(brokers.follower().await).await;
    heartbeat(&mut consumer, "a", "g").await;
    admin(&brokers).await.reset("g", "T", ResetTo::Begin).await.expect("it is reset");
    let told = consumer.told().await;
    let fields = ["topic", "group", "timestamp"].map(|name| told.fields[name].as_str());
    assert_eq!((told.code, fields), (220, ["T", "g", "0"]));
    // Java's clients want objects for keys.
    let body = String::from_utf8(told.body).expect("text");
    let entry = r#"{"brokerName":"broker-0","queueId":0,"topic":"T"}:0"#;
    assert!(body.starts_with(&format!(r#"{{"offsetTable":{{{entry},"#)), "{body}");
    // Every five seconds a consumer says where it is, and takes ten to change over.
    let answer = commit(&mut consumer, "g", "0", "4").await;
    assert_eq!(answer.remark, "Offset has been previously reset");
    commit(&mut consumer, "g", "0", "0").await;
    let answer = commit(&mut consumer, "g", "0", "2").await;
    assert_eq!(answer.remark, "", "it has changed over");
    assert_eq!(committed(&mut client, "g", "0").await, 2);
    // One that asks where to begin has changed over as well.
    assert_eq!(committed(&mut client, "g", "1").await, 0);
    assert_eq!(commit(&mut client, "g", "1", "2").await.remark, "");
    assert_eq!(committed(&mut client, "g", "1").await, 2);
}

#[tokio::test]
async fn a_group_is_reset_in_every_log_also_where_it_has_consumed_nothing() {
    let brokers = Brokers::start_with(Setup { logs: 2, ..Setup::default() }).await;
    consumed(&brokers).await;
    let admin = admin(&brokers).await;
    let done = crate::cluster::eventually("the topic in every log", async || {
        admin.reset("g", "T", ResetTo::End).await.ok()
    });
    let done = done.await;
    let ends: Vec<_> = done.iter().map(|it| (it.broker.as_str(), it.queue, it.to)).collect();
    assert_eq!(ends[..2], [("broker-0", 0, 5), ("broker-0", 1, 2)]);
    assert_eq!((ends.len(), ends[4]), (8, ("broker-1", 0, 0)));
    assert!(admin.lag("g", Some("T")).await.expect("it is known").iter().all(|it| it.lag() == 0));
}

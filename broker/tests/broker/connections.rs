//! What a connection may cost, whom it is for, and what its end means.

use std::time::{Duration, Instant};

use quorumlog_broker::BrokerConfig;
use serde_json::json;

use crate::client::{
    Client, HEARTBEAT, PULL, QUERY_OFFSET, SEND, SEND_BATCH, UPDATE_OFFSET, batch, bodies,
    send_fields,
};
use crate::cluster::{eventually, name, within};
use crate::nodes::{Brokers, Setup};

#[tokio::test]
async fn a_leader_that_hangs_costs_what_is_passed_on_to_it_no_more_than_its_time() {
    let setup = Setup { send_timeout: Duration::from_millis(500), ..Setup::default() };
    let brokers = Brokers::start_with(setup).await;
    let leader = brokers.leader().await;
    let follower = brokers.others(leader)[0];
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = brokers.client(follower).await;
        client.send("T", 0, "before").await.done();
        clients.push(client);
    }
    let hung = brokers.hang(leader).await;
    let since = Instant::now();
    let [sender, flooder, asker, puller] = &mut clients[..] else { unreachable!("four") };
    let large = vec![0; 4 << 20];
    for _ in 0..3 {
        flooder.oneway(SEND, &send_fields("T", "0", ""), &large).await;
    }
    sender.ask(SEND, &send_fields("T", "0", ""), b"who knows").await;
    asker.ask(30, &[("topic", "T"), ("queueId", "0")], b"").await;
    puller.start_pull("T", 0, 4, 1_000, "*").await;
    // It was written to the leader: nobody knows, and the client hears that in time.
    if let Some(answer) = within("an answer or the end", sender.answer_or_end()).await {
        assert!([0, 14].contains(&answer.code), "{answer:?}");
    }
    let sent = since.elapsed();
    within("an answer", asker.answer()).await;
    within("an answer", puller.answer()).await;
    assert!(sent < Duration::from_secs(5), "{sent:?} for what may take 1.5 s");
    drop(hung);
}

#[tokio::test]
async fn what_is_meant_for_another_broker_is_refused_by_each_node_and_stored_nowhere() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    brokers.client(leader).await.send("T", 0, "mine").await.done();
    for id in [leader, brokers.others(leader)[0]] {
        let mut client = brokers.client(id).await;
        let named = |name: &'static str, value: &'static str| {
            [&send_fields("T", "0", "")[..], &[(name, value)]].concat()
        };
        let long = [("topic", "T"), ("queueId", "0"), ("bname", "broker-1")];
        let pull = [
            ("consumerGroup", "g"),
            ("topic", "T"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "32"),
            ("sysFlag", "0"),
            ("bname", "broker-1"),
        ];
        let offset = [
            ("consumerGroup", "g"),
            ("topic", "T"),
            ("queueId", "0"),
            ("commitOffset", "1"),
            ("bname", "broker-1"),
        ];
        let queue = json!({ "brokerName": "broker-1", "topic": "T", "queueId": 0 });
        let locks = json!({ "consumerGroup": "g", "clientId": "c", "mqSet": [queue] }).to_string();
        let several = batch(&["a", "b"]);
        for (code, fields, body) in [
            (SEND, named("n", "broker-1"), &b"x"[..]),
            (SEND, named("bname", "broker-1"), b"x"),
            (SEND, named("n", "__syslo__global__"), b"x"),
            (SEND_BATCH, named("n", "broker-1"), &several),
            (10, [&long[..], &[("brokerName", "broker-1")]].concat(), b"x"),
            (30, long.to_vec(), b""),
            (PULL, pull.to_vec(), b""),
            (UPDATE_OFFSET, offset.to_vec(), b""),
            (QUERY_OFFSET, offset.to_vec(), b""),
            (41, Vec::new(), locks.as_bytes()),
            (42, Vec::new(), locks.as_bytes()),
        ] {
            let answer = client.call(code, &fields, body).await;
            assert_eq!(answer.code, 1, "{code} {fields:?}: {answer:?}");
            let remark = "this is broker broker-0, and the request is for ";
            assert!(answer.remark.starts_with(remark), "{code} {fields:?}: {answer:?}");
        }
        // A request that names this broker, or none, is served.
        assert_eq!(bodies(&client.pull("T", 0, 0).await.done()), ["mine"]);
        for fields in [named("bname", "broker-0"), named("n", ""), named("other", "broker-1")] {
            client.call(SEND, &fields, b"mine").await.done();
        }
        client.call(215, &[("topic", "T")], b"").await.done();
        client.send("T", 0, "mine").await.done();
    }
}

#[tokio::test]
async fn each_broker_serves_the_port_two_below_its_own_too() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    brokers.client(leader).await.send("T", 0, "x").await.done();
    let mut served = 0;
    for id in brokers.ids() {
        let Some(channel) = brokers.vip_channel(id) else { continue };
        assert_eq!(channel.port(), brokers.broker_addr(id).port() - 2);
        let mut client = Client::connect(channel).await;
        assert_eq!(bodies(&client.pull("T", 0, 0).await.done()), ["x"]);
        served += 1;
    }
    assert!(served > 0, "no node has one");
}

#[tokio::test]
async fn a_connection_that_nobody_uses_ends() {
    let tune = |broker: &mut BrokerConfig| broker.idle_timeout = Duration::from_millis(300);
    let brokers = Brokers::start_with(Setup { tune, ..Setup::default() }).await;
    let leader = brokers.leader().await;
    for mut client in [brokers.client(leader).await, brokers.name_server(leader).await] {
        client.ended().await;
    }
}

async fn heartbeat(client: &mut Client, id: &str) {
    let group = json!({ "groupName": "g", "subscriptionDataSet": [{ "topic": "T" }] });
    let beat = json!({ "clientID": id, "consumerDataSet": [group] }).to_string();
    client.call(HEARTBEAT, &[], beat.as_bytes()).await.done();
}

/// The addresses of the group's connections, and its members.
async fn group(client: &mut Client) -> (usize, Vec<String>) {
    let online = client.call(203, &[("consumerGroup", "g")], b"").await;
    let members = client.call(38, &[("consumerGroup", "g")], b"").await;
    if online.code != 0 || members.code != 0 {
        return (0, Vec::new());
    }
    let connections = online.json()["connectionSet"].as_array().expect("a list").len();
    let members = members.json()["consumerIdList"].clone();
    (connections, serde_json::from_value(members).expect("names"))
}

#[tokio::test]
async fn a_member_stays_until_the_last_of_its_connections_ends_whichever_node_they_came_through() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let mut watcher = brokers.client(leader).await;
    let mut one = brokers.client(leader).await;
    let mut two = brokers.client(brokers.others(leader)[0]).await;
    let mut three = brokers.client(leader).await;
    for client in [&mut one, &mut two, &mut three] {
        heartbeat(client, "a").await;
    }
    assert_eq!(group(&mut watcher).await, (3, vec!["a".to_owned()]));
    let leaves = [("clientID", "a"), ("consumerGroup", "g")];
    three.call(35, &leaves, b"").await.done();
    assert_eq!(group(&mut watcher).await, (2, vec!["a".to_owned()]), "only one left");
    for (ending, left) in [(one, 1), (two, 0)] {
        drop(ending);
        let members = vec!["a".to_owned(); left];
        eventually("the end to be seen", async || {
            let group = group(&mut watcher).await;
            assert!(group.0 >= left, "it went with another's end: {group:?}");
            (group == (left, members.clone())).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_leads_again_knows_of_clients_what_they_said_since_and_no_more() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let other = brokers.others(leader)[0];
    let mut client = brokers.client(leader).await;
    for body in ["1", "2", "3"] {
        client.send("T", 0, body).await.done();
    }
    heartbeat(&mut client, "a").await;
    let of = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
    let reset = [
        ("topic", "T"),
        ("group", "g"),
        ("timestamp", "-1"),
        ("offset", "1"),
        ("queueId", "0"),
        ("isForce", "true"),
    ];
    client.call(222, &reset, b"").await.done();
    let old = [&of[..], &[("commitOffset", "3")]].concat();
    let passed_over = client.call(UPDATE_OFFSET, &old, b"").await.done();
    assert!(passed_over.remark.contains("reset"), "consumers still change over: {passed_over:?}");
    // Away, and back.
    let log = |id| brokers.node(id).log(&name("broker-0")).expect("it has the log");
    let term = log(leader).status().term;
    log(leader).admin().transfer_leadership(other).await.expect("it follows closely");
    eventually("the first leader to lead again", async || {
        let status = log(leader).status();
        if status.term > term + 1 && status.role == quorumlog::Role::Leader {
            return Some(());
        }
        // The node that should lead by rights may have it already.
        let _ = log(other).admin().transfer_leadership(leader).await;
        None
    })
    .await;
    assert_eq!(brokers.leader().await, leader);
    assert_eq!(group(&mut client).await, (0, Vec::new()), "its member may be anywhere by now");
    client.call(UPDATE_OFFSET, &old, b"").await.done();
    let noted = client.call(QUERY_OFFSET, &of, b"").await.done();
    assert_eq!(noted.number("offset"), 3, "it was reset under another leader, if at all");
    heartbeat(&mut client, "a").await;
    assert_eq!(group(&mut client).await.1, ["a"]);
    // What is in the log stays.
    assert_eq!(bodies(&client.pull("T", 0, 0).await.done()), ["1", "2", "3"]);
}

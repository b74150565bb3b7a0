//! The life of a topic: it begins and ends in all logs at once, even while clients send to it and nodes die.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorumlog::NodeId;

use crate::client::{Client, Frame, QUERY_OFFSET, ROUTE, SEND, UPDATE_OFFSET, bodies, send_fields};
use crate::cluster::{eventually, name, within};
use crate::nodes::{Brokers, Setup};

const LOGS: usize = 3;
const CREATE: i32 = 17;
const DELETE: i32 = 215;
const DELETE_IN_NAME_SERVER: i32 = 216;
const LIST: i32 = 206;
const LOCK: i32 = 41;
const NO_TOPIC: i64 = 17;

fn logs(auto_create: bool) -> Setup {
    Setup { logs: LOGS, auto_create, ..Setup::default() }
}

/// Log n is led by node n + 1.
async fn spread(brokers: &Brokers) {
    for log in 0..LOGS {
        eventually("leaders that are spread", async || {
            (brokers.leader_of(log).await == log as NodeId + 1).then_some(())
        })
        .await;
    }
}

pub(crate) async fn create(client: &mut Client, topic: &str) -> Frame {
    let fields = [("topic", topic), ("readQueueNums", "2"), ("writeQueueNums", "2"), ("perm", "6")];
    client.call(CREATE, &fields, b"").await
}

pub(crate) async fn delete(client: &mut Client, topic: &str) -> Frame {
    client.call(DELETE, &[("topic", topic)], b"").await
}

/// Deletes a topic, and asks again for as long as there is no leader or a log has not followed.
async fn delete_at_last(brokers: &Brokers, id: NodeId, log: usize, topic: &str) {
    eventually("the topic to be deleted", async || {
        let mut client = Client::connect(brokers.broker_addr_of(id, log)).await;
        client.ask(DELETE, &[("topic", topic)], b"").await;
        let answer = client.answer_or_end().await?;
        assert!([0, 1, 14].contains(&answer.code), "{answer:?}");
        (answer.code == 0).then_some(())
    })
    .await;
}

fn fields<'a>(topic: &'a str, broker: &'a str) -> Vec<(&'static str, &'a str)> {
    let mut fields = send_fields(topic, "0", "").to_vec();
    fields.retain(|(name, _)| *name != "n");
    fields.push(("n", broker));
    fields
}

/// Sends a message to a log through a node; the code of the answer.
async fn send(brokers: &Brokers, id: NodeId, log: usize, topic: &str) -> i64 {
    let mut client = Client::connect(brokers.broker_addr_of(id, log)).await;
    client.call(SEND, &fields(topic, &format!("broker-{log}")), b"x").await.code
}

/// When each send began, and the code of its answer.
type Sends = Arc<Mutex<Vec<(Instant, i64)>>>;

/// Producers that send to every log through every node.
struct Producers {
    stop: Arc<AtomicBool>,
    sends: Sends,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Producers {
    fn start(brokers: &Brokers, ids: &[NodeId], topic: &str) -> Self {
        let (stop, sends) = (Arc::new(AtomicBool::new(false)), Sends::default());
        let places = ids.iter().flat_map(|id| (0..LOGS).map(move |log| (*id, log)));
        let tasks = places.map(|(id, log)| {
            let addr = brokers.broker_addr_of(id, log);
            let (stop, sends) = (Arc::clone(&stop), Arc::clone(&sends));
            let (topic, broker) = (topic.to_owned(), format!("broker-{log}"));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(addr).await;
                    loop {
                        let begun = Instant::now();
                        client.ask(SEND, &fields(&topic, &broker), b"x").await;
                        // A message whose outcome is not known ends the connection.
                        let Some(answer) = client.answer_or_end().await else { break };
                        sends.lock().expect("no panic under this lock").push((begun, answer.code));
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        let tasks = tasks.collect();
        Self { stop, sends, tasks }
    }

    /// How many sends that began in a time were answered with each code.
    fn codes(&self, from: Option<Instant>) -> BTreeMap<i64, usize> {
        let mut codes = BTreeMap::new();
        for (begun, code) in self.sends.lock().expect("no panic under this lock").iter() {
            if from.is_none_or(|from| *begun >= from) {
                *codes.entry(*code).or_default() += 1;
            }
        }
        codes
    }

    async fn stop(self) -> Sends {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            within("a producer to end", task).await.expect("it does not panic");
        }
        self.sends
    }
}

async fn listed(brokers: &Brokers, id: NodeId, topic: &str) -> bool {
    let list = brokers.name_server(id).await.call(LIST, &[], b"").await.done().json();
    let names = list["topicList"].as_array().expect("a list").iter();
    names.filter_map(|name| name.as_str()).any(|name| name == topic)
}

#[tokio::test]
async fn a_topic_that_is_deleted_while_producers_use_it_is_gone_from_all_logs_at_once() {
    let brokers = Brokers::start_with(logs(false)).await;
    spread(&brokers).await;
    for round in 0..6 {
        let topic = format!("Used{round}");
        let log = round % LOGS;
        let id = brokers.ids()[(round / 2) % LOGS];
        let mut client = Client::connect(brokers.broker_addr_of(id, log)).await;
        create(&mut client, &topic).await.done();
        let producers = Producers::start(&brokers, &brokers.ids(), &topic);
        eventually("messages to be stored", async || {
            (producers.codes(None).get(&0) > Some(&100)).then_some(())
        })
        .await;
        delete(&mut client, &topic).await.done();
        let deleted = Instant::now();
        eventually("sends after it was deleted", async || {
            (producers.codes(Some(deleted)).values().sum::<usize>() > 100).then_some(())
        })
        .await;
        let codes = producers.codes(Some(deleted));
        assert!(codes.keys().all(|code| *code == NO_TOPIC), "round {round}: {codes:?}");
        producers.stop().await;
        for id in brokers.ids() {
            eventually("the name server to know", async || {
                (!listed(&brokers, id, &topic).await).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_deletion_is_not_answered_before_a_log_without_a_leader_has_followed() {
    let slow = (Duration::from_millis(2500), Duration::from_millis(3500));
    let setup = Setup { election_timeout: slow, ..logs(false) };
    let brokers = Brokers::start_with(setup).await;
    spread(&brokers).await;
    let mut client = Client::connect(brokers.broker_addr_of(1, 0)).await;
    create(&mut client, "T").await.done();
    assert_eq!(send(&brokers, 3, 1, "T").await, 0);
    // Log 1 has no leader for some seconds; the home log has.
    brokers.kill(2);
    delete_at_last(&brokers, 1, 0, "T").await;
    assert_eq!(send(&brokers, 3, 1, "T").await, NO_TOPIC);
}

#[tokio::test]
async fn a_deletion_is_done_whichever_leader_dies_meanwhile() {
    let brokers = Brokers::start_with(logs(false)).await;
    // The leader of the home log, and of another one.
    for victim in [1, 2] {
        spread(&brokers).await;
        let topic = format!("Dying{victim}");
        let stays = brokers.others(victim);
        let mut client = Client::connect(brokers.broker_addr_of(3, 2)).await;
        create(&mut client, &topic).await.done();
        let producers = Producers::start(&brokers, &stays, &topic);
        eventually("messages to be stored", async || {
            (producers.codes(None).get(&0) > Some(&50)).then_some(())
        })
        .await;
        client.ask(DELETE, &[("topic", &topic)], b"").await;
        brokers.kill(victim);
        let answer = client.answer_or_end().await;
        assert!(
            answer.as_ref().is_none_or(|answer| [0, 1, 14].contains(&answer.code)),
            "{answer:?}"
        );
        if answer.is_none_or(|answer| answer.code != 0) {
            delete_at_last(&brokers, 3, 2, &topic).await;
        }
        let deleted = Instant::now();
        eventually("sends after it was deleted", async || {
            (producers.codes(Some(deleted)).get(&NO_TOPIC) > Some(&50)).then_some(())
        })
        .await;
        let codes = producers.codes(Some(deleted));
        assert!(!codes.contains_key(&0), "node {victim} died: {codes:?}");
        producers.stop().await;
        brokers.open(victim).await;
        for log in 0..LOGS {
            // The lead may be moving to the node that is back.
            let code = eventually("an answer of a leader", async || {
                let code = send(&brokers, victim, log, &topic).await;
                (code != 14).then_some(code)
            });
            assert_eq!(code.await, NO_TOPIC);
        }
    }
}

#[tokio::test]
async fn a_topic_that_is_made_again_by_a_send_begins_empty_in_every_log() {
    let brokers = Brokers::start_with(logs(true)).await;
    spread(&brokers).await;
    let offset_of = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
    let lock = |client: &str, log: usize| {
        let queue = format!(r#"{{"brokerName":"broker-{log}","queueId":0,"topic":"T"}}"#);
        format!(r#"{{"clientId":"{client}","consumerGroup":"g","mqSet":[{queue}]}}"#)
    };
    for log in 0..LOGS {
        let mut client = Client::connect(brokers.broker_addr_of(3, log)).await;
        for _ in 0..3 {
            assert_eq!(send(&brokers, 1, log, "T").await, 0);
        }
        let fields = [&offset_of[..], &[("commitOffset", "2")]].concat();
        client.call(UPDATE_OFFSET, &fields, b"").await.done();
        let locked = client.call(LOCK, &[], lock("a", log).as_bytes()).await.done().json();
        assert_eq!(locked["lockOKMQSet"].as_array().map(Vec::len), Some(1), "{locked}");
    }
    let mut waiting = Client::connect(brokers.broker_addr_of(2, 1)).await;
    waiting.start_pull("T", 0, 3, 25_000, "*").await;
    delete(&mut Client::connect(brokers.broker_addr_of(2, 1)).await, "T").await.done();
    assert_eq!(waiting.answer().await.code, NO_TOPIC, "a pull does not wait for another topic");
    for log in 0..LOGS {
        let mut client = Client::connect(brokers.broker_addr_of(3, log)).await;
        assert_eq!(client.pull("T", 0, 0).await.code, if log == 0 { NO_TOPIC } else { 19 });
        let broker = format!("broker-{log}");
        let sent = client.call(SEND, &fields("T", &broker), b"x").await.done();
        assert_eq!(sent.number("queueOffset"), 0, "log {log}");
        let fields = [&offset_of[..], &[("setZeroIfNotFound", "false")]].concat();
        assert_eq!(client.call(QUERY_OFFSET, &fields, b"").await.code, 22, "log {log}");
        let locked = client.call(LOCK, &[], lock("b", log).as_bytes()).await.done().json();
        assert_eq!(locked["lockOKMQSet"].as_array().map(Vec::len), Some(1), "{locked}");
    }
}

#[tokio::test]
async fn the_admin_tools_order_of_requests_is_answered_with_success() {
    let brokers = Brokers::start_with(logs(false)).await;
    for log in 0..LOGS {
        let id = brokers.leader_of(log).await;
        create(&mut Client::connect(brokers.broker_addr_of(id, log)).await, "T").await.done();
    }
    for id in brokers.ids() {
        let route = brokers.name_server(id).await.call(ROUTE, &[("topic", "T")], b"").await;
        let queues = route.done().json()["queueDatas"].clone();
        let queues: Vec<_> = queues
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| it["writeQueueNums"].clone())
            .collect();
        assert_eq!(queues, [2, 2, 2]);
    }
    for log in 0..LOGS {
        let id = brokers.leader_of(log).await;
        delete(&mut Client::connect(brokers.broker_addr_of(id, log)).await, "T").await.done();
        assert_eq!(send(&brokers, id, (log + 1) % LOGS, "T").await, NO_TOPIC);
    }
    for id in brokers.ids() {
        let mut client = brokers.name_server(id).await;
        client.call(DELETE_IN_NAME_SERVER, &[("topic", "T")], b"").await.done();
        eventually("the name server to know", async || {
            (client.call(ROUTE, &[("topic", "T")], b"").await.code == NO_TOPIC).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn while_the_home_log_has_no_leader_topics_cannot_be_made_or_deleted_and_all_else_goes_on() {
    let slow = (Duration::from_secs(8), Duration::from_secs(10));
    let setup = Setup { election_timeout: slow, ..logs(true) };
    let brokers = Brokers::start_with(setup).await;
    spread(&brokers).await;
    for log in 0..LOGS {
        assert_eq!(send(&brokers, 3, log, "T").await, 0);
    }
    brokers.kill(1);
    let mut client = Client::connect(brokers.broker_addr_of(2, 1)).await;
    for answer in [create(&mut client, "U").await, delete(&mut client, "T").await] {
        assert!([1, 14].contains(&answer.code), "{answer:?}");
        assert!(answer.remark.contains("broker-0"), "it says what is missing: {answer:?}");
    }
    assert_eq!(send(&brokers, 3, 1, "U").await, 14, "a client tries again");
    for log in 1..LOGS {
        assert_eq!(send(&brokers, 3, log, "%RETRY%g").await, 0);
    }
    brokers.open(1).await;
    brokers.leader_of(0).await;
    delete_at_last(&brokers, 2, 1, "T").await;
}

#[tokio::test]
async fn a_delayed_message_for_a_deleted_topic_does_not_come_to_the_next_of_that_name() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("T", 0, "first").await.done();
    // 5 s: more than it takes to delete the topic and to make it again.
    client.send_with("T", 0, "old", "DELAY\u{1}2\u{2}").await.done();
    delete(&mut client, "T").await.done();
    client.send("T", 0, "second").await.done();
    client.send_with("T", 0, "new", "DELAY\u{1}2\u{2}").await.done();
    let pulled = eventually("the later message", async || {
        let answer = client.pull("T", 0, 0).await;
        (answer.number("maxOffset") >= 2).then_some(answer)
    });
    assert_eq!(bodies(&pulled.await), ["second", "new"]);
    // RocketMQ's topic for what was delayed and has no place any more.
    let dead = client.pull("%DLQ%SCHEDULE_CONSUMER", 0, 0).await.done();
    assert_eq!(bodies(&dead), ["old"]);
}

#[tokio::test]
async fn many_first_sends_of_a_topic_make_it_once_and_are_all_stored() {
    const SENDS: usize = 1000;
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let committed =
        || brokers.node(leader).log(&name("broker-0")).expect("it has it").watermarks().committed;
    let before = committed();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = brokers.client(leader).await;
        for _ in 0..SENDS {
            client.ask(SEND, &send_fields("New", "0", ""), b"x").await;
        }
        clients.push(client);
    }
    for client in &mut clients {
        let refused: Vec<_> =
            client.answers(SENDS).await.into_iter().filter(|answer| answer.code != 0).collect();
        assert!(refused.is_empty(), "{} refused, the first: {:?}", refused.len(), refused[0]);
    }
    let records = committed() - before;
    let most = 2 * SENDS as u64 + 200;
    assert!(records <= most, "{records} records: the topic was decided on again and again");
}

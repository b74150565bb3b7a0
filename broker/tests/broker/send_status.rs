//! What producers are told of messages that are not acknowledged: what is known, and never that a copy is not there that is.

use std::time::Duration;

use quorumlog::{Flush, NodeId};

use crate::client::{Client, Frame, SEND, SEND_BATCH, batch, bodies, messages, send_fields};
use crate::cluster::{eventually, name};
use crate::nodes::{Brokers, Setup};

/// Longer than the leader's lease, which is half of the longest election timeout of nodes.
const BEYOND_LEASE: Duration = Duration::from_millis(900);

#[cfg(feature = "simulation")]
const FLUSH_DISK_TIMEOUT: i64 = 10;
const SLAVE_NOT_AVAILABLE: i64 = 11;
const FLUSH_SLAVE_TIMEOUT: i64 = 12;
const SERVICE_NOT_AVAILABLE: i64 = 14;

/// A leader stays one, and believes so, for much longer than sends wait.
fn patient() -> Setup {
    Setup {
        send_timeout: Duration::from_millis(200),
        election_timeout: (Duration::from_secs(5), Duration::from_secs(10)),
        ..Setup::default()
    }
}

/// Physical offsets in the ids of an answer.
fn places(answer: &Frame) -> Vec<u64> {
    let ids = answer.fields["msgId"].split(',');
    ids.map(|id| u64::from_str_radix(&id[16..], 16).expect("an id")).collect()
}

/// Checks an answer that says that messages are stored, and nothing that is not known.
#[track_caller]
fn check_stored(answer: &Frame, code: i64, queue: i64) {
    assert_eq!(answer.code, code, "{answer:?}");
    assert!(answer.remark.starts_with("appended"), "{answer:?}");
    assert_eq!((answer.number("queueId"), answer.number("queueOffset")), (queue, -1), "{answer:?}");
}

/// The messages of a queue, once there are so many: each lies where its answer said, whichever node leads now.
async fn check_places(brokers: &Brokers, queue: u32, expected: &[(&str, u64)]) {
    let pulled = eventually("what was appended to be committed", async || {
        let answer = brokers.client(brokers.leader().await).await.pull("T", queue, 0).await;
        let found = messages(&answer.body);
        (found.len() >= expected.len()).then_some(found)
    });
    let pulled = pulled.await;
    let found: Vec<_> = pulled.iter().map(|m| (m.body.as_str(), m.physical)).collect();
    assert_eq!(found, expected);
}

/// A leader whose followers are cut off, a connection to it, and the followers. A message lies in queue 0 already.
async fn cut_off(brokers: &Brokers) -> (NodeId, Client, Vec<NodeId>) {
    let leader = brokers.leader().await;
    let mut client = brokers.client(leader).await;
    client.send("T", 0, "before").await.done();
    let followers = brokers.others(leader);
    brokers.network.split(&[leader], &followers);
    (leader, client, followers)
}

#[tokio::test]
async fn a_message_that_is_not_replicated_in_time_is_said_to_be_stored_here_with_its_real_id() {
    for flush in [Flush::Sync, Flush::Async] {
        let brokers = Brokers::start_with(Setup { flush, ..patient() }).await;
        let (leader, mut client, followers) = cut_off(&brokers).await;
        let single = client.send("T", 1, "one").await;
        check_stored(&single, FLUSH_SLAVE_TIMEOUT, 1);
        brokers.network.mend(leader, followers[0]);
        check_places(&brokers, 1, &[("one", places(&single)[0])]).await;
    }
}

#[tokio::test]
async fn a_leader_that_nobody_answers_says_so_and_then_takes_nothing_more() {
    let setup = Setup { send_timeout: BEYOND_LEASE, ..Setup::default() };
    let brokers = Brokers::start_with(setup).await;
    let (_, mut client, _) = cut_off(&brokers).await;
    check_stored(&client.send("T", 1, "one").await, SLAVE_NOT_AVAILABLE, 1);
    // It was told apart from messages that are not stored, which clients send again.
    let refused = client.send("T", 1, "refused").await;
    assert_eq!((refused.code, refused.fields.get("msgId")), (SERVICE_NOT_AVAILABLE, None));
    assert!(refused.remark.contains("try again"), "{refused:?}");
    brokers.network.heal();
    // Whether the one or the others lead now: what was refused is not there, and the rest at most once.
    let found = eventually("the cluster to go on", async || {
        let id = brokers.leader().await;
        let mut client = brokers.client(id).await;
        let sent = client.send("T", 1, "last").await;
        (sent.code == 0).then_some(id)
    });
    let pulled = bodies(&brokers.client(found.await).await.pull("T", 1, 0).await);
    assert!(!pulled.contains(&"refused".to_owned()), "{pulled:?}");
    assert!(pulled.iter().filter(|body| *body == "one").count() <= 1, "{pulled:?}");
}

/// True for a node that leads the log as far as it knows; it may not have heard of the log yet.
fn leads(brokers: &Brokers, id: NodeId) -> bool {
    let log = brokers.node(id).log(&name("broker-0"));
    log.is_some_and(|log| log.status().role == quorumlog::Role::Leader)
}

#[tokio::test]
async fn a_message_that_another_leader_has_overwritten_is_not_said_to_be_stored() {
    // Its producer waits until the fate of the message is known.
    let setup = Setup { send_timeout: Duration::from_secs(20), ..Setup::default() };
    let brokers = Brokers::start_with(setup).await;
    let (leader, mut client, followers) = cut_off(&brokers).await;
    client.ask(SEND, &send_fields("T", "1", ""), b"overwritten").await;
    eventually("the leader to have the message", async || {
        let marks =
            brokers.node(leader).log(&name("broker-0")).expect("it has the log").watermarks();
        (marks.end > marks.committed).then_some(())
    })
    .await;
    let next = eventually("another leader", async || {
        followers.iter().copied().find(|id| leads(&brokers, *id))
    });
    let mut others = brokers.client(next.await).await;
    for body in ["a", "b", "c"] {
        eventually("the next leader to serve", async || {
            (others.send("T", 1, body).await.code == 0).then_some(())
        })
        .await;
    }
    brokers.network.heal();
    // No answer is a truth as well: the connection ends, and the producer sends it again.
    if let Some(answer) = client.answer_or_end().await {
        let told = (answer.code, answer.fields.get("msgId"));
        assert_eq!(told, (SERVICE_NOT_AVAILABLE, None), "{answer:?}");
    }
    let pulled = bodies(&brokers.client(brokers.leader().await).await.pull("T", 1, 0).await);
    assert_eq!(pulled, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_message_that_the_next_leader_took_over_is_said_to_be_stored() {
    let setup = Setup { send_timeout: Duration::from_secs(20), ..Setup::default() };
    let brokers = Brokers::start_with(setup).await;
    let leader = brokers.leader().await;
    let mut client = brokers.client(leader).await;
    client.send("T", 1, "before").await.done();
    let followers = brokers.others(leader);
    // Answers do not get through, so that the followers may hold what the leader does not know to be committed.
    for follower in &followers {
        brokers.network.cut(*follower, leader);
    }
    client.ask(SEND, &send_fields("T", "1", ""), b"kept").await;
    let kept = eventually("the followers to have it under a leader of theirs", async || {
        let id = followers.iter().copied().find(|id| leads(&brokers, *id))?;
        let answer = brokers.client(id).await.pull("T", 1, 0).await;
        (answer.code == 0).then(|| bodies(&answer))
    });
    let kept = kept.await.contains(&"kept".to_owned());
    brokers.network.heal();
    match client.answer_or_end().await {
        Some(answer) if kept => assert!([0, 10, 11, 12].contains(&answer.code), "{answer:?}"),
        Some(answer) => assert_eq!(answer.code, SERVICE_NOT_AVAILABLE, "{answer:?}"),
        None => panic!("it can be found out"),
    }
}

#[tokio::test]
async fn a_batch_has_the_id_of_each_message_and_a_oneway_send_no_answer_and_its_connection_stays() {
    let brokers = Brokers::start_with(patient()).await;
    let (leader, mut client, followers) = cut_off(&brokers).await;
    client.oneway(SEND, &send_fields("T", "1", ""), b"oneway").await;
    let stored =
        client.call(SEND_BATCH, &send_fields("T", "1", ""), &batch(&["a", "b", "c"])).await;
    check_stored(&stored, FLUSH_SLAVE_TIMEOUT, 1);
    let at = places(&stored);
    assert_eq!(at.len(), 3, "{stored:?}");
    brokers.network.mend(leader, followers[0]);
    // The record of the batch follows that of the oneway send, which has 4,096 places.
    let oneway = at[0] - 4096;
    check_places(&brokers, 1, &[("oneway", oneway), ("a", at[0]), ("b", at[1]), ("c", at[2])])
        .await;
    client.send("T", 0, "after").await;
}

#[tokio::test]
async fn a_send_whose_leader_died_under_way_ends_its_connection() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let followers = brokers.others(leader);
    let mut through = brokers.client(followers[0]).await;
    through.send("T", 0, "before").await.done();
    brokers.network.split(&[leader], &followers);
    through.ask(SEND, &send_fields("T", "0", ""), b"who knows").await;
    // The clients' ports are not cut: the leader has the request once it has the next one, in the same order.
    let mut other = brokers.client(leader).await;
    eventually("the leader to have the message", async || {
        let end = brokers.node(leader).log(&name("broker-0")).expect("it leads it").watermarks();
        other.call(30, &[("topic", "T"), ("queueId", "0")], b"").await.done();
        (end.end > end.committed).then_some(())
    })
    .await;
    brokers.kill(leader);
    through.ended().await;
    // Nobody is told that it was refused, or stored. It is sent again, and that is what counts.
    let mut again = brokers.client(brokers.leader().await).await;
    again.send("T", 0, "who knows").await.done();
    let pulled = bodies(&again.pull("T", 0, 0).await);
    assert_eq!(pulled, ["before", "who knows"], "the first died with its leader");
}

#[cfg(feature = "simulation")]
#[tokio::test]
async fn a_message_that_the_leaders_disk_does_not_hold_yet_is_not_said_to_be_flushed() {
    use quorumlog::simulation::SimDisk;

    let disks = [1, 2, 3].map(|id| (id, SimDisk::with_seed(id)));
    let setup = Setup { disks: disks.iter().cloned().collect(), ..patient() };
    let brokers = Brokers::start_with(setup).await;
    let leader = brokers.leader().await;
    let mut client = brokers.client(leader).await;
    client.send("T", 0, "before").await.done();
    let followers = brokers.others(leader);
    let disk = |id: NodeId| disks.iter().find(|(of, _)| *of == id).map(|(_, disk)| disk);
    let own = disk(leader).expect("its disk");
    // With both followers, a majority holds what the leader's disk does not.
    own.hold_flushes(true);
    client.send("T", 0, "held by the others").await.done();
    brokers.network.split(&[leader, followers[0]], &[followers[1]]);
    let mut answers = Vec::new();
    for body in ["one", "two"] {
        let answer = client.send("T", 1, body).await;
        check_stored(&answer, FLUSH_DISK_TIMEOUT, 1);
        answers.push((body, places(&answer)[0]));
    }
    own.hold_flushes(false);
    check_places(&brokers, 1, &answers).await;
}

//! What is there after leaders died and nodes came back.

use crate::client::{
    Client, Frame, QUERY_OFFSET, ROUTE, SEND, UPDATE_OFFSET, bodies, messages, send_fields,
};
use crate::cluster::{eventually, name};
use crate::nodes::Brokers;

const OFFSET_OF: [(&str, &str); 3] = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];

#[tokio::test]
async fn messages_numbers_and_consumed_offsets_survive_the_leader() {
    let brokers = Brokers::start().await;
    let mut sent = Vec::new();
    for round in 0..3 {
        let leader = brokers.leader().await;
        let follower = brokers.others(leader)[0];
        let mut client = brokers.client(follower).await;
        for n in 0..5 {
            let body = format!("{round} {n}");
            let answer = client.send("T", 0, &body).await.done();
            assert_eq!(answer.number("queueOffset"), sent.len() as i64, "{body}");
            sent.push(body);
        }
        if round > 0 {
            let noted = client.call(QUERY_OFFSET, &OFFSET_OF, b"").await.done();
            assert_eq!(noted.number("offset"), round * 5);
        }
        let offset = sent.len().to_string();
        let mut fields = OFFSET_OF.to_vec();
        fields.push(("commitOffset", &offset));
        client.call(UPDATE_OFFSET, &fields, b"").await.done();
        brokers.kill(leader);
        // It goes on through a node that has to find the new leader. A message that was passed on to a leader that died then
        // ends the connection.
        eventually("a message to get through", async || {
            client.ask(SEND, &send_fields("U", "0", ""), b"probe").await;
            let Some(answer) = client.answer_or_end().await else {
                client = brokers.client(follower).await;
                return None;
            };
            assert!([0, 14].contains(&answer.code), "{answer:?}");
            (answer.code == 0).then_some(())
        })
        .await;
        brokers.open(leader).await;
    }
    brokers.leader().await;
    for id in brokers.ids() {
        let answer = brokers.client(id).await.pull("T", 0, 0).await.done();
        assert_eq!(bodies(&answer), sent);
    }
}

#[tokio::test]
async fn everything_is_there_after_all_nodes_were_killed() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    let large = "x".repeat(3000);
    // Over several segments, so that checkpoints are taken.
    for _ in 0..100 {
        client.send("T", 0, &large).await.done();
    }
    let before = messages(&client.pull("T", 0, 90).await.done().body);
    assert_eq!(before.len(), 10);
    let mut fields = OFFSET_OF.to_vec();
    fields.push(("commitOffset", "42"));
    client.call(UPDATE_OFFSET, &fields, b"").await.done();
    brokers.ids().into_iter().for_each(|id| brokers.kill(id));
    for id in 1..=3 {
        brokers.open(id).await;
    }
    let mut client = brokers.client(brokers.leader().await).await;
    assert_eq!(messages(&client.pull("T", 0, 90).await.done().body), before);
    assert_eq!(client.call(QUERY_OFFSET, &OFFSET_OF, b"").await.done().number("offset"), 42);
    assert_eq!(client.send("T", 0, "next").await.done().number("queueOffset"), 100);
}

#[tokio::test]
async fn a_delayed_message_whose_leader_died_is_delivered_once() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let mut client = brokers.client(leader).await;
    client.send("T", 0, "now").await.done();
    for n in 0..3 {
        client.send_with("T", 0, &format!("later {n}"), "DELAY\u{1}1\u{2}").await.done();
    }
    brokers.kill(leader);
    let mut client = brokers.client(brokers.leader().await).await;
    let pulled = eventually("the delayed messages", async || {
        let answer = client.pull("T", 0, 0).await;
        (answer.number("maxOffset") >= 4).then_some(answer)
    });
    assert_eq!(bodies(&pulled.await), ["now", "later 0", "later 1", "later 2"]);
    // The next leader goes through the level's queue again, and has nothing left to deliver.
    let second = brokers.leader().await;
    brokers.open(leader).await;
    brokers.kill(second);
    let mut client = brokers.client(brokers.leader().await).await;
    client.send_with("T", 0, "last", "DELAY\u{1}1\u{2}").await.done();
    let pulled = eventually("the last message", async || {
        let answer = client.pull("T", 0, 4).await;
        (answer.code == 0).then_some(answer)
    });
    assert_eq!(bodies(&pulled.await), ["last"]);
}

/// What a pull that waited comes to. When its leader is gone it is told to come again at once, as stock clients do.
async fn pull_on(consumer: &mut Client) -> Frame {
    loop {
        let answer = consumer.answer().await;
        if answer.code != 20 {
            return answer.done();
        }
        let next = answer.number("nextBeginOffset");
        consumer.start_pull("T", 0, next, 25_000, "*").await;
    }
}

#[tokio::test]
async fn a_pull_that_waits_goes_on_with_the_next_leader() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let mut consumer = brokers.client(brokers.follower().await).await;
    consumer.send("T", 0, "first").await.done();
    consumer.start_pull("T", 0, 1, 25_000, "*").await;
    brokers.kill(leader);
    let mut producer = brokers.client(brokers.leader().await).await;
    producer.send("T", 0, "second").await.done();
    assert_eq!(bodies(&pull_on(&mut consumer).await), ["second"]);
}

#[tokio::test]
async fn a_pull_does_not_stay_with_a_leader_that_is_cut_off() {
    let brokers = Brokers::start().await;
    let leader = brokers.leader().await;
    let others = brokers.others(leader);
    let follower = others[0];
    let mut consumer = brokers.client(follower).await;
    consumer.send("T", 0, "first").await.done();
    consumer.start_pull("T", 0, 1, 25_000, "*").await;
    brokers.network.split(&[leader], &others);
    let mut producer = brokers.client(follower).await;
    eventually("the others to elect a leader", async || {
        (producer.send("T", 0, "second").await.code == 0).then_some(())
    })
    .await;
    assert_eq!(bodies(&pull_on(&mut consumer).await), ["second"]);
}

#[tokio::test]
async fn offsets_noted_while_the_lead_moves_hold_nobody_up() {
    let brokers = Brokers::start().await;
    brokers.client(brokers.leader().await).await.send("T", 0, "x").await.done();
    for _ in 0..4 {
        let leader = brokers.leader().await;
        let to = brokers.others(leader)[0];
        let mut client = brokers.client(leader).await;
        let admin = brokers.node(leader).log(&name("broker-0")).expect("it leads the log").admin();
        let moving = tokio::spawn(async move { admin.transfer_leadership(to).await });
        let mut offset = 0;
        while !moving.is_finished() {
            offset += 1;
            let offset = offset.to_string();
            let mut fields = OFFSET_OF.to_vec();
            fields.push(("commitOffset", &offset));
            client.oneway(UPDATE_OFFSET, &fields, b"").await;
            tokio::task::yield_now().await;
        }
        // It may have come to nothing; what counts is that every node goes on.
        let _ = moving.await.expect("no panic");
        for id in brokers.ids() {
            brokers.name_server(id).await.call(ROUTE, &[("topic", "TBW102")], b"").await.done();
        }
    }
    let leader = brokers.leader().await;
    brokers.client(leader).await.send("T", 0, "x").await.done();
}

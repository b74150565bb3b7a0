//! Clients: what they say that they are, and the queues that they lock.

use serde_json::json;

use crate::costs::{Costs, KIB, MEMORY, MIB, SMALL};
use crate::requests::{frame, heartbeat, locks, name};

pub(crate) async fn clients(costs: &mut Costs) {
    let id = name(0);
    heartbeats(costs, &id).await;
    crowd(costs).await;
    what_stays(costs).await;
    let check = json!({ "subscriptionData": { "expressionType": "TAG", "subString": "t".repeat(60 * KIB) } }).to_string();
    costs.measure("the longest expression", 46, (&[], check.as_bytes()), 0, (SMALL, 0)).await;
    queues(costs, &id).await;
}

async fn heartbeats(costs: &mut Costs, id: &str) {
    let large = heartbeat(id, 1024, 14, "*");
    assert!((700 * KIB..MIB).contains(&large.len()), "{} bytes", large.len());
    costs
        .measure("1,024 groups with 14 subscriptions each", 34, (&[], &large), 0, (48 * MIB, 0))
        .await;
    let wide = heartbeat("b", 1, 24, &"tag-000000000000000000000000||".repeat(1024));
    costs.measure("the longest expressions", 34, (&[], &wide), 0, (16 * MIB, 0)).await;
    for (what, body) in [
        ("1,025 groups", heartbeat("c", 1025, 0, "*")),
        ("1,025 subscriptions", heartbeat("c", 1, 1025, "*")),
        ("a client's id over the limit", heartbeat(&"c".repeat(256), 1, 1, "*")),
        ("an expression over the limit", heartbeat("c", 1, 1, &"t".repeat(32 * KIB + 1))),
        ("too many tags", heartbeat("c", 1, 1, &"t||".repeat(1025))),
    ] {
        costs.refused(what, 34, &[], &body).await;
    }
}

/// As many clients as a group may have. One connection speaks for a few of them.
async fn crowd(costs: &mut Costs) {
    let mut connections = Vec::new();
    let beat = |n: usize| json!({ "clientID": name(n), "consumerDataSet": [{ "groupName": "crowd", "subscriptionDataSet": [{ "topic": "T" }] }] });
    for first in (1..8193).step_by(16) {
        let mut client = costs.connect().await;
        client
            .all((first..first + 16).map(|n| frame(34, &[], beat(n).to_string().as_bytes())))
            .await;
        connections.push(client);
    }
    let answer = connections[0].call(&frame(34, &[], beat(17).to_string().as_bytes())).await;
    assert_eq!(answer.0, 1, "17 clients on one connection: {}", answer.1);
    costs
        .measure(
            "one client more than a group may have",
            34,
            (&[], beat(8193).to_string().as_bytes()),
            1,
            (SMALL, 0),
        )
        .await;
    costs
        .measure("8,192 clients", 38, (&[("consumerGroup", "crowd")], b""), 0, (16 * MIB, 0))
        .await;
    costs
        .measure("8,192 clients", 203, (&[("consumerGroup", "crowd")], b""), 0, (32 * MIB, 0))
        .await;
    let member = name(1);
    let gone = [("clientID", member.as_str()), ("consumerGroup", "crowd")];
    costs.measure("it leaves 8,191 others", 35, (&gone, b""), 0, (4 * MIB, 0)).await;
    drop(connections);
    // Until all that they took is given back.
    let crowd = frame(38, &[("consumerGroup", "crowd")], b"");
    while costs.client.call(&crowd).await.0 == 0 {
        tokio::task::yield_now().await;
    }
}

/// What large heartbeats leave behind.
async fn what_stays(costs: &mut Costs) {
    let beat = |n: usize| frame(34, &[], &heartbeat(&format!("{n:0>20}"), 1024, 14, "*"));
    for (each, most) in [(false, 12 * MIB), (true, 128 * MIB)] {
        let before = MEMORY.current_usage();
        let (mut connections, mut refused) = (vec![costs.connect().await], 0);
        for n in 0..40 {
            if each {
                connections.push(costs.connect().await);
            }
            refused += connections.last_mut().expect("one").call(&beat(n)).await.0;
        }
        let kept = MEMORY.current_usage().saturating_sub(before);
        let from = connections.len();
        eprintln!(
            "40 of the largest heartbeats, {from} connections, {refused} refused: {} KiB stay",
            kept / KIB
        );
        assert!(kept <= most && refused > 0, "{kept} bytes stay of {from} connections");
    }
}

async fn queues(costs: &mut Costs, id: &str) {
    let most = locks(id, 4096);
    assert!(most.len() < MIB, "{} bytes", most.len());
    for code in [41, 42] {
        costs.measure("4,096 queues", code, (&[], &most), 0, (24 * MIB, MIB)).await;
        costs.refused("4,097 queues", code, &[], &locks(id, 4097)).await;
        costs
            .refused("a client's id over the limit", code, &[], &locks(&"c".repeat(256), 4096))
            .await;
        costs
            .refused("a client's id of 900 KiB", code, &[], &locks(&"c".repeat(900 * KIB), 16))
            .await;
    }
}

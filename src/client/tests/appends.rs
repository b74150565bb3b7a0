//! Appends: the right node, retries only where nothing happened, bounded in bytes.

use bytes::Bytes;
use tokio::time::Instant;

use super::scripted::Appends;
use super::*;
use crate::error::{Outcome, Oversized};
use crate::record::{AppendOptions, LogId};

#[tokio::test]
async fn an_append_follows_the_hint_to_the_leader_and_the_next_goes_there_at_once() {
    let cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    let first = log.append("one").await.expect("append");
    assert_eq!((first.index, first.count), (1, 1));
    let batch = vec![Bytes::from("two"), Bytes::from("three")];
    let batch = log.append_batch(batch).await.expect("append");
    assert_eq!((batch.index, batch.count), (2, 2));
    assert_eq!(cluster.state().payloads(), ["one", "two", "three"]);
    assert_eq!(cluster.state().taken, 2);
}

#[tokio::test(start_paused = true)]
async fn after_the_leader_dies_appends_go_to_the_next_one() {
    let mut cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    log.append("before").await.expect("append");
    cluster.kill(1).await;
    // Until there is another leader the survivors name the dead one.
    let elect = async {
        // paced: on the paused clock, which jumps
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.state().leader = None;
        // paced: on the paused clock, which jumps
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.state().leader = Some(3);
    };
    let began = Instant::now();
    let (appended, ()) = tokio::join!(log.append("after"), elect);
    appended.expect("append");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(cluster.state().payloads(), ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_call_ends_in_its_time_and_was_not_appended() {
    let cluster = ScriptedCluster::start().await;
    cluster.state().leader = None;
    let log = cluster.log().await;
    let began = Instant::now();
    let options = AppendOptions::default().with_timeout(Duration::from_secs(3));
    let error = log.append_with("x", options).await.expect_err("nobody leads");
    assert!(matches!(error, AppendError::NotLeader { leader: None }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotAppended);
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..=Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_never_retried() {
    let cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    cluster.state().appends = Appends::Break;
    let error = log.append("x").await.expect_err("the connection breaks");
    assert!(matches!(error, AppendError::Interrupted { .. }), "{error}");
    assert_eq!((error.outcome(), cluster.state().taken), (Outcome::Unknown, 1));

    cluster.state().appends = Appends::Ignore;
    let error = log.append("x").await.expect_err("no answer");
    assert!(matches!(error, AppendError::Timeout { .. }), "{error}");
    assert_eq!((error.outcome(), cluster.state().taken), (Outcome::Unknown, 2));

    cluster.state().appends = Appends::Fail(AppendError::LeadershipLost { leader: None });
    let error = log.append("x").await.expect_err("lost");
    assert!(matches!(error, AppendError::LeadershipLost { .. }), "{error}");
    assert_eq!(cluster.state().taken, 3);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_is_not_retried_and_what_can_is() {
    let cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    let large = AppendError::TooLarge { what: Oversized::Record, size: 2, limit: 1 };
    cluster.state().appends = Appends::Fail(large);
    let error = log.append("x").await.expect_err("too large");
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    assert_eq!(cluster.state().taken, 1);

    cluster.state().appends = Appends::Fail(AppendError::DiskFull { path: "data".into() });
    let free_space = async {
        // paced: on the paused clock, which jumps
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.state().appends = Appends::Commit;
    };
    let (appended, ()) = tokio::join!(log.append("x"), free_space);
    appended.expect("space was freed in time");
    assert!(cluster.state().taken < 10, "{} attempts in a second", cluster.state().taken);
}

#[tokio::test]
async fn a_payload_over_the_nodes_frame_limit_is_too_large_and_costs_no_connection() {
    let cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    log.append("small").await.expect("append");
    let error = log.append(vec![0; 2 << 20]).await.expect_err("2 MiB");
    assert!(matches!(error, AppendError::TooLarge { what: Oversized::Record, .. }), "{error}");
    let halves = vec![Bytes::from(vec![0; 1 << 20]); 2];
    let error = log.append_batch(halves).await.expect_err("2 MiB");
    assert!(matches!(error, AppendError::TooLarge { what: Oversized::Batch, .. }), "{error}");
    log.append("small").await.expect("append");
}

#[tokio::test]
async fn a_log_that_was_made_anew_is_found_under_its_new_number() {
    let cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    log.append("x").await.expect("append");
    cluster.state().logs.insert(name("orders"), LogId(6));
    log.append("x").await.expect("append to the new one");
    cluster.state().logs.clear();
    let error = log.append("x").await.expect_err("deleted");
    assert!(matches!(&error, AppendError::UnknownLog { name } if name == "orders"), "{error}");
    let error = log.submit("x").await.expect_err("deleted");
    assert!(matches!(&error, AppendError::UnknownLog { name } if name == "orders"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn appends_in_flight_are_bounded_and_the_next_waits_for_room() {
    let cluster = ScriptedCluster::start().await;
    let client = cluster.client_with(|config| config.inflight_max = 10_000).await;
    let log = client.log(&name("orders"));
    cluster.state().appends = Appends::Ignore;
    let ticket = log.submit(vec![0; 9_000]).await.expect("room");
    let error = log.append(vec![0; 9_000]).await.expect_err("no room");
    assert!(matches!(error, AppendError::Overloaded { inflight: 9_512, limit: 10_000 }), "{error}");
    assert_eq!(cluster.state().taken, 1, "it was not sent");
    cluster.state().appends = Appends::Commit;
    let release = async {
        // paced: on the paused clock, which jumps
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(ticket);
    };
    let (appended, ()) = tokio::join!(log.append(vec![0; 9_000]), release);
    appended.expect("room after five seconds");
    log.append(vec![0; 50_000]).await.expect("alone, it may be larger than the room");
}

#[tokio::test]
async fn submitted_appends_keep_their_order_and_tickets_tell_of_a_new_leader() {
    let cluster = ScriptedCluster::start().await;
    let log = cluster.log().await;
    let mut tickets = Vec::new();
    for i in 0..200 {
        tickets.push(log.submit(format!("{i}")).await.expect("submit"));
    }
    let mut last = 0;
    for ticket in tickets {
        let index = ticket.await.expect("committed").index;
        assert!(index > last);
        last = index;
    }
    let expected: Vec<_> = (0..200).map(|i| format!("{i}")).collect();
    assert_eq!(cluster.state().payloads(), expected);

    cluster.state().leader = Some(3);
    let error = log.submit("x").await.expect("sent to the old one").await.expect_err("not led");
    assert_eq!((error.outcome(), error.leader().map(|m| m.id)), (Outcome::NotAppended, Some(3)));
    log.submit("x").await.expect("sent to the new one").await.expect("committed");
}

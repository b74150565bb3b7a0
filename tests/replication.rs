//! What reaches the other nodes, what counts as committed, and what gives way.

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, Setup, eventually, read_all, texts, within};
use quorumlog::{
    AppendError, AppendOptions, ByteCount, Config, NodeId, Outcome, ReadError, Start, Ticket,
};

/// Requests that take one small record each, so that there are many.
fn small_requests(config: &mut Config) {
    config.limits.replication_request_max = ByteCount::new(300);
}

/// What a leader took in after it was cut off.
struct Lonely {
    leader: NodeId,
    /// The payloads begin with this.
    name: String,
    tickets: Vec<Ticket>,
}

/// Cuts the leader off and submits to it before it knows.
async fn lonely(cluster: &Cluster, count: u64, cut: impl Fn(NodeId, &[NodeId])) -> Lonely {
    let mut attempt = 0;
    eventually("a leader that is cut off to take records", async || {
        cluster.network.heal();
        cluster.agree().await;
        attempt += 1;
        let leader = cluster.leader().await;
        cut(leader, &cluster.others(leader));
        let log = cluster.log(leader);
        let end = log.watermarks().end + count;
        let name = format!("lonely {attempt}");
        let mut tickets = Vec::new();
        for number in 0..count {
            match log.submit(format!("{name} {number}")).await {
                Ok(ticket) => tickets.push(ticket),
                Err(error) => assert_eq!(error.outcome(), Outcome::NotAppended, "{error}"),
            }
        }
        let holds =
            eventually("it to hold them", async || (log.watermarks().end >= end).then_some(()));
        // Too late if it knew: then it will never hold them, and the next attempt is faster.
        let held = tokio::time::timeout(Duration::from_secs(1), holds).await.is_ok();
        held.then_some(Lonely { leader, name, tickets })
    })
    .await
}

/// Cuts every node off from every other.
fn scatter(cluster: &Cluster) {
    cluster.network.split(&cluster.ids(), &cluster.ids());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_majority_holds_is_neither_committed_nor_read_until_one_does() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append("before").await;
    let Lonely { leader, name, tickets } = lonely(&cluster, 5, |_, _| scatter(&cluster)).await;
    let log = cluster.log(leader);
    let committed = log.watermarks().committed;
    assert_eq!(log.watermarks().end, committed + 5);
    let mut tail = log.subscribe(Start::At(committed));
    assert_eq!(log.watermarks().committed, committed);
    assert_eq!(log.read(committed, 1 << 20).await.expect("nothing to see"), []);
    for id in cluster.others(leader) {
        assert!(cluster.log(id).watermarks().end <= committed, "nothing reached node {id}");
    }
    // One follower makes a majority.
    let follower = cluster.others(leader)[0];
    cluster.network.mend(leader, follower);
    for number in 0..5 {
        let record = within("a record", tail.next()).await.expect("open").expect("readable");
        assert_eq!(record.payload, format!("{name} {number}"));
    }
    drop(tickets);
    let records = cluster.agree_among(&[leader, follower]).await;
    assert!(records.len() >= 6);
    cluster.network.heal();
    assert_eq!(cluster.agree().await, records);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_without_a_majority_fail_in_bounded_time_and_memory() {
    let small = |config: &mut Config| {
        config.limits.record_size_max = ByteCount::new(4 << 10);
        config.limits.batch_size_max = ByteCount::new(16 << 10);
        config.limits.append_inflight_max = ByteCount::new(16 << 10);
    };
    let cluster = Setup::new(3).steady().configure(small).start().await;
    let Lonely { leader, tickets, .. } = lonely(&cluster, 1, |_, _| scatter(&cluster)).await;
    let log = cluster.log(leader);
    let options = AppendOptions::default().with_timeout(Duration::from_millis(300));
    let appends = (0..20).map(|_| log.append_with(vec![b'x'; 4 << 10], options));
    let errors: Vec<AppendError> = within("the appends", futures_util::future::join_all(appends))
        .await
        .into_iter()
        .map(|result| result.expect_err("no majority"))
        .collect();
    for error in &errors {
        let expected = match error {
            AppendError::Timeout { .. } => Outcome::Unknown,
            AppendError::Overloaded { .. }
            | AppendError::NoQuorum
            | AppendError::NotLeader { .. } => Outcome::NotAppended,
            other => panic!("{other}"),
        };
        assert_eq!(error.outcome(), expected, "{error}");
    }
    let refused = errors.iter().filter(|error| error.outcome() == Outcome::NotAppended).count();
    assert!(refused >= 16, "at most four of 4 KiB fit into 16 KiB: {errors:?}");
    let barrier = within("a barrier", log.read_barrier()).await;
    assert!(matches!(barrier, Err(ReadError::NoQuorum { .. } | ReadError::NotLeader { .. })));
    drop((log, tickets));
    cluster.network.heal();
    cluster.append("after").await;
    let records = cluster.agree().await;
    let stored = records.iter().filter(|record| record.payload.len() == 4 << 10).count();
    assert!(stored <= 20 - refused, "{stored} of 20 are stored, and {refused} were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_appends_complete_when_a_follower_comes_back() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append("before").await;
    for round in 0..2 {
        let leader = cluster.leader().await;
        let followers = cluster.others(leader);
        for &id in &followers {
            if round == 0 { cluster.stop(id).await } else { cluster.kill(id) }
        }
        let log = cluster.log(leader);
        let pending = log.submit(format!("pending {round}")).await;
        cluster.start(followers[0]).await;
        let records = cluster.agree().await;
        // Nobody else can win an election without what the leader holds.
        let stored = texts(&records).contains(&format!("pending {round}"));
        let outcome = match pending {
            Ok(ticket) => within("the outcome", ticket).await,
            // It knew already that it was alone.
            Err(error) => Err(error),
        };
        match outcome {
            Ok(appended) => assert!(records.iter().any(|r| r.index == appended.index)),
            Err(error) => assert!(error.outcome() == Outcome::Unknown || !stored, "{error}"),
        }
        cluster.start(followers[1]).await;
        cluster.agree().await;
    }
}

/// Resets the leader's connections in the middle of requests and of responses, again and again.
async fn resets_lose_nothing(cluster: Cluster) {
    for round in 0..6_u64 {
        let leader = cluster.leader().await;
        for id in cluster.others(leader) {
            let bytes = 200 + usize::try_from(round * 137 + id * 31).expect("it is small");
            // What the follower answered is lost, or what it was sent.
            let (from, to) = if round % 2 == 0 { (id, leader) } else { (leader, id) };
            cluster.network.reset_after(from, to, bytes);
        }
        cluster.append_some(&format!("round {round}"), 10).await;
    }
    let records = cluster.agree().await;
    let mut distinct = texts(&records);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_lose_no_acknowledged_record() {
    resets_lose_nothing(Setup::new(3).steady().start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_lose_no_acknowledged_record_in_small_requests() {
    resets_lose_nothing(Setup::new(3).steady().configure(small_requests).start().await).await;
}

/// A leader that was cut off has records that nobody else has. They give way to the new leader's.
async fn a_former_leader_follows(cluster: Cluster) {
    cluster.append_some("before", 3).await;
    let split = |leader, others: &[NodeId]| cluster.network.split(&[leader], others);
    let Lonely { leader: old, name, tickets } = lonely(&cluster, 10, split).await;
    let rest = cluster.others(old);
    for number in 0..5 {
        cluster.append_among(&rest, format!("after {number}")).await;
    }
    cluster.network.heal();
    let check = |records: &[quorumlog::Record]| {
        let texts = texts(records);
        assert!(!texts.iter().any(|text| text.starts_with(&name)), "{texts:?}");
    };
    check(&cluster.agree().await);
    for ticket in tickets {
        let error = within("the outcome", ticket).await.expect_err("it gave way");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    }
    // What was truncated stays so, whatever follows in its place.
    cluster.kill(old);
    cluster.start(old).await;
    check(&cluster.agree().await);
    cluster.append("a shorter log than it once had").await;
    cluster.stop(old).await;
    cluster.start(old).await;
    check(&cluster.agree().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_leaders_uncommitted_records_give_way() {
    a_former_leader_follows(Setup::new(3).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_leaders_uncommitted_records_give_way_in_small_requests() {
    a_former_leader_follows(Setup::new(3).configure(small_requests).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_catches_up_from_the_leaders_disk() {
    let cluster = Setup::new(3).steady().small_segments().start().await;
    let leader = cluster.leader().await;
    let away = cluster.others(leader)[0];
    cluster.append_some("before", 2).await;
    cluster.stop(away).await;
    let log = cluster.log(leader);
    for batch in 0..20_u8 {
        // 64 KiB each, so a batch fills a segment and the tail cache.
        let payloads: Vec<_> = (0..16).map(|n| Bytes::from(vec![batch ^ n; 4 << 10])).collect();
        let appended =
            within("a batch", log.append_batch(payloads.clone())).await.expect("two run");
        for (index, payload) in (appended.index..).zip(payloads) {
            cluster.acknowledge(index, payload);
        }
    }
    drop(log);
    cluster.start(away).await;
    assert_eq!(cluster.agree().await.len(), 2 + 320);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_takes_nothing_does_not_hold_up_the_others() {
    let cluster = Setup::new(3).steady().small_segments().start().await;
    let leader = cluster.leader().await;
    let (slow, fast) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    cluster.network.split(&[slow], &[leader, fast]);
    for number in 0..40_u8 {
        cluster.append_among(&[leader, fast], vec![number; 8 << 10]).await;
    }
    let log = cluster.log(leader);
    eventually("the leader to know who lags", async || {
        let status = log.status();
        let matched = |id| {
            let member = status.members.iter().find(|member| member.member.id == id);
            member.and_then(|member| member.matched).unwrap_or(0)
        };
        (matched(slow) + 40 <= matched(fast)).then_some(())
    })
    .await;
    drop(log);
    cluster.network.heal();
    assert_eq!(cluster.agree().await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_hold_the_same_records_at_the_same_positions_whatever_lies_between() {
    let cluster = Setup::new(3).start().await;
    let mut last = 0;
    for round in 0..4 {
        cluster.append_some(&format!("round {round}"), 3).await;
        let leader = cluster.leader().await;
        // Blank entries of new leaders and changes of membership take positions too.
        if round % 2 == 0 {
            cluster.kill(leader)
        } else {
            cluster.stop(leader).await
        }
        cluster.append(format!("without {leader}")).await;
        cluster.start(leader).await;
        let records = cluster.agree().await;
        assert!(records.windows(2).all(|pair| pair[0].index < pair[1].index));
        assert!(records.windows(2).all(|pair| pair[0].term <= pair[1].term));
        assert!(records.len() > last);
        last = records.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_timed_out_is_stored_at_most_once() {
    let cluster = Setup::new(3).steady().start().await;
    let leader = cluster.leader().await;
    scatter(&cluster);
    let options = AppendOptions::default().with_timeout(Duration::from_millis(50));
    let error = cluster.log(leader).append_with("once", options).await.expect_err("alone");
    cluster.network.heal();
    cluster.append("after").await;
    let records = texts(&cluster.agree().await);
    let copies = records.iter().filter(|text| *text == "once").count();
    match error.outcome() {
        Outcome::Unknown => assert!(copies <= 1, "{copies} copies"),
        Outcome::NotAppended => assert_eq!(copies, 0, "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_may_die_at_once_and_nothing_acknowledged_is_lost() {
    let cluster = Setup::new(3).small_segments().start().await;
    for round in 0..3 {
        for number in 0..8_u8 {
            cluster.append(vec![number; 10_000]).await;
        }
        let held = cluster.agree().await.len();
        for id in cluster.ids() {
            cluster.kill(id);
        }
        for id in 1..=3 {
            cluster.start(id).await;
        }
        assert_eq!(cluster.agree().await.len(), held, "round {round}");
    }
    let log = cluster.log(1);
    assert!(read_all(&log, log.watermarks().begin).await.len() >= 24);
}

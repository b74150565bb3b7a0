//! What a caller appends, reads and is told when it asks for too much.

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::tally::Tallies;
use cluster::{Cluster, LOG, Setup, eventually, name, read_all, texts, within};
use quorumlog::{
    AppendError, AppendOptions, ByteCount, Flush, OpenError, Outcome, Oversized, Start,
    StorageError,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_gives_back_what_was_appended() {
    let cluster = Setup::new(1).start().await;
    let log = cluster.log(1);
    let before = log.watermarks();
    let mut last = 0;
    for number in 0..10 {
        let appended = log.append(format!("record {number}")).await.expect("one voter is enough");
        assert!(appended.index > last, "indexes count up");
        assert_eq!((appended.count, appended.last_index()), (1, appended.index));
        last = appended.index;
        let records = log.read(appended.index, 1).await.expect("it is committed");
        assert_eq!((records[0].index, records[0].term), (appended.index, appended.term));
        assert_eq!(records[0].payload, format!("record {number}"));
    }
    assert_eq!(log.watermarks().committed, last + 1);
    assert!(before.readable().end <= last);
    let all = read_all(&log, log.watermarks().begin).await;
    assert_eq!(texts(&all), (0..10).map(|n| format!("record {n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_hold_what_was_appended() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append_some("record", 10).await;
    let records = cluster.agree().await;
    assert_eq!(texts(&records), (0..10).map(|n| format!("record {n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn submitted_batches_keep_their_order_among_records_and_are_appended_as_a_whole() {
    let cluster = Setup::new(3)
        .steady()
        .configure(|config| {
            config.limits.record_size_max = ByteCount::new(1000);
            config.limits.batch_size_max = ByteCount::new(1000);
        })
        .start()
        .await;
    cluster.append("first").await;
    let log = cluster.log(cluster.leader().await);
    let mut tickets = Vec::new();
    for number in 0..50 {
        let batch = (0..3).map(|part| Bytes::from(format!("{number}.{part}"))).collect();
        tickets.push((3, log.submit_batch(batch).await.expect("the leader admits it")));
        let single = log.submit_with(format!("{number}"), AppendOptions::sync()).await;
        tickets.push((1, single.expect("the leader admits it")));
    }
    let large = log.submit_batch(vec![Bytes::from(vec![0; 600]); 2]).await.expect_err("too large");
    assert!(matches!(large, AppendError::TooLarge { what: Oversized::Batch, .. }), "{large}");
    let nothing = log.submit_batch(Vec::new()).await.expect("an empty batch is one");
    let mut last = 0;
    for (count, ticket) in tickets {
        let appended = within("a commit", ticket).await.expect("committed");
        assert_eq!(appended.count, count);
        assert!(appended.index > last, "it keeps its place");
        last = appended.last_index();
    }
    assert_eq!(within("its answer", nothing).await.expect("nothing to do").count, 0);
    let follower = cluster.log(cluster.others(cluster.leader().await)[0]);
    let refused = match follower.submit_batch(vec!["elsewhere".into()]).await {
        Err(error) => error,
        Ok(ticket) => within("its answer", ticket).await.expect_err("it follows"),
    };
    assert!(matches!(refused, AppendError::NotLeader { .. }), "{refused}");
    let texts = texts(&read_all(&log, 0).await);
    let expected = (0..50).flat_map(|number| {
        (0..3).map(move |part| format!("{number}.{part}")).chain([format!("{number}")])
    });
    assert_eq!(texts[1..], Vec::from_iter(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn submitted_records_keep_their_order_and_each_ticket_its_own_index() {
    let cluster = Setup::new(3).steady().start().await;
    // From then on the leader knows that it has a majority.
    cluster.append("first").await;
    let log = cluster.log(cluster.leader().await);
    let mut tickets = Vec::new();
    for number in 0..200 {
        tickets.push(log.submit(format!("record {number}")).await.expect("the leader admits it"));
    }
    let mut last = 0;
    for (number, ticket) in tickets.into_iter().enumerate() {
        let appended = within("a commit", ticket).await;
        let appended =
            appended.unwrap_or_else(|error| panic!("{number}: {error}\n{}", cluster.describe()));
        assert!(appended.index > last, "record {number} keeps its place");
        last = appended.index;
        cluster.acknowledge(last, Bytes::from(format!("record {number}")));
    }
    assert_eq!(cluster.agree().await.len(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_consecutive_indexes_and_is_acknowledged_once() {
    let cluster = Setup::new(3).steady().start().await;
    let log = cluster.log(cluster.leader().await);
    for round in 1..=3_u8 {
        let batch: Vec<Bytes> =
            (0..10).map(|n| Bytes::from(vec![b'a' + n; usize::from(n * round) * 100])).collect();
        let appended = log.append_batch(batch.clone()).await.expect("all nodes run");
        assert_eq!(appended.count, 10);
        assert_eq!(appended.last_index(), appended.index + 9);
        for (index, payload) in (appended.index..).zip(batch) {
            cluster.acknowledge(index, payload);
        }
    }
    assert_eq!(cluster.agree().await.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_payloads_and_payloads_of_exactly_the_limit_pass() {
    let cluster = Setup::new(1).start().await;
    let log = cluster.log(1);
    let limit = log_limit(&cluster);
    for size in [0, 1, limit] {
        let appended = log.append(vec![7; size]).await.expect("within the limit");
        let records = log.read(appended.index, 1).await.expect("it is committed");
        assert_eq!(records[0].payload.len(), size);
    }
    let error = log.append(vec![7; limit + 1]).await.expect_err("over the limit");
    assert!(matches!(error, AppendError::TooLarge { what: Oversized::Record, .. }), "{error}");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::NotAppended, false));
    let batch = vec![Bytes::from(vec![7; limit]); 3];
    let error = log.append_batch(batch).await.expect_err("over the limit of a batch");
    assert!(matches!(error, AppendError::TooLarge { what: Oversized::Batch, .. }), "{error}");
    assert_eq!(read_all(&log, log.watermarks().begin).await.len(), 3);
}

fn log_limit(cluster: &Cluster) -> usize {
    usize::try_from(cluster.config(1).limits.record_size_max.bytes()).expect("it fits in memory")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_larger_than_a_replication_request_reaches_all_nodes() {
    let large = |config: &mut quorumlog::Config| {
        config.limits.record_size_max = ByteCount::mib(8);
        config.limits.replication_request_max = ByteCount::mib(1);
        config.storage.segment_size = ByteCount::mib(4);
    };
    let cluster = Setup::new(3).steady().configure(large).start().await;
    cluster.append("small").await;
    cluster.append(vec![b'x'; 6 << 20]).await;
    cluster.append("small again").await;
    assert_eq!(cluster.agree().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_keep_to_their_size_and_give_at_least_one_record() {
    let cluster = Setup::new(1).start().await;
    let log = cluster.log(1);
    let mut first = None;
    for _ in 0..10 {
        let appended = log.append(vec![b'x'; 1_000]).await.expect("one voter is enough");
        first.get_or_insert(appended.index);
    }
    let first = first.expect("ten were appended");
    assert_eq!(log.read(first, 0).await.expect("a read works").len(), 1);
    assert_eq!(log.read(first, 1).await.expect("a read works").len(), 1);
    let some = log.read(first, 3_500).await.expect("a read works").len();
    assert!((3..=4).contains(&some), "{some} records for 3500 bytes");
    assert_eq!(log.read(first, 1 << 20).await.expect("a read works").len(), 10);
    let end = log.watermarks().committed;
    assert_eq!(log.read(end, 1 << 20).await.expect("nothing there yet"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_read_barrier_every_node_shows_what_was_acknowledged() {
    let cluster = Setup::new(3).steady().start().await;
    for round in 0..2 {
        for number in 0..5 {
            let index = cluster.append(format!("round {round} record {number}")).await;
            for id in cluster.ids() {
                let log = cluster.log(id);
                let bound = within("a barrier", log.read_barrier()).await.expect("all nodes run");
                assert!(bound > index, "node {id}: {index} was acknowledged before");
                assert!(log.watermarks().committed >= bound, "node {id} has what it was told of");
                let records = log.read(index, 1).await.expect("a read works");
                assert_eq!(records[0].index, index, "node {id}");
            }
        }
    }
}

/// Proposes through the leader, and checks that the answers are those of the records in their order.
async fn answers_come_in_order(nodes: u64) {
    let tallies = Tallies::default();
    let cluster = Setup::new(nodes).steady().tallies(&tallies).start().await;
    let log = cluster.log(cluster.leader().await);
    for number in 1..=10_u64 {
        let applied = log.propose(format!("record {number}")).await.expect("all nodes run");
        assert_eq!(applied.response, number.to_string());
        cluster.acknowledge(applied.appended.index, Bytes::from(format!("record {number}")));
    }
    cluster.agree().await;
    let expected = tallies.of(cluster.leader().await).tally;
    assert_eq!(expected.count, 10);
    for id in cluster.ids() {
        eventually("each state machine to hold the same", async || {
            (tallies.of(id).tally == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_are_answered_by_the_state_machine_of_a_single_node() {
    answers_come_in_order(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_are_answered_by_the_state_machine_and_all_nodes_apply_the_same() {
    answers_come_in_order(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_refuses_appends_and_names_the_leader() {
    let cluster = Setup::new(3).steady().start().await;
    let leader = cluster.leader().await;
    for id in cluster.others(leader) {
        let error = cluster.log(id).append("x").await.expect_err("it does not lead");
        assert!(matches!(error, AppendError::NotLeader { .. }), "{error}");
        assert_eq!(error.leader(), Some(&cluster.node(leader).member()));
        assert!(error.is_retryable());
    }
    assert_eq!(cluster.agree().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_start_where_they_are_told_and_follow_the_log_on_any_node() {
    let cluster = Setup::new(3).steady().start().await;
    cluster.append_some("old", 4).await;
    for id in cluster.ids() {
        let old = cluster.agree().await;
        let log = cluster.log(id);
        let mut all = log.subscribe(Start::Begin);
        let mut some = log.subscribe(Start::At(old[2].index));
        let mut new = log.subscribe(Start::Committed);
        let index = cluster.append(format!("new for {id}")).await;
        let first_new = within("a new record", new.next()).await.expect("open").expect("readable");
        assert_eq!(first_new.index, index);
        for expected in &old {
            let record = within("a record", all.next()).await.expect("open").expect("readable");
            assert_eq!(&record, expected, "node {id}");
        }
        for expected in &old[2..] {
            let record = within("a record", some.next()).await.expect("open").expect("readable");
            assert_eq!(&record, expected, "node {id}");
            some = log.subscribe(some.position());
        }
        assert_eq!(new.position(), Start::At(index + 1), "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_appends_and_nothing_else() {
    let cluster = Setup::new(1).start().await;
    cluster.append_some("before", 3).await;
    cluster.stop(1).await;
    cluster.start_with(1, |config| config.storage.disk_reserve = ByteCount::new(1 << 60)).await;
    cluster.leader().await;
    let log = cluster.log(1);
    let error = log.append("during").await.expect_err("the disk counts as full");
    assert!(matches!(error, AppendError::DiskFull { .. }), "{error}");
    assert!(error.is_retryable());
    assert_eq!(cluster.agree().await.len(), 3, "reads and votes go on");
    drop(log);
    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.append("after").await;
    assert_eq!(cluster.agree().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_flush_in_the_background_acknowledge_and_can_be_asked_to_flush() {
    let cluster =
        Setup::new(3).steady().configure(|c| c.storage.flush = Flush::Async).start().await;
    cluster.append_some("in the background", 5).await;
    let log = cluster.log(cluster.leader().await);
    for number in 0..5 {
        let payload = Bytes::from(format!("flushed {number}"));
        let options = AppendOptions::sync().with_timeout(Duration::from_secs(20));
        let appended = log.append_with(payload.clone(), options).await.expect("all nodes run");
        cluster.acknowledge(appended.index, payload);
    }
    assert_eq!(cluster.agree().await.len(), 10);
    drop(log);
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    assert_eq!(cluster.agree().await.len(), 10, "a shutdown flushes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_shut_down_says_that_it_is_closed() {
    let cluster = Setup::new(1).start().await;
    cluster.append("before").await;
    let log = cluster.log(1);
    let mut tail = log.subscribe(Start::Committed);
    cluster.stop(1).await;
    let error = log.append("after").await.expect_err("closed");
    assert!(matches!(error, AppendError::Closed), "{error}");
    let end = within("the end of a subscription", tail.next()).await;
    assert!(matches!(end, None | Some(Err(quorumlog::ReadError::Closed))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_is_for_one_process_at_a_time_and_for_one_node() {
    let cluster = Setup::new(1).start().await;
    let open = async |id| {
        let mut config = cluster.config(1);
        config.node_id = id;
        config.listen = "127.0.0.1:0".to_owned();
        quorumlog::Node::open(config).await.map(|node| node.member())
    };
    let error = open(1).await.expect_err("it is in use");
    assert!(matches!(error, OpenError::Storage(StorageError::Locked { .. })), "{error}");
    // A shutdown lets go of the directory, whoever still holds a handle.
    let (node, log) = (cluster.node(1), cluster.log(1));
    cluster.stop(1).await;
    let error = open(2).await.expect_err("it belongs to node 1");
    assert!(matches!(error, OpenError::Storage(StorageError::Foreign { .. })), "{error}");
    cluster.start(1).await;
    drop((node, log));
    cluster.append("still there").await;
    assert!(cluster.node(1).log(&name("another")).is_none());
    assert!(cluster.node(1).log(&name(LOG)).is_some());
}

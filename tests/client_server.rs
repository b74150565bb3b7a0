//! A client against nodes that serve it, through changes of leader, and what it is told when it asks for
//! what cannot be.

#[path = "cluster/clients.rs"]
mod clients;
mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clients::{Counting, client_address, orders};
use cluster::{Cluster, LOG, Setup, eventually, name, texts, within};
use quorumlog::client::{Client, ClientConfig, ClientLog, ClientSubscription};
use quorumlog::{
    AdminError, AppendError, ByteCount, NodeId, OpenError, Outcome, Oversized, ReadError, Record,
    Role, Start, StorageError,
};

/// The next records of a subscription.
async fn take(subscription: &mut ClientSubscription, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        let next = within("a record", subscription.next()).await.expect("the log goes on");
        records.push(next.expect("the nodes answer"));
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_can_do_with_a_log_what_its_node_can() {
    let cluster = Setup::new(3).steady().start_serving().await;
    let log = cluster.client_log().await;
    let mut tail = log.subscribe(Start::Begin);

    let first = log.append("one").await.expect("append");
    let batch = log.append_batch(vec!["two".into(), "three".into()]).await.expect("batch");
    assert_eq!((batch.count, batch.last_index()), (2, batch.index + 1));
    let mut tickets = Vec::new();
    for number in 0..100 {
        tickets.push(log.submit(format!("ticket {number}")).await.expect("submit"));
    }
    tickets.push(log.submit_batch(vec!["four".into(), "five".into()]).await.expect("submit"));
    let mut last = batch.last_index();
    for ticket in tickets {
        let appended = within("a commit", ticket).await.expect("committed");
        assert!(appended.index > last, "in the order of their submission");
        last = appended.last_index();
    }
    let empty = log.append(Bytes::new()).await.expect("an empty record is one");

    let bound = log.read_barrier().await.expect("barrier");
    assert_eq!(bound, empty.index + 1);
    let mut expected = vec!["one".to_owned(), "two".to_owned(), "three".to_owned()];
    expected.extend((0..100).map(|number| format!("ticket {number}")));
    expected.extend(["four".to_owned(), "five".to_owned(), String::new()]);
    assert_eq!(texts(&take(&mut tail, expected.len()).await), expected);
    for node in [None, Some(1), Some(2), Some(3)] {
        let read = eventually("the node to hold all", async || {
            let read = match node {
                Some(node) => log.read_from(node, first.index, 1 << 20).await,
                None => log.read(first.index, 1 << 20).await,
            };
            let records = read.expect("read");
            (records.len() == expected.len()).then_some(records)
        });
        assert_eq!(texts(&read.await), expected, "from {node:?}");
    }
    let some = log.read(batch.index, 1).await.expect("read");
    assert_eq!(texts(&some), ["two"], "at least one record, whatever the limit");

    let status = log.status().await.expect("status");
    assert_eq!((status.log.as_str(), status.role), (LOG, Role::Leader));
    assert_eq!((status.node_id, status.committed), (cluster.leader().await, bound));
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_makes_lists_and_deletes_logs_and_lists_members() {
    let cluster = Setup::new(3).steady().start_serving().await;
    let client = cluster.client_of(&[2]).await;
    let name = name("payments");
    let made = client.create_log(&name).await.expect("create");
    assert_eq!(made.name, name);
    let error = client.create_log(&name).await.expect_err("it exists");
    assert!(matches!(&error, AdminError::LogExists { name } if name == "payments"), "{error}");
    let names = async || {
        let logs = client.logs().await.expect("logs");
        logs.into_iter().map(|log| log.name.to_string()).collect::<Vec<_>>()
    };
    eventually("the node asked to list both", async || {
        let mut names = names().await;
        names.sort();
        (names == [LOG, "payments"]).then_some(())
    })
    .await;
    client.log(&name).append("x").await.expect("append");

    let to = *cluster
        .others(client.log(&name).status().await.expect("status").node_id)
        .first()
        .expect("others");
    client.transfer_leadership(Some(&name), to).await.expect("transfer");
    eventually("the other node to lead", async || {
        (client.log(&name).status().await.ok()?.node_id == to).then_some(())
    })
    .await;

    client.delete_log(&name).await.expect("delete");
    eventually("it to be gone", async || (names().await == [LOG]).then_some(())).await;
    let error = client.log(&name).append("x").await.expect_err("it is gone");
    assert!(matches!(&error, AppendError::UnknownLog { name } if name == "payments"), "{error}");

    let members = client.members().await.expect("members");
    let listed: Vec<_> = members.iter().map(|m| (m.member.id, m.voter)).collect();
    assert_eq!(listed, [(1, true), (2, true), (3, true)]);
    assert_eq!(members[1].member.client_addr, client_address(2));
    let statuses = client.statuses().await;
    assert_eq!(statuses.len(), 3);
    assert!(statuses.iter().all(|(_, answer)| answer.is_ok()), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_told_of_one_follower_finds_the_leader() {
    let cluster = Setup::new(3).steady().start_serving().await;
    let leader = cluster.leader().await;
    for follower in cluster.others(leader) {
        let log = cluster.client_of(&[follower]).await.log(&orders());
        log.append(format!("through {follower}")).await.expect("append");
        assert_eq!(log.status().await.expect("status").node_id, leader);
        let ticket = log.submit("a ticket").await.expect("submit");
        ticket.await.expect("committed");
    }
}

/// Appends numbered records one after the other, and notes those that were acknowledged.
async fn write(cluster: Arc<Cluster>, log: ClientLog, name: usize, over: Arc<AtomicBool>) -> u64 {
    let mut acknowledged = 0;
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let payload = Bytes::from(format!("{name} {number}"));
        match log.append(payload.clone()).await {
            Ok(appended) => {
                cluster.acknowledge(appended.index, payload);
                acknowledged += 1;
            }
            Err(error) => {
                let known = error.is_retryable() || error.outcome() == Outcome::Unknown;
                assert!(known, "{error}");
            }
        }
    }
    acknowledged
}

/// Writers that append until told to stop.
struct Writers {
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Writers {
    fn start(cluster: &Arc<Cluster>, log: &ClientLog, count: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let writer = |name| write(cluster.clone(), log.clone(), name, over.clone());
        let tasks = (0..count).map(|name| tokio::spawn(writer(name))).collect();
        Self { over, tasks }
    }

    /// Gives how many records were acknowledged.
    async fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let mut acknowledged = 0;
        for task in self.tasks {
            acknowledged += within("a writer to end", task).await.expect("no panic");
        }
        acknowledged
    }
}

/// Waits until the log has that many more entries than now, on one of these nodes.
async fn grows(cluster: &Cluster, ids: &[NodeId], by: u64) {
    let end = || ids.iter().map(|id| cluster.log(*id).watermarks().committed).max();
    let target = end().expect("nodes") + by;
    eventually("more records", async || (end() >= Some(target)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_a_subscription_go_on_when_the_leader_is_killed() {
    let cluster = Arc::new(Setup::new(3).start_serving().await);
    let log = cluster.client_log().await;
    let mut tail = log.subscribe(Start::Begin);
    let writers = Writers::start(&cluster, &log, 8);
    grows(&cluster, &[1, 2, 3], 200).await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    let killed = Instant::now();
    let others = cluster.others(leader);
    grows(&cluster, &others, 1).await;
    let took = killed.elapsed();
    grows(&cluster, &others, 200).await;
    cluster.start_serving(leader).await;
    grows(&cluster, &others, 200).await;
    let acknowledged = writers.stop().await;
    assert!(acknowledged > 400, "{acknowledged} acknowledged");
    // Lease and election last 600 ms at most; the rest is for a machine that others use too.
    assert!(took < Duration::from_secs(5), "{took:?}");

    let records = cluster.agree().await;
    let seen = take(&mut tail, records.len()).await;
    assert_eq!(seen, records, "the subscription misses and repeats nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_of_the_leader_loses_nothing_and_hands_over_at_once() {
    let slow = Duration::from_secs(20);
    let cluster = Setup::new(3).configure(move |config| {
        config.raft.election_timeout_min = slow;
        config.raft.election_timeout_max = slow * 2;
    });
    let cluster = Arc::new(cluster.start_serving().await);
    let log = cluster.client_log().await;
    let writers = Writers::start(&cluster, &log, 8);
    grows(&cluster, &[1, 2, 3], 200).await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let stopped = Instant::now();
    let others = cluster.others(leader);
    grows(&cluster, &others, 100).await;
    // Without a transfer it would take the lease and an election timeout.
    assert!(stopped.elapsed() < slow, "{:?}", stopped.elapsed());
    writers.stop().await;
    cluster.start_serving(leader).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_told_by_its_own_error_at_once() {
    let small = |setup: Setup| {
        setup.configure(|config| {
            config.limits.record_size_max = ByteCount::new(100_000);
            config.limits.batch_size_max = ByteCount::new(200_000);
            config.limits.batch_records_max = 10;
        })
    };
    let cluster = small(Setup::new(3).steady()).start_serving().await;
    let client = cluster.client().await;
    let log = client.log(&orders());

    let exact = Bytes::from(vec![b'x'; 100_000]);
    let at = log.append(exact.clone()).await.expect("a record of the limit fits").index;
    let read = log.read(at, 1).await.expect("and comes back");
    assert_eq!(read[0].payload, exact);
    let batch = log.append_batch(vec![exact.clone(); 2]).await.expect("so does a batch");
    assert_eq!(batch.count, 2);
    log.submit(exact).await.expect("submit").await.expect("committed");

    let error = log.append(vec![0; 100_001]).await.expect_err("one byte more");
    assert!(
        matches!(
            error,
            AppendError::TooLarge { what: Oversized::Record, size: 100_001, limit: 100_000 }
        ),
        "{error}"
    );
    let large = Bytes::from(vec![0; 70_000]);
    let error = log.append_batch(vec![large; 3]).await.expect_err("in all too large");
    assert!(matches!(error, AppendError::TooLarge { what: Oversized::Batch, .. }), "{error}");
    let error = log.append_batch(vec![Bytes::new(); 11]).await.expect_err("too many");
    assert_eq!(error.to_string(), "11 records are over the limit of 10 for one batch");
    let one = vec![Bytes::new(), Bytes::from(vec![0; 100_001])];
    let error = log.append_batch(one).await.expect_err("one of them");
    assert!(matches!(error, AppendError::TooLarge { what: Oversized::Record, .. }), "{error}");
    let error = log.append(vec![0; 64 << 20]).await.expect_err("more than a frame takes");
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    log.append("and the connection goes on").await.expect("append");

    let nobody = client.log(&name("nobody"));
    let began = Instant::now();
    let error = nobody.append("x").await.expect_err("there is no such log");
    assert!(matches!(&error, AppendError::UnknownLog { name } if name == "nobody"), "{error}");
    let error = nobody.read(0, 1).await.expect_err("there is no such log");
    assert!(matches!(&error, ReadError::UnknownLog { name } if name == "nobody"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let end = log.read_barrier().await.expect("barrier");
    assert!(log.read(end + 100, 1).await.expect("nothing is there yet").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_an_append_says_so_in_its_time() {
    let cluster = Setup::new(3).start_serving().await;
    let log = cluster.client_log().await;
    log.append("one").await.expect("append");
    let leader = cluster.leader().await;
    for id in cluster.others(leader) {
        cluster.kill(id);
    }
    let options = quorumlog::AppendOptions::default().with_timeout(Duration::from_secs(2));
    let began = Instant::now();
    let error = log.append_with("two", options).await.expect_err("there is no majority");
    let took = began.elapsed();
    assert!((Duration::from_millis(100)..Duration::from_secs(4)).contains(&took), "{took:?}");
    // The first one may have been taken in while the lease held.
    assert!(error.outcome() == Outcome::Unknown || error.is_retryable(), "{error}");
    let error = log.append_with("three", options).await.expect_err("there is no majority");
    assert!(matches!(error, AppendError::NoQuorum | AppendError::NotLeader { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotAppended);
    // What is committed can be read all the same.
    assert_eq!(texts(&log.read_from(leader, 0, 1 << 20).await.expect("read")), ["one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let cluster = Setup::new(1).start_serving().await;
    let log = cluster.client_log().await;
    let error = quorumlog::Node::open(cluster.config(1)).await.expect_err("it is in use");
    assert!(matches!(error, OpenError::Storage(StorageError::Locked { .. })), "{error}");
    log.append("still here").await.expect("append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_does_not_read_takes_little_and_misses_nothing() {
    const RECORDS: usize = 512;
    let cluster = Setup::new(3).steady().start_serving().await;
    let log = cluster.client_log().await;
    log.append("first").await.expect("append");
    let counting = Counting::new(&cluster);
    let config = ClientConfig::new([client_address(1)]);
    let client = Client::connect_over(Arc::new(counting.clone()), config).await.expect("connect");
    let slow_log = client.log(&orders());
    let mut slow = slow_log.subscribe(Start::Begin);
    assert_eq!(texts(&take(&mut slow, 1).await), ["first"]);

    let payload = Bytes::from(vec![7; 64 << 10]);
    let mut tickets = Vec::new();
    for _ in 0..RECORDS {
        tickets.push(log.submit(payload.clone()).await.expect("submit"));
    }
    for ticket in tickets {
        within("a commit", ticket).await.expect("committed");
    }
    // Another stream is not held up, and when it is through the slow one was sent all that it may be.
    let mut quick = log.subscribe(Start::Begin);
    assert_eq!(take(&mut quick, RECORDS + 1).await.len(), RECORDS + 1);
    let received = counting.received();
    assert!(received < 4 << 20, "{received} bytes were sent to who does not read");
    // Requests on the slow one's connection go on.
    slow_log.append("second").await.expect("append");
    let late = take(&mut slow, RECORDS + 1).await;
    assert!(late[..RECORDS].iter().all(|record| record.payload == payload));
    assert_eq!(late[RECORDS].payload, "second");
}

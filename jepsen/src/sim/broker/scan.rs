//! Once all is calm, everything that the brokers hold is read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ledger::{FinalQueue, QueueName};
use super::message::{Message, decode};
use super::wire::{Connection, Frame, answer, code};
use super::{Caller, GROUP_PREFIX, TOPICS, dead_topic, judge, retry_topic};
use crate::sim::cluster::Cluster;
use crate::sim::heal::wait;
use crate::sim::random::Random;

/// How long that may take.
const LIMIT_MS: u64 = 20_000;
const PAUSE: Duration = Duration::from_millis(10);
/// Before all is read again.
const AGAIN: Duration = Duration::from_millis(400);
const DELAY_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
const HOST: &str = "reader";

/// Reads all queues.
pub(crate) fn scan(cluster: &mut Cluster) {
    let done = Arc::new(AtomicBool::new(false));
    let (shared, network, end) =
        (Arc::clone(&cluster.shared), cluster.network.clone(), Arc::clone(&done));
    cluster.world.start(HOST, move || {
        let caller = Caller { number: 0, transport: network.transport(HOST), shared };
        let random = Random::of(caller.shared.profile.seed, "broker scan");
        async move {
            read_all(&caller, random).await;
            end.store(true, Ordering::Relaxed);
            Ok(())
        }
    });
    if !wait(cluster, LIMIT_MS, |_| done.load(Ordering::Relaxed)) {
        let detail = "not all queues could be read in the end".to_owned();
        cluster.shared.breach("broker-scan", detail);
    }
}

/// Reads until all messages that wait for their time were delivered.
async fn read_all(caller: &Caller, mut random: Random) {
    loop {
        for name in names(caller) {
            let read = read_queue(caller, &name, &mut random).await;
            caller.shared.broker.facts().in_the_end.insert(name, read);
        }
        if !judge::awaits(&caller.shared) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The queues that messages are in.
fn names(caller: &Caller) -> Vec<QueueName> {
    let profile = &caller.shared.profile;
    let of_producers = |topic: &str| (topic.to_owned(), caller.queues_of(topic));
    let mut topics: Vec<(String, u32)> = TOPICS.map(of_producers).into();
    // Those that wait for their time, by the levels that clients ask for.
    topics.push((DELAY_TOPIC.to_owned(), 2));
    for group in (1..=profile.clients).map(|client| format!("{GROUP_PREFIX}{client}")) {
        topics.extend([(retry_topic(&group), 1), (dead_topic(&group), 1)]);
    }
    let queues = topics
        .into_iter()
        .flat_map(|(topic, queues)| (0..queues).map(move |queue| (topic.clone(), queue)));
    let queues: Vec<_> = queues.collect();
    let of_log = |log: u32| queues.iter().map(move |(topic, queue)| (log, topic.clone(), *queue));
    (0..profile.logs as u32).flat_map(of_log).collect()
}

/// A connection through some node, and requests that are repeated until they are done.
struct Reader<'a> {
    caller: &'a Caller,
    connection: Option<Connection>,
    log: u32,
}

impl Reader<'_> {
    /// Asks until the answer is one of `wanted`.
    async fn ask(
        &mut self,
        code: i32,
        fields: &[(&str, &str)],
        wanted: &[i64],
        random: &mut Random,
    ) -> Frame {
        loop {
            if let Some(connection) = &mut self.connection {
                match connection.call(code, fields, b"").await {
                    Some(frame) if wanted.contains(&frame.code) => return frame,
                    Some(_) => {}
                    None => self.connection = None,
                }
            }
            tokio::time::sleep(PAUSE).await;
            if self.connection.is_none() || random.percent(30) {
                self.connection = self.caller.connect(self.log, random).await;
            }
        }
    }
}

/// Reads a queue from end to end.
async fn read_queue(caller: &Caller, name: &QueueName, random: &mut Random) -> FinalQueue {
    let (log, topic, queue) = name;
    let mut reader = Reader { caller, connection: None, log: *log };
    let queue = queue.to_string();
    let of_queue = [("topic", topic.as_str()), ("queueId", queue.as_str())];
    let ends = [answer::OK, answer::NO_TOPIC];
    let max = reader.ask(code::MAX_OFFSET, &of_queue, &ends, random).await;
    let Some(max) = max.number("offset").and_then(|offset| u64::try_from(offset).ok()) else {
        return FinalQueue::default();
    };
    let mut read = FinalQueue { min: 0, max, messages: Vec::new() };
    let mut from = 0;
    while from < max {
        let offset = from.to_string();
        let fields = pull_fields("readers", topic, &queue, &offset);
        let wanted = [answer::OK, answer::OFFSET_MOVED, answer::PULL_NOT_FOUND, answer::PULL_AGAIN];
        let frame = reader.ask(code::PULL, &fields, &wanted, random).await;
        let next = frame.number("nextBeginOffset").and_then(|next| u64::try_from(next).ok());
        // Retention goes on meanwhile: what was read before may be gone by now.
        if let Some(next) = next.filter(|next| frame.code == answer::OFFSET_MOVED && *next > from) {
            read.messages.clear();
            (read.min, from) = (next, next);
            continue;
        }
        let messages = take(caller, *log, &frame);
        if let (Some(first), Some(last)) = (messages.first(), messages.last()) {
            // What the log held when the pull was looked up, and not any more when it was read.
            if first.offset > from {
                read.messages.clear();
                read.min = first.offset;
            }
            from = last.offset + 1;
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        read.messages.extend(messages);
    }
    // Deliveries go on meanwhile.
    read.max = max.max(from);
    read
}

/// The messages of a pull, each of which is noted.
pub(super) fn take(caller: &Caller, log: u32, frame: &Frame) -> Vec<Message> {
    let messages = match decode(&frame.body) {
        Ok(messages) => messages,
        Err(what) => {
            caller.shared.breach("bad-message", what);
            Vec::new()
        }
    };
    for message in &messages {
        let seen = caller.shared.broker.facts().sees(log, message);
        if let Err(what) = seen {
            caller.shared.breach("offset-changed", what);
        }
    }
    messages
}

/// A pull that does not wait.
pub(super) fn pull_fields<'a>(
    group: &'a str,
    topic: &'a str,
    queue: &'a str,
    from: &'a str,
) -> [(&'static str, &'a str); 11] {
    [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", queue),
        ("queueOffset", from),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ]
}

//! Pulls: what is there at once, or as soon as something comes.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::clients::{Clients, check_expression, tags_of};
use crate::limits::PULL_BYTES_MAX;
use crate::log::{ConsumeOffsets, LogBroker, Part, Replica, Throughput, Topics};
use crate::mutant::Mutant;
use crate::net::{Connection, PendingRequest};
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply, Room};
use crate::request::{Failure, check_group};
use crate::state::{Entry, Lost, Shared};

const COMMIT_OFFSET: i32 = 1;
const SUSPEND: i32 = 2;
const SUBSCRIPTION: i32 = 4;

/// Messages in one answer.
const MESSAGES_MAX: i32 = 1024;
/// Entries that are looked at for one answer when few of them are wanted.
const LOOKED_AT_MAX: usize = 16_384;
/// Looks for one answer. A client pulls again then: what one request costs does not depend on how long the queue is.
const LOOKS_MAX: u32 = 4;
/// Longest wait that a client can ask for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a client asks for.
struct Pull {
    topic: String,
    queue: u32,
    /// As it was asked for; below zero is before every beginning.
    from: i64,
    count: usize,
    wait: Duration,
    /// In their order; empty for all.
    tags: Box<[i32]>,
}

impl Pull {
    /// True if a message with these tags is wanted.
    fn wants(&self, tags: i32) -> bool {
        self.tags.is_empty() || self.tags.binary_search(&tags).is_ok()
    }

    /// Bytes beside its own: its topic is also among those that are waited for.
    fn bytes(&self) -> usize {
        2 * self.topic.len() + size_of_val(&*self.tags)
    }
}

/// How long a pull waits for messages.
pub(crate) fn wait_of(command: &Command) -> Duration {
    let fields = &command.head.fields;
    if fields.int_or("sysFlag", 0).unwrap_or(0) & SUSPEND == 0 {
        return Duration::ZERO;
    }
    let wait = fields.number_or("suspendTimeoutMillis", 0).unwrap_or(0);
    Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(WAIT_MAX)
}

/// What a look at the queue found.
struct Found {
    min: u64,
    max: u64,
    /// Where to go on, if none of what was looked at is wanted.
    next: u64,
    entries: Vec<Entry>,
}

fn look(shared: &Shared, pull: &Pull, from: u64) -> Result<Found, Lost> {
    // With a filter, many are looked at for few.
    let count = if pull.tags.is_empty() { pull.count } else { LOOKED_AT_MAX };
    let mut looked_at = 0;
    let mut found = Found { min: 0, max: 0, next: from, entries: Vec::new() };
    loop {
        let slice = shared.slice(&pull.topic, pull.queue, found.next, count - looked_at)?;
        (found.min, found.max) = (slice.min, slice.max);
        let Some(last) = slice.entries.last() else { return Ok(found) };
        let end = last.offset + 1;
        looked_at += slice.entries.len();
        for entry in slice.entries {
            if found.entries.len() == pull.count {
                return Ok(found);
            }
            found.next = entry.offset + 1;
            if pull.wants(entry.tags) {
                found.entries.push(entry);
            }
        }
        if found.entries.len() == pull.count || looked_at >= count || end >= found.max {
            return Ok(found);
        }
    }
}

/// All four fields are in every answer, or clients fail.
fn reply(code: i32, found: &Found, next: impl Display) -> Reply {
    Reply { code, ..Reply::default() }
        .with("suggestWhichBrokerId", 0)
        .with("nextBeginOffset", next)
        .with("minOffset", found.min)
        .with("maxOffset", found.max)
}

/// What a pull may touch.
pub(super) struct Puller<'a> {
    replica: &'a Replica,
    topics: &'a Topics,
    clients: &'a Clients,
    consumed: &'a ConsumeOffsets,
    throughput: &'a Throughput,
}

impl<'a> Puller<'a> {
    pub(super) fn of(broker: &'a LogBroker) -> Self {
        Self {
            replica: &broker.replica,
            topics: &broker.topics,
            clients: &broker.clients,
            consumed: &broker.consumed,
            throughput: &broker.throughput,
        }
    }

    fn read_pull(&self, command: &Command) -> Result<Pull, Failure> {
        let fields = &command.head.fields;
        let (group, topic) = (fields.text("consumerGroup")?, fields.text("topic")?);
        check_group(group)?;
        let (queue, flags) = (fields.int("queueId")?, fields.int("sysFlag")?);
        let illegal = |what: &str, value: i64| {
            Failure::refused(response::INVALID_PARAMETER, format!("{what}[{value}] is illegal"))
        };
        let queue = u32::try_from(queue).map_err(|_| illegal("queueId", queue.into()))?;
        self.topics.check_readable(topic, queue)?;
        let from = fields.number("queueOffset")?;
        let version = fields.number_or("subVersion", 0)?;
        // A pull is served with the subscription that it carries; else with the one that its client's heartbeat
        // had, if that is the same; else with everything, since clients look at the tags again.
        let carried = fields.get("subscription").filter(|_| flags & SUBSCRIPTION != 0);
        let tags = match carried {
            Some(expression) if fields.get("expressionType").is_none_or(|kind| kind == "TAG") => {
                check_expression(expression)?;
                tags_of(expression)
            }
            Some(_) => {
                return Err(Failure::refused(
                    response::SYSTEM_ERROR,
                    "only tags can be filtered by",
                ));
            }
            None => {
                let held = self.clients.subscription(group, topic);
                held.filter(|held| held.version == version)
                    .map(|held| held.tags)
                    .unwrap_or_default()
            }
        };
        if flags & COMMIT_OFFSET != 0
            && let Ok(offset) = u64::try_from(fields.number_or("commitOffset", -1)?)
        {
            let key = (group.to_owned(), topic.to_owned(), queue);
            self.consumed.note_pulled(self.topics, key, offset);
        }
        fields.number_or("suspendTimeoutMillis", 0)?;
        Ok(Pull {
            topic: topic.to_owned(),
            queue,
            from,
            count: usize::try_from(fields.int("maxMsgNums")?.clamp(1, MESSAGES_MAX)).unwrap_or(1),
            wait: wait_of(command),
            tags: tags.into_iter().collect(),
        })
    }

    pub(super) async fn pull(
        &self,
        connection: &Connection,
        request: &mut PendingRequest,
    ) -> Result<Reply, Failure> {
        let pull = self.read_pull(&request.command)?;
        match self.look_until_found(connection, request, &pull).await {
            // Nobody can be asked in its name any more.
            Err(Failure::Moved) if request.is_shed() => {
                Ok(self.retry(&pull.topic, pull.queue, pull.from))
            }
            done => done,
        }
    }

    async fn look_until_found(
        &self,
        connection: &Connection,
        request: &mut PendingRequest,
        pull: &Pull,
    ) -> Result<Reply, Failure> {
        let shared = self.replica.shared()?;
        let deadline = Instant::now() + pull.wait;
        let arrivals = shared.arrivals.wait_for(&pull.topic, pull.queue);
        let mut parts = self.replica.part.subscribe();
        let (number, since) = {
            let state = shared.state();
            (shared.number(), state.topic_since(&pull.topic))
        };
        let first = u64::try_from(pull.from).ok();
        let mut from = first.unwrap_or(0);
        let answers = connection.out().share();
        let mut room = None;
        let mut looks = 0;
        loop {
            let mut arrival = std::pin::pin!(arrivals.notified());
            // Registered before the look, or what comes in between would be missed.
            arrival.as_mut().enable();
            let looked = self.replica.indexed(|shared| look(shared, pull, from)).await;
            if shared.number() != number {
                // The log went back: what is there now is not all, and nothing that it was asked for.
                return Err(Failure::Moved);
            }
            let found = looked?;
            if since.is_some() && shared.state().topic_since(&pull.topic) != since {
                // It was deleted. Another one of that name has other messages, and its own pulls.
                return Err(Failure::no_topic(&pull.topic));
            }
            if first.is_none() || from < found.min {
                return Ok(reply(response::PULL_OFFSET_MOVED, &found, found.min));
            }
            if from > found.max {
                return Ok(reply(response::PULL_OFFSET_MOVED, &found, found.max));
            }
            if !found.entries.is_empty() {
                if let Some(room) = room.or_else(|| answers.try_reserve(PULL_BYTES_MAX)) {
                    let reply = self.found(connection, request, pull, &found, room).await;
                    // The messages may be others than those that were found.
                    return if shared.number() == number { reply } else { Err(Failure::Moved) };
                }
                drop(found);
                request.park(connection, pull.bytes())?;
                room = Some(answers.reserve(PULL_BYTES_MAX).await);
                continue;
            }
            room = None;
            from = found.next;
            if from < found.max {
                // More to look at, but not at the cost of others.
                looks += 1;
                if looks == LOOKS_MAX && !Mutant::PullLooksAtAll.is_active() {
                    return Ok(reply(response::PULL_RETRY_IMMEDIATELY, &found, from));
                }
                tokio::task::yield_now().await;
                continue;
            }
            if Instant::now() < deadline {
                request.park(connection, pull.bytes())?;
            }
            let moved = parts.wait_for(|part| *part != Part::Leads);
            tokio::select! {
                () = arrival => {}
                _ = moved => return Err(Failure::Moved),
                () = tokio::time::sleep_until(deadline) => {
                    let skipped = Some(from) != first;
                    let code = if skipped { response::PULL_RETRY_IMMEDIATELY } else { response::PULL_NOT_FOUND };
                    tracing::trace!(topic = pull.topic, "a pull found nothing");
                    return Ok(reply(code, &found, from));
                }
            }
        }
    }

    async fn found(
        &self,
        connection: &Connection,
        request: &mut PendingRequest,
        pull: &Pull,
        found: &Found,
        mut room: Room,
    ) -> Result<Reply, Failure> {
        let (mut chunks, mut done) = self.replica.chunks(&found.entries, PULL_BYTES_MAX).await?;
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        if bytes > room.bytes() {
            // One message that is larger than all that an answer usually holds. It is read again once there is room.
            drop(chunks);
            request.park(connection, pull.bytes())?;
            room.exchange_for_answer(bytes).await;
            (chunks, done) = self.replica.chunks(&found.entries, PULL_BYTES_MAX).await?;
        }
        let next = found.entries.get(done).map_or(found.next, |left| left.offset);
        if chunks.is_empty() {
            return Ok(reply(response::PULL_RETRY_IMMEDIATELY, found, next));
        }
        self.throughput.gave(chunks.len() / 2);
        let mut reply = reply(response::SUCCESS, found, next);
        reply.body = chunks;
        Ok(reply)
    }

    /// Has a client pull again at once that waits for messages, since another node may lead by now. What it asked for is
    /// not there any more, so nobody can be asked in its name.
    fn retry(&self, topic: &str, queue: u32, from: i64) -> Reply {
        let min = self.replica.begin_of(topic, queue).unwrap_or(0);
        let max = self.replica.end_of(topic, queue).unwrap_or(0);
        let found = Found { min, max, next: 0, entries: Vec::new() };
        reply(response::PULL_RETRY_IMMEDIATELY, &found, from)
    }

    /// `retry` for a pull that another node was asked to serve; `command` has the fields `PULL_AGAIN`.
    pub(super) fn pull_again(&self, command: &Command) -> Reply {
        let fields = &command.head.fields;
        let queue = fields.int("queueId").ok().and_then(|queue| u32::try_from(queue).ok());
        let (topic, from) = (fields.text("topic"), fields.number("queueOffset"));
        match (topic, queue, from) {
            (Ok(topic), Some(queue), Ok(from)) => self.retry(topic, queue, from),
            // The leader would have refused it.
            _ => Failure::Moved.into_reply(),
        }
    }
}

//! Consumers. Each client is the only member of its group. It pulls, notes how far it is, asks where to begin, and hands
//! messages back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::ledger::{HandedBack, QueueName, Returned};
use super::message::Message;
use super::scan::{pull_fields, take};
use super::wire::{Connection, PATIENCE, answer, code};
use super::{Caller, GROUP_PREFIX, QUEUES, TOPICS, begins, retry_topic};
use crate::sim::random::Random;

const PAUSE: Duration = Duration::from_millis(10);
/// How often a message is tried again before it is a dead letter.
pub(super) const TRIES_AGAIN: u32 = 1;
/// Of 100 messages, so many are handed back.
const HANDED_BACK: u64 = 4;

/// How far a group is in one queue.
#[derive(Debug, Default)]
struct Progress {
    position: u64,
    /// The last offset that was reported and answered as noted.
    noted: Option<u64>,
    /// Reported since, with an answer that does not say whether it was noted.
    since: Vec<u64>,
    /// Reported at any time and never answered: a node may still hold the report, and pass it on late. Stock clients repair
    /// that with their next report.
    unanswered: Vec<u64>,
    /// Where the group was moved to, until it has asked where it is: what it reports until then is passed over.
    moved: Option<u64>,
}

impl Progress {
    fn note(&mut self, offset: u64) {
        self.noted = Some(offset);
        self.since.clear();
    }

    /// True if the group may be here by what was reported.
    fn may_be(&self, offset: u64) -> bool {
        self.noted.is_none_or(|noted| noted == offset)
            || self.since.contains(&offset)
            || self.unanswered.contains(&offset)
            || self.moved == Some(offset)
    }
}

struct Consumer {
    caller: Caller,
    group: String,
    random: Random,
    connections: BTreeMap<u32, Connection>,
    progress: BTreeMap<QueueName, Progress>,
}

/// Consumes until it is time to stop.
pub(super) async fn consume(caller: Caller, mut random: Random) {
    let shared = caller.shared.clone();
    let _busy = shared.begin_work();
    let group = format!("{GROUP_PREFIX}{}", caller.number);
    let mut progress = BTreeMap::new();
    for log in 0..shared.profile.logs as u32 {
        for (topic, queue) in
            TOPICS.into_iter().flat_map(|topic| (0..QUEUES).map(move |q| (topic, q)))
        {
            progress.insert((log, topic.to_owned(), queue), Progress::default());
        }
        progress.insert((log, retry_topic(&group), 0), Progress::default());
    }
    let names: Vec<QueueName> = progress.keys().cloned().collect();
    let started = random.next();
    let mut consumer = Consumer {
        caller,
        group,
        random: Random::new(started),
        connections: BTreeMap::new(),
        progress,
    };
    while !shared.is_stopping() {
        random.pause_ms(shared.profile.think_ms.clone()).await;
        let name = &names[random.below(names.len() as u64) as usize];
        let Some(mut connection) = consumer.connection(name.0).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let goes_on = match random.below(100) {
            0..75 => consumer.pull(&mut connection, name).await,
            75..88 => consumer.report(&mut connection, name).await,
            88..97 => consumer.ask(&mut connection, name).await,
            _ => consumer.reset(&mut connection, name).await,
        };
        if goes_on && !random.percent(5) {
            consumer.connections.insert(name.0, connection);
        }
    }
}

impl Consumer {
    async fn connection(&mut self, log: u32) -> Option<Connection> {
        match self.connections.remove(&log) {
            Some(connection) => Some(connection),
            None => self.caller.connect(log, &mut self.random).await,
        }
    }

    fn of(&mut self, name: &QueueName) -> &mut Progress {
        self.progress.entry(name.clone()).or_default()
    }

    /// It was sent on without these messages.
    fn skips(&self, name: &QueueName, range: Range<u64>) {
        let shared = &self.caller.shared;
        let begin = begins(shared).get(&name.0).copied().unwrap_or(0);
        shared.broker.facts().skipped.push((name.clone(), range, begin));
    }

    fn breach(&self, kind: &str, detail: String) {
        self.caller.shared.breach(kind, format!("{}: {detail}", self.group));
    }

    /// Pulls, and reports on the way how far it is. False if the connection is of no use any more.
    async fn pull(&mut self, connection: &mut Connection, name: &QueueName) -> bool {
        let (group, queue) = (self.group.clone(), name.2.to_string());
        let from = self.of(name).position;
        let offset = from.to_string();
        let (reports, waits) = (self.random.percent(40), self.random.percent(30));
        let flags = 4 + i32::from(reports) + if waits { 2 } else { 0 };
        let flags = flags.to_string();
        let mut fields = pull_fields(&group, &name.1, &queue, &offset);
        for (field, value) in &mut fields {
            match *field {
                "sysFlag" => *value = &flags,
                "commitOffset" => *value = &offset,
                "suspendTimeoutMillis" if waits => *value = "150",
                _ => {}
            }
        }
        let Some(frame) = connection.call(code::PULL, &fields, b"").await else {
            if reports {
                self.of(name).unanswered.push(from);
            }
            return false;
        };
        if reports {
            self.of(name).since.push(from);
        }
        let next = frame.number("nextBeginOffset").and_then(|next| u64::try_from(next).ok());
        match (frame.code, next) {
            (answer::OK, Some(next)) => {
                let messages = take(&self.caller, name.0, &frame);
                let offsets = messages.iter().map(|message| message.offset);
                // The first of them may be gone from the log, and with them all before: the judge looks whether they are.
                let first = messages.first().map_or(from, |message| message.offset);
                if first > from {
                    self.skips(name, from..first);
                }
                if first < from || !offsets.eq(first..next) {
                    let offsets: Vec<_> = messages.iter().map(|message| message.offset).collect();
                    let detail = format!("{name:?} from {from}: {offsets:?}, and then {next}");
                    self.breach("pull-skips", detail);
                }
                self.of(name).position = next;
                self.hand_back(connection, name, &messages).await
            }
            (answer::OFFSET_MOVED | answer::PULL_NOT_FOUND | answer::PULL_AGAIN, Some(next)) => {
                if next > from {
                    self.skips(name, from..next);
                }
                self.of(name).position = next;
                true
            }
            _ => true,
        }
    }

    /// Hands some messages back.
    async fn hand_back(
        &mut self,
        connection: &mut Connection,
        name: &QueueName,
        messages: &[Message],
    ) -> bool {
        for message in messages {
            let again = message.reconsumed > 0;
            let Some(id) = message.id.filter(|_| again || self.random.percent(HANDED_BACK)) else {
                continue;
            };
            // Once: what comes of a second time could not be told apart.
            let is_first = self.caller.shared.broker.facts().hands_back(
                HandedBack {
                    log: name.0,
                    group: self.group.clone(),
                    id,
                    times: message.reconsumed + 1,
                    is_dead: message.reconsumed >= TRIES_AGAIN,
                },
                self.caller.shared.now_ms(),
            );
            let Some(number) = is_first else { continue };
            let (physical, most) = (message.physical.to_string(), TRIES_AGAIN.to_string());
            let fields = [
                ("offset", physical.as_str()),
                ("group", self.group.as_str()),
                ("delayLevel", "1"),
                ("originMsgId", ""),
                ("originTopic", name.1.as_str()),
                ("unitMode", "false"),
                ("maxReconsumeTimes", most.as_str()),
            ];
            let told = connection.call(code::SEND_BACK, &fields, b"").await;
            let Some(frame) = told else { return false };
            let returned = match frame.code {
                answer::OK => Returned::Stored,
                answer::FLUSH_DISK_TIMEOUT
                | answer::SLAVE_NOT_AVAILABLE
                | answer::FLUSH_SLAVE_TIMEOUT => Returned::Unknown,
                _ => Returned::Refused,
            };
            self.caller.shared.broker.facts().returned[number].told = returned;
            if returned == Returned::Stored {
                self.caller.happened("handed-back");
            }
        }
        true
    }

    /// Reports how far it is, and waits until that is noted.
    async fn report(&mut self, connection: &mut Connection, name: &QueueName) -> bool {
        let (queue, position) = (name.2.to_string(), self.of(name).position);
        let offset = position.to_string();
        let fields = [
            ("consumerGroup", self.group.as_str()),
            ("topic", name.1.as_str()),
            ("queueId", queue.as_str()),
            ("commitOffset", offset.as_str()),
        ];
        let told = connection.call(code::UPDATE_OFFSET, &fields, b"").await;
        let progress = self.of(name);
        match told {
            Some(frame) if frame.code == answer::OK => progress.note(position),
            Some(_) => progress.since.push(position),
            None => {
                progress.unanswered.push(position);
                return false;
            }
        }
        true
    }

    /// Asks where to go on, as a consumer that starts.
    async fn ask(&mut self, connection: &mut Connection, name: &QueueName) -> bool {
        let queue = name.2.to_string();
        let fields = [
            ("consumerGroup", self.group.as_str()),
            ("topic", name.1.as_str()),
            ("queueId", queue.as_str()),
        ];
        let told = connection.call_for(PATIENCE, code::QUERY_OFFSET, &fields, b"").await;
        let Some(frame) = told else { return false };
        let offset = frame.number("offset").and_then(|offset| u64::try_from(offset).ok());
        let progress = self.of(name);
        match (frame.code, offset) {
            (answer::OK, Some(offset)) if progress.may_be(offset) => {
                // What was reported and passed over counts no more. A group that has noted nothing is told where a new one begins.
                progress.noted = progress.noted.and(Some(offset));
                (progress.position, progress.moved) = (offset, None);
            }
            (answer::OK | answer::QUERY_NOT_FOUND, offset) if progress.noted.is_some() => {
                let detail = format!("{name:?}: it is at {offset:?}, and reported {progress:?}");
                self.breach("offset-went-back", detail);
            }
            _ => {}
        }
        true
    }

    /// Has the group moved, and asks where it is then: only that is where it goes on. Before it asks, it may report where it
    /// was, as consumers do that have not heard of the reset.
    async fn reset(&mut self, connection: &mut Connection, name: &QueueName) -> bool {
        let queue = name.2.to_string();
        let (before, term) = (self.of(name).position, self.caller.term(name.0));
        let offset = self.random.below(before + 1);
        let target = offset.to_string();
        let fields = [
            ("topic", name.1.as_str()),
            ("group", self.group.as_str()),
            ("timestamp", "0"),
            ("isForce", "true"),
            ("queueId", queue.as_str()),
            ("offset", target.as_str()),
        ];
        let told = connection.call(code::RESET, &fields, b"").await;
        match told {
            Some(frame) if frame.code == answer::OK => {
                self.of(name).note(offset);
                self.of(name).moved = Some(offset);
                self.caller.happened("group-reset");
            }
            Some(_) => {
                self.of(name).since.push(offset);
                return true;
            }
            None => {
                self.of(name).unanswered.push(offset);
                return false;
            }
        }
        if self.random.percent(60) && !self.report(connection, name).await {
            return false;
        }
        if !self.ask(connection, name).await {
            return false;
        }
        let group = self.of(name);
        let has_asked = group.moved.is_none();
        let is_back = group.position == before && before != offset;
        // The leader's successor does not know what to pass over.
        if has_asked
            && is_back
            && !group.unanswered.contains(&before)
            && self.caller.term(name.0) == term
        {
            let detail = format!("{name:?}: moved to {offset}, and it is at {before} again");
            self.breach("reset-undone", detail);
        }
        true
    }
}

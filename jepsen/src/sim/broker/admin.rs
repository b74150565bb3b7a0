//! An administrator, who makes, grows and deletes topics while others send.
//!
//! It alone uses the topics that it deletes, one thing at a time, so it knows what must be there. A request whose outcome is
//! not known may still be done late: then it goes on with a topic of another name.

use std::collections::BTreeSet;
use std::time::Duration;

use super::message::{body, decode, properties};
use super::scan::pull_fields;
use super::wire::{Connection, answer, code};
use super::{Caller, GROWN, QUEUES, TOPICS, name_of};
use crate::sim::random::Random;

const PAUSE: Duration = Duration::from_millis(20);

/// The topic of now.
struct Passing {
    number: u64,
    /// None if it is not there.
    life: Option<BTreeSet<u64>>,
    /// It was made after the faults. Before, a leader that is cut off may not have heard of it, and says that it is not there.
    is_made_in_calm: bool,
    /// Messages of earlier lives.
    earlier: BTreeSet<u64>,
}

struct Administrator {
    caller: Caller,
    random: Random,
    topic: Passing,
}

/// Administers until it is time to stop.
pub(super) async fn administer(caller: Caller, random: Random) {
    let shared = caller.shared.clone();
    let _busy = shared.begin_work();
    let topic = Passing { number: 0, life: None, is_made_in_calm: false, earlier: BTreeSet::new() };
    let mut admin = Administrator { caller, random, topic };
    while !shared.is_stopping() {
        admin.random.pause_ms(shared.profile.think_ms.clone()).await;
        let log = admin.random.below(shared.profile.logs) as u32;
        let Some(mut connection) = admin.caller.connect(log, &mut admin.random).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        for _ in 0..6 {
            let goes_on = match (admin.random.below(100), admin.topic.life.is_some()) {
                (0..4, _) => admin.grow(&mut connection).await,
                (_, false) => match admin.random.percent(40) {
                    true => admin.make(&mut connection).await,
                    false => admin.send(&mut connection, log).await,
                },
                (4..25, true) => admin.delete(&mut connection).await,
                (25..50, true) => admin.read(&mut connection, log).await,
                (_, true) => admin.send(&mut connection, log).await,
            };
            if !goes_on || shared.is_stopping() {
                break;
            }
        }
    }
}

fn topic_fields<'a>(topic: &'a str, queues: &'a str) -> [(&'static str, &'a str); 4] {
    [("topic", topic), ("readQueueNums", queues), ("writeQueueNums", queues), ("perm", "6")]
}

impl Administrator {
    fn name(&self) -> String {
        format!("passing-{}", self.topic.number)
    }

    fn breach(&self, kind: &str, detail: String) {
        self.caller.shared.breach(kind, format!("{}: {detail}", self.name()));
    }

    /// Nobody knows what was done, or will be: goes on with another topic.
    fn turn_away(&mut self) {
        let number = self.topic.number + 1;
        let earlier = BTreeSet::new();
        self.topic = Passing { number, life: None, is_made_in_calm: false, earlier };
    }

    async fn make(&mut self, connection: &mut Connection) -> bool {
        let (name, is_calm) = (self.name(), self.caller.shared.is_healed());
        let told = connection.call(code::PUT_TOPIC, &topic_fields(&name, "1"), b"").await;
        match &told {
            Some(frame) if frame.code == answer::OK => {
                self.topic.life = Some(BTreeSet::new());
                self.topic.is_made_in_calm = is_calm;
            }
            _ => self.turn_away(),
        }
        told.is_some()
    }

    async fn delete(&mut self, connection: &mut Connection) -> bool {
        let name = self.name();
        let told = connection.call(code::DELETE_TOPIC, &[("topic", &name)], b"").await;
        match &told {
            Some(frame) if frame.code == answer::OK => {
                let life = self.topic.life.take().unwrap_or_default();
                self.topic.earlier.extend(life);
                self.caller.happened("topic-deleted");
            }
            _ => self.turn_away(),
        }
        told.is_some()
    }

    /// A deleted topic takes nothing, in any log; one that was made is there in all of them.
    async fn send(&mut self, connection: &mut Connection, log: u32) -> bool {
        let (name, broker) = (self.name(), name_of(log));
        let id = self.caller.shared.broker.facts().next_id();
        let key = format!("U{id}");
        let named = properties(&[("UNIQ_KEY", &key)]);
        let fields = [
            ("a", "administrators"),
            ("b", name.as_str()),
            ("c", ""),
            ("d", "1"),
            ("e", "0"),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", named.as_str()),
            ("j", "0"),
            ("k", "false"),
            ("l", "16"),
            ("m", "false"),
            ("n", broker.as_str()),
        ];
        let told = connection.call(code::SEND, &fields, &body(id, 10)).await;
        let code = told.as_ref().map(|frame| frame.code);
        match (&mut self.topic.life, code) {
            (Some(life), Some(answer::OK)) => drop(life.insert(id)),
            (Some(_), Some(answer::NO_TOPIC)) if self.topic.is_made_in_calm => {
                self.breach("topic-lost", format!("log {log} does not have it: {told:?}"));
            }
            // It may be stored.
            (Some(life), _) => drop(life.insert(id)),
            (None, Some(answer::OK)) => {
                self.breach("topic-revived", format!("it is not there, and log {log} stores {id}"));
            }
            (None, _) => {}
        }
        told.is_some()
    }

    /// Nothing of an earlier life is there, and nothing that nobody sent.
    async fn read(&mut self, connection: &mut Connection, log: u32) -> bool {
        let name = self.name();
        let fields = pull_fields("administrators", &name, "0", "0");
        let told = connection.call(code::PULL, &fields, b"").await;
        let Some(frame) = told else { return false };
        if frame.code != answer::OK {
            return true;
        }
        let Some(life) = &self.topic.life else { return true };
        for message in decode(&frame.body).unwrap_or_default() {
            if message.id.is_none_or(|id| !life.contains(&id)) {
                let earlier = message.id.is_some_and(|id| self.topic.earlier.contains(&id));
                let kind = if earlier { "topic-keeps-messages" } else { "nobody-sent" };
                self.breach(kind, format!("log {log}: {message:?}"));
            }
        }
        true
    }

    /// Gives one of the producers' topics more queues.
    async fn grow(&mut self, connection: &mut Connection) -> bool {
        let queues = (QUEUES + GROWN).to_string();
        let told = connection.call(code::PUT_TOPIC, &topic_fields(TOPICS[0], &queues), b"").await;
        if told.as_ref().is_some_and(|frame| frame.code == answer::OK) {
            self.caller.shared.broker.facts().has_grown = true;
            self.caller.happened("topic-grown");
        }
        told.is_some()
    }
}

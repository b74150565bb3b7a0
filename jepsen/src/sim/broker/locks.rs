//! Consumers that take messages in order: they lock queues, renew their locks and give them up.
//!
//! A lock lasts for 60 s of elapsed time, which is longer than a run. So from the answer to a lock until the owner asks to give
//! it up nobody else may own the queue, whatever the clocks of the nodes show and whoever leads.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::ledger::QueueName;
use super::wire::{Connection, answer, code};
use super::{Caller, QUEUES, TOPICS, name_of};
use crate::sim::random::Random;

const GROUP: &str = "in-order";
const PAUSE: Duration = Duration::from_millis(10);

struct Owner {
    caller: Caller,
    /// How often it took another name.
    names: u64,
    owns: BTreeSet<QueueName>,
    random: Random,
}

/// Locks and unlocks until it is time to stop.
pub(super) async fn lock(caller: Caller, random: Random) {
    let shared = caller.shared.clone();
    let _busy = shared.begin_work();
    let mut owner = Owner { caller, names: 0, owns: BTreeSet::new(), random };
    while !shared.is_stopping() {
        owner.random.pause_ms(shared.profile.think_ms.clone()).await;
        let log = owner.random.below(shared.profile.logs) as u32;
        let Some(mut connection) = owner.caller.connect(log, &mut owner.random).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        for _ in 0..4 {
            let topic = owner.random.pick(&TOPICS).to_owned();
            let name = (log, topic, owner.random.below(QUEUES.into()) as u32);
            let gives_up = owner.owns.contains(&name) && owner.random.percent(60);
            let goes_on = match gives_up {
                true => owner.unlock(&mut connection, &name).await,
                false => owner.lock(&mut connection, &name).await,
            };
            if !goes_on || shared.is_stopping() {
                break;
            }
        }
    }
}

impl Owner {
    fn id(&self) -> String {
        format!("client-{}.{}", self.caller.number, self.names)
    }

    fn body(&self, (log, topic, queue): &QueueName) -> Vec<u8> {
        let queue = json!({ "topic": topic, "brokerName": name_of(*log), "queueId": queue });
        let body = json!({ "consumerGroup": GROUP, "clientId": self.id(), "mqSet": [queue] });
        body.to_string().into_bytes()
    }

    /// Locks a queue, or renews its lock. False if the connection is of no use any more.
    async fn lock(&mut self, connection: &mut Connection, name: &QueueName) -> bool {
        let told = connection.call(code::LOCK, &[], &self.body(name)).await;
        let Some(frame) = told else { return false };
        if frame.code != answer::OK {
            return true;
        }
        let body: Value = serde_json::from_slice(&frame.body).unwrap_or_default();
        let granted = body["lockOKMQSet"].as_array().is_some_and(|locked| !locked.is_empty());
        let (id, shared) = (self.id(), &self.caller.shared);
        let mut facts = shared.broker.facts();
        let owner = facts.owners.get(name).cloned();
        let detail = format!("{name:?}: {id} asks, {owner:?} owns it, and the answer is {body}");
        let breach = match (granted, owner) {
            (true, Some(owner)) if owner != id => Some("two-owners"),
            (false, Some(owner)) if owner == id => Some("lock-lost"),
            _ => None,
        };
        if granted {
            facts.owners.insert(name.clone(), id);
            self.owns.insert(name.clone());
        }
        drop(facts);
        if granted {
            self.caller.happened("queue-locked");
        }
        if let Some(kind) = breach {
            shared.breach(kind, detail);
        }
        true
    }

    /// Gives a lock up. If it is not known whether that was done, the request may still come late: then this client goes on
    /// under another name, and gives up all that it owns.
    async fn unlock(&mut self, connection: &mut Connection, name: &QueueName) -> bool {
        self.disown(name);
        let told = connection.call(code::UNLOCK, &[], &self.body(name)).await;
        let done = told.as_ref().is_some_and(|frame| frame.code == answer::OK);
        if !done {
            for name in std::mem::take(&mut self.owns) {
                self.disown(&name);
            }
            self.names += 1;
        }
        told.is_some()
    }

    fn disown(&mut self, name: &QueueName) {
        self.owns.remove(name);
        self.caller.shared.broker.facts().owners.remove(name);
    }
}

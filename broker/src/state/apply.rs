//! What each record does to the state.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use quorumlog::ApplyError;

use super::State;
use super::command::{
    Answer, Change, Deliver, DeliverAll, Payload, Placed, Refusal, ReportedOffset,
};
use super::index::index_files::IndexFiles;
use super::index::keys::{Key, hash_of};
use super::name::bounded;
use super::offsets::check_name;
use super::queue::{index_of, physical};
use super::recent::Digest;
use super::rules::Rules;
use super::topics::topic_names::is_made_on_demand;
use super::topics::{DEAD_DELAYED_TOPIC, DELAY_TOPIC, LEVELS, TopicConfig};
use crate::limits::{ADDR_BYTES_MAX, NODES_MAX, STORED_TOPIC_BYTES_MAX};
use crate::mutant::Mutant;
use crate::record::{Message, Outline, Properties, java_hash, names};

/// Is told the topic and the queue of each message that came, for those who wait.
pub(super) type Arrived<'a> = dyn FnMut(&str, u32) + 'a;

/// What a message's place depends on. Every node reads it of every message: nothing is copied.
pub(super) struct Incoming<'a> {
    pub(super) topic: Cow<'a, str>,
    /// The topic as the message has it, whatever the length of its name.
    written: &'a str,
    /// The topic that it was sent to: another one while it is delayed.
    meant: &'a str,
    pub(super) queue: u32,
    pub(super) tags: i32,
    stored_ms: i64,
    key: Option<&'a str>,
    /// Its other keys, with spaces between.
    others: &'a str,
}

/// A record of which this build does not know what it means. To skip it would leave this node with another state than
/// those that know.
fn newer(index: u64, what: impl std::fmt::Display) -> ApplyError {
    ApplyError::NewerBuild { detail: format!("record {index}: {what}") }
}

impl<'a> Incoming<'a> {
    pub(super) fn read(record: &'a [u8]) -> Result<Self, Refusal> {
        let outline = Message::outline(record);
        let Outline { topic, queue, stored_ms, properties } =
            outline.map_err(|error| Refusal::NotUnderstood(error.to_string()))?;
        let tags = Properties::find(properties, names::TAGS);
        let tags = tags.filter(|tags| !tags.is_empty()).map_or(0, java_hash);
        let no_queue = || Refusal::NoQueue(topic.to_owned(), queue);
        let queue = u32::try_from(queue).map_err(|_| no_queue())?;
        let key = Properties::find(properties, names::UNIQUE_KEY);
        let others = Properties::find(properties, names::KEYS).unwrap_or_default();
        let meant = if topic == DELAY_TOPIC && !Mutant::DelayedKeysOutliveTopic.is_active() {
            Properties::find(properties, names::REAL_TOPIC)
        } else {
            None
        };
        let meant = meant.unwrap_or(topic);
        let written = topic;
        let topic = bounded(topic);
        Ok(Self { topic, written, meant, queue, tags, stored_ms, key, others })
    }

    /// What the index has of its keys, once it is known where it lies.
    pub(super) fn keys_at(&self, physical: u64) -> impl Iterator<Item = Key> {
        let others = self.others.split(' ').filter(|key| !key.is_empty());
        let keys = self.key.into_iter().chain(others);
        keys.map(move |key| Key::new(hash_of(self.written, key), self.stored_ms, physical))
    }
}

impl State {
    /// Applies the record at `index`. Tells `arrived` of each message.
    ///
    /// # Errors
    /// It was written by a newer build, and changed nothing.
    pub(super) fn apply(
        &mut self,
        index: u64,
        payload: Bytes,
        files: &IndexFiles,
        arrived: &mut Arrived<'_>,
    ) -> Result<Answer, ApplyError> {
        let payload = match Payload::decode(payload) {
            Ok(payload) => payload,
            Err(error) => return self.not_understood(index, error.to_string()),
        };
        if self.rules >= Rules::Version4
            && payload.messages().iter().any(|message| !Message::has_known_layout(message))
        {
            return self.not_understood(index, "a message of another layout".to_owned());
        }
        match Rules::needed_by(&payload) {
            Some(rules) if rules <= self.rules => {}
            Some(rules) => self.raise(rules),
            None => return Err(newer(index, format!("{payload:?}"))),
        }
        let mut any = false;
        let arrived: &mut Arrived<'_> = &mut |topic, queue| {
            any = true;
            arrived(topic, queue);
        };
        let done = match payload {
            Payload::Change(change)
                if self.rules < Rules::Version3 && !Mutant::OldRecordsByNewRules.is_active() =>
            {
                let done = self.change_by_version_2(change, arrived);
                return Ok(done.unwrap_or_else(Answer::Refused));
            }
            Payload::Change(change) => {
                let done = self.change(index, change, arrived);
                return Ok(done.unwrap_or_else(Answer::Refused));
            }
            Payload::Messages { once, records } => {
                self.store(index, once, &records, files, arrived)
            }
            Payload::Delivery(delivery) => self.deliver(index, delivery, files, arrived),
            Payload::Deliveries(all) => self.deliver_all(index, &all, files, arrived),
        };
        if !any {
            self.voids.push(index);
        }
        Ok(done.unwrap_or_else(Answer::Refused))
    }

    /// A record that is not understood. One before the rules 4 is none of a newer build: that would have raised the rules
    /// first. All builds have passed it over.
    fn not_understood(&self, index: u64, detail: String) -> Result<Answer, ApplyError> {
        if self.rules >= Rules::Version4 && !Mutant::NewerRecordsSkipped.is_active() {
            return Err(newer(index, detail));
        }
        Ok(Answer::Refused(Refusal::NotUnderstood(detail)))
    }

    /// Stores all messages of a record, or none. With `once`, a message that was stored lately is where it was.
    fn store(
        &mut self,
        index: u64,
        once: bool,
        records: &[Bytes],
        files: &IndexFiles,
        arrived: &mut Arrived<'_>,
    ) -> Result<Answer, Refusal> {
        let incoming = records.iter().map(|record| Incoming::read(record));
        let incoming = incoming.collect::<Result<Vec<_>, _>>()?;
        for message in &incoming {
            self.check(message)?;
        }
        let first = incoming.first().filter(|_| once);
        let key = first.and_then(|first| Some(Digest::of(self.topic_of_key(first), first.key?)));
        let before = key.and_then(|key| self.recent.get(&key));
        // As messages that were delayed under the rules 2 are remembered.
        let old = || {
            let first = first.filter(|first| first.meant != first.written)?;
            let knows_old =
                self.rules >= Rules::Version4 && !Mutant::OldDelayedKeysForgotten.is_active();
            let key = Digest::of(first.written, first.key.filter(|_| knows_old)?);
            self.recent.get(&key)
        };
        if let Some(before) = before.or_else(old) {
            return Ok(Answer::Stored(vec![before]));
        }
        let mut placed = Vec::with_capacity(incoming.len());
        for (part, message) in incoming.iter().enumerate() {
            placed.push(self.push(physical(index, part), message, files, arrived)?);
        }
        let key = key.filter(|_| !Mutant::KeysNotRemembered.is_active());
        if let Some((key, first)) = key.zip(placed.first()) {
            self.recent.put(key, *first);
        }
        Ok(Answer::Stored(placed))
    }

    /// The topic whose keys are to differ from that of a message.
    fn topic_of_key<'a>(&self, message: &Incoming<'a>) -> &'a str {
        if self.rules < Rules::Version3 { message.written } else { message.meant }
    }

    fn check(&self, message: &Incoming<'_>) -> Result<(), Refusal> {
        let queues = match self.topics.get(&message.topic) {
            Some(topic) => topic.config.queues(),
            None if message.topic == DELAY_TOPIC => u32::from(LEVELS),
            None => return Err(Refusal::NoTopic(message.topic.to_string())),
        };
        if message.queue >= queues {
            return Err(Refusal::NoQueue(message.topic.to_string(), message.queue as i32));
        }
        Ok(())
    }

    fn push(
        &mut self,
        physical: u64,
        message: &Incoming<'_>,
        files: &IndexFiles,
        arrived: &mut Arrived<'_>,
    ) -> Result<Placed, Refusal> {
        if message.topic == DELAY_TOPIC && self.topics.get(DELAY_TOPIC).is_none() {
            let config = TopicConfig::with_queues(LEVELS.into());
            if self.rules < Rules::Version3 {
                self.topics.put_anyway(0, DELAY_TOPIC, config);
            } else {
                self.topics.put(index_of(physical), DELAY_TOPIC.to_owned(), config)?;
            }
        }
        if message.topic == DEAD_DELAYED_TOPIC && self.topics.get(DEAD_DELAYED_TOPIC).is_none() {
            let config = TopicConfig::with_queues(1);
            self.topics.put_anyway(index_of(physical), DEAD_DELAYED_TOPIC, config);
        }
        let Some(queue) = self.topics.queue_or_new(&message.topic, message.queue) else {
            return Err(Refusal::NoTopic(message.topic.to_string()));
        };
        self.stored_ms = self.stored_ms.max(message.stored_ms);
        let offset = queue.push(physical, message.tags, self.stored_ms, files);
        message.keys_at(physical).for_each(|key| self.keys.push(key, files));
        arrived(&message.topic, message.queue);
        Ok(Placed { queue: message.queue, offset, physical })
    }

    /// Delayed messages become messages, once: deliveries of a level are in order, and those that were done before, by
    /// this leader or another, do nothing. Messages that retention has removed are passed over.
    ///
    /// All are stored and counted as delivered, or none: what cannot be stored stays where it is, and the leader finds
    /// another place for it. A queue that its topic does not have any more takes its messages as in RocketMQ, and shows
    /// them when the topic has it again.
    fn deliver_all(
        &mut self,
        index: u64,
        all: &DeliverAll,
        files: &IndexFiles,
        arrived: &mut Arrived<'_>,
    ) -> Result<Answer, Refusal> {
        if all.offset < self.delivered(all.level) && !Mutant::DeliveredAgain.is_active() {
            return Err(Refusal::Delivered);
        }
        let incoming = all.records.iter().map(|record| Incoming::read(record));
        let incoming = incoming.collect::<Result<Vec<_>, _>>()?;
        for message in &incoming {
            let (topic, queue) = (&*message.topic, message.queue);
            let is_there = self.topics.get(topic).is_some();
            if !is_there && topic != DEAD_DELAYED_TOPIC && !Mutant::DeliveryDropped.is_active() {
                return Err(Refusal::NoTopic(topic.to_owned()));
            }
            if is_there && !self.topics.make_room(topic, queue) {
                return Err(Refusal::NoQueue(topic.to_owned(), queue as i32));
            }
        }
        self.delivered.insert(all.level, all.offset + incoming.len() as u64);
        let mut placed = Vec::with_capacity(incoming.len());
        for (part, message) in incoming.iter().enumerate() {
            placed.push(self.push(physical(index, part), message, files, arrived)?);
        }
        Ok(Answer::Stored(placed))
    }

    /// A delivery of an older build. What cannot be stored is dropped, as it was then: every node has to come to the same.
    fn deliver(
        &mut self,
        index: u64,
        delivery: Deliver,
        files: &IndexFiles,
        arrived: &mut Arrived<'_>,
    ) -> Result<Answer, Refusal> {
        if delivery.offset < self.delivered(delivery.level) {
            return Err(Refusal::Delivered);
        }
        self.delivered.insert(delivery.level, delivery.offset + 1);
        let message = Incoming::read(&delivery.record)?;
        self.check(&message)?;
        let placed = self.push(physical(index, 0), &message, files, arrived)?;
        Ok(Answer::Stored(vec![placed]))
    }

    fn change(
        &mut self,
        index: u64,
        change: Change,
        arrived: &mut Arrived<'_>,
    ) -> Result<Answer, Refusal> {
        match change {
            Change::Lead { node, addr } => self.lead(node, addr)?,
            Change::PutTopic { name, config } => self.topics.put(index, name, config)?,
            Change::EnsureTopic { name, config } => {
                if self.topics.get(&name).is_none() {
                    self.topics.put(index, name, config)?;
                }
            }
            Change::DeleteTopic { name } => {
                self.delete_topics(&BTreeSet::from([name.as_str()]), arrived)
            }
            Change::Offsets(changes) => {
                let reported = changes.into_iter().map(|of| {
                    let since = self.topics.get(&of.topic).map_or(0, |topic| topic.since);
                    let (group, topic, queue) = (of.group, of.topic, of.queue);
                    ReportedOffset { group, topic, queue, offset: of.offset, since }
                });
                let reported = reported.collect();
                return Ok(self.note_offsets(reported));
            }
            Change::ReportedOffsets(reported) => return Ok(self.note_offsets(reported)),
            Change::Lock { request, now_ms } => {
                return self.locks.lock(request, now_ms).map(Answer::Locked);
            }
            Change::Unlock(request) => self.locks.unlock(&request),
            Change::Decide(decision) => return self.decide(index, decision, arrived),
            Change::Follow(follow) => self.follow(index, follow, arrived),
            Change::Rules { .. } => {}
        }
        Ok(Answer::Done)
    }

    fn lead(&mut self, node: u64, addr: String) -> Result<(), Refusal> {
        check_name("broker's address", &addr, ADDR_BYTES_MAX)?;
        self.nodes.insert(node, addr);
        self.leader = node;
        // A node that comes back without its data gets a new number: the lowest one is the oldest.
        while self.nodes.len() > NODES_MAX {
            let oldest = self.nodes.keys().copied().find(|other| *other != node);
            oldest.and_then(|oldest| self.nodes.remove(&oldest));
        }
        Ok(())
    }

    /// Deletes topics with all that belongs to them, and nothing of any other. Wakes those who wait for their messages.
    pub(super) fn delete_topics(&mut self, names: &BTreeSet<&str>, arrived: &mut Arrived<'_>) {
        for name in names {
            let removed = self.topics.remove(name);
            let queues = removed.map_or(0, |topic| topic.config.queues());
            (0..queues).for_each(|queue| arrived(name, queue));
            self.recent.forget_topic(name);
            if !Mutant::DeletedTopicKeepsLocks.is_active() {
                self.locks.remove_topic(name);
            }
        }
        if !Mutant::DeletedTopicKeepsOffsets.is_active() {
            self.offsets.remove_topics(names);
        }
    }

    /// Notes what can be noted: one that is refused holds up no other.
    fn note_offsets(&mut self, reported: Vec<ReportedOffset>) -> Answer {
        let mut refused = Vec::new();
        for (at, reported) in (0_u32..).zip(reported) {
            if let Err(refusal) = self.note_offset(reported) {
                refused.push((at, refusal));
                if Mutant::RefusedOffsetHoldsUpOthers.is_active() {
                    break;
                }
            }
        }
        if refused.is_empty() { Answer::Done } else { Answer::OffsetsRefused(refused) }
    }

    fn note_offset(&mut self, reported: ReportedOffset) -> Result<(), Refusal> {
        let ReportedOffset { group, topic, queue, offset, since } = reported;
        let held = self.topics.get(&topic);
        // A consumer reports for a while where it was in a topic that is gone, or in an earlier one of the same name.
        let gone = held.is_none() && !is_made_on_demand(&topic);
        let another = held.map_or(0, |topic| topic.since) != since;
        if gone && !Mutant::OffsetsOutliveTopic.is_active()
            || another && !Mutant::OffsetsOfEarlierTopic.is_active()
        {
            check_name("topic", &topic, STORED_TOPIC_BYTES_MAX)?;
            return Err(Refusal::NoTopic(topic));
        }
        if Mutant::OffsetNeverGoesBack.is_active()
            && self.offset(&group, &topic, queue).is_some_and(|held| held > offset)
        {
            return Ok(());
        }
        self.offsets.set(&group, &topic, queue, offset)
    }
}

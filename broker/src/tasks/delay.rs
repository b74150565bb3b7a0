//! Delivers delayed messages when they are due. A delivery is a record of the log that says which messages of a level's
//! queue it delivers, so that a new leader goes on where the last one was.

use std::time::Duration;

use tokio::time::Instant;

use super::sightings::Sightings;
use crate::log::{Part, Replica, Topics, Undelivered, metrics};
use crate::mutant::Mutant;
use crate::record::{Message, Properties, names, offset_id};
use crate::remoting::codes::response;
use crate::request::{Failure, dead_topic, group_of_retry};
use crate::state::{
    DEAD_DELAYED_TOPIC, DELAY_TOPIC, Entry, LEVELS, TopicConfig, is_made_on_demand, level_delay_ms,
};

/// Pause before a delivery that failed is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the clock is read while a message waits: it may have been set right.
const LOOK: Duration = Duration::from_secs(1);
/// Messages of one record of deliveries.
const BATCH_MESSAGES: usize = 1024;
/// Bytes of them; one message may be larger.
const BATCH_BYTES: usize = 256 << 10;

/// Bytes of a record of deliveries before its messages.
const HEAD_BYTES: usize = 12;

/// What a look at a level's queue came to.
enum Look {
    /// Nothing waits there.
    Empty,
    /// The first message is due then.
    Due(Instant),
    /// Messages were delivered, and there may be more.
    Delivered,
}

/// Deliveries that go into one record.
#[derive(Default)]
struct Batch {
    first: u64,
    messages: Vec<Message>,
    bytes: usize,
    /// Those that do not come where they were sent, and how many: of them, or before the first.
    astray: Vec<(Undelivered, u64)>,
}

/// What the wall clock leaves of a message's delay. One of an older build does not say when it came; when it was
/// stored may be later than that.
fn left_ms(message: &Message, level: u8, now_ms: i64) -> i64 {
    let arrived = Properties::find(&message.properties, names::ARRIVED_MS);
    let mut arrived = arrived.and_then(|text| text.parse().ok()).unwrap_or(message.stored_ms);
    if Mutant::DueByStoredTime.is_active() {
        arrived = message.stored_ms;
    }
    arrived.saturating_add(level_delay_ms(level)).saturating_sub(now_ms)
}

/// The message as it was meant to be. None if it does not say where it was meant to go.
fn restored(message: &Message) -> Option<Message> {
    let mut properties = Properties::parse(&message.properties);
    let topic = properties.get(names::REAL_TOPIC)?.to_owned();
    let queue = properties.get(names::REAL_QUEUE)?.parse().ok()?;
    properties.remove(names::DELAY);
    properties.remove(names::ARRIVED_MS);
    Some(Message { topic, queue, properties: properties.to_text(), ..message.clone() })
}

/// A message whose topic is gone, as a dead letter of `topic`.
fn dead_letter(message: Message, topic: String, entry: Entry) -> Message {
    let mut properties = Properties::parse(&message.properties);
    let origin = properties.get(names::RETRY_TOPIC).unwrap_or(&message.topic).to_owned();
    let id = properties.get(names::ORIGIN_MESSAGE_ID).map(str::to_owned);
    let id = id.unwrap_or_else(|| offset_id(message.store_host, entry.physical));
    properties.remove(names::DELAY);
    properties.remove(names::ARRIVED_MS);
    properties.set(names::DLQ_ORIGIN_TOPIC, origin);
    properties.set(names::DLQ_ORIGIN_MESSAGE_ID, id);
    Message { topic, queue: 0, properties: properties.to_text(), ..message }
}

/// A delivery of at most so many bytes: else one message of the largest size would hold up its level for ever. What says
/// where it came from goes if there is no room for it. Without that it is no larger than what the message waited in.
fn fitted(mut delivery: Message, bytes_max: usize) -> Message {
    for name in [
        names::REAL_QUEUE,
        names::REAL_TOPIC,
        names::DLQ_ORIGIN_MESSAGE_ID,
        names::DLQ_ORIGIN_TOPIC,
    ] {
        if delivery.stored_bytes() > bytes_max {
            let mut properties = Properties::parse(&delivery.properties);
            properties.remove(name);
            delivery.properties = properties.to_text();
        }
    }
    delivery
}

/// Delivers all levels while this node leads, for as long as the broker lives.
pub(crate) async fn deliver_delayed(replica: &Replica, topics: &Topics) {
    let courier = Courier { replica, topics };
    let levels = (1..=LEVELS).map(|level| courier.deliver_level(level));
    futures_util::future::join_all(levels).await;
}

/// What a delivery may touch.
struct Courier<'a> {
    replica: &'a Replica,
    topics: &'a Topics,
}

impl Courier<'_> {
    /// Watches a level's queue, also while another node leads: a message that it saw arrive is due after its delay,
    /// whatever the clocks of the leaders say.
    async fn deliver_level(&self, level: u8) {
        let queue = u32::from(level) - 1;
        let delay = Duration::from_millis(level_delay_ms(level).unsigned_abs());
        let mut parts = self.replica.part.subscribe();
        // Apart, to see a lead that was lost and won again while something else was waited for.
        let mut leads_since = self.replica.part.subscribe();
        let mut seen = Sightings::new(delay);
        let mut most = BATCH_MESSAGES;
        loop {
            let Ok(shared) = self.replica.shared() else {
                if parts.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let unchanged = leads_since.has_changed().is_ok_and(|changed| !changed);
            let leads = *leads_since.borrow_and_update() == Part::Leads;
            let arrivals = shared.arrivals.wait_for(DELAY_TOPIC, queue);
            let mut arrival = std::pin::pin!(arrivals.notified());
            // Registered before the look, or what comes in between would be missed.
            arrival.as_mut().enable();
            let (end, delivered) = {
                let state = shared.state();
                seen.follow(shared.number());
                (state.queue(DELAY_TOPIC, queue).map_or(0, |of| of.max()), state.delivered(level))
            };
            seen.forget(delivered);
            seen.note(end, leads, unchanged, Instant::now());
            let look_at = match leads {
                false => None,
                true => match self.deliver_due(level, &seen, most).await {
                    Ok(Look::Empty) => None,
                    Ok(Look::Due(at)) => Some(at.min(Instant::now() + LOOK)),
                    Ok(Look::Delivered) => {
                        most = BATCH_MESSAGES;
                        continue;
                    }
                    Err(failure) => {
                        tracing::debug!(
                            log = self.replica.name,
                            level,
                            ?failure,
                            "deliveries are tried again"
                        );
                        // One of them may be a message that cannot be stored.
                        most = (most / 2).max(1);
                        Some(Instant::now() + PAUSE)
                    }
                },
            };
            let look = async {
                match look_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = arrival => {}
                () = look => {}
                changed = parts.wait_for(|part| (*part == Part::Leads) != leads) => if changed.is_err() { return },
            }
            seen.nothing_until(Instant::now());
        }
    }

    /// Delivers what is due of a level: at most `most` messages.
    async fn deliver_due(&self, level: u8, seen: &Sightings, most: usize) -> Result<Look, Failure> {
        let queue = u32::from(level) - 1;
        let shared = self.replica.shared()?;
        let (number, delivered, head) = {
            let state = shared.state();
            // What retention has removed is passed over.
            let (head, delivered) = (state.queue(DELAY_TOPIC, queue), state.delivered(level));
            (shared.number(), delivered, head.map(|of| delivered.max(of.min())))
        };
        let Some(head) = head else { return Ok(Look::Empty) };
        let slice =
            self.replica.indexed(|shared| shared.slice(DELAY_TOPIC, queue, head, most)).await?;
        let Some(first) = slice.entries.first() else { return Ok(Look::Empty) };
        let trimmed = first.offset.saturating_sub(delivered);
        let mut batch = Batch { first: first.offset, ..Batch::default() };
        if trimmed > 0 {
            batch.astray.push((Undelivered::Trimmed, trimmed));
        }
        for entry in &slice.entries {
            let Some(message) = self.replica.message(*entry).await? else { break };
            let now = Instant::now();
            let mut due =
                seen.due(entry.offset, left_ms(&message, level, self.replica.clock.now_ms()), now);
            if Mutant::DueTooSoon.is_active() {
                let half = Duration::from_millis(level_delay_ms(level).unsigned_abs()) / 2;
                due = due.checked_sub(half).unwrap_or(now);
            }
            if due > now && batch.messages.is_empty() {
                return Ok(Look::Due(due));
            }
            batch.bytes += message.stored_bytes();
            let full = batch.bytes > BATCH_BYTES || Mutant::DeliveredOneByOne.is_active();
            if due > now || full && !batch.messages.is_empty() {
                break;
            }
            self.put_delivery(&mut batch, message, *entry).await?;
        }
        if batch.messages.is_empty() || shared.number() != number {
            // Retention has removed it, and the next look begins behind it; or the log went back, and others may wait
            // there. Never without a pause.
            return Ok(Look::Due(Instant::now() + PAUSE));
        }
        self.deliver(level, batch).await?;
        Ok(Look::Delivered)
    }

    /// Puts a message into a batch with the place where it goes: its own queue, or the dead letters if its topic is gone.
    async fn put_delivery(
        &self,
        batch: &mut Batch,
        message: Message,
        entry: Entry,
    ) -> Result<(), Failure> {
        let bytes_max = self.replica.opened()?.log.record_bytes_max().saturating_sub(HEAD_BYTES);
        let Some(due) = restored(&message) else {
            batch.astray.push((Undelivered::Unreadable, 1));
            let dead = dead_letter(message, DEAD_DELAYED_TOPIC.to_owned(), entry);
            batch.messages.push(fitted(dead, bytes_max));
            return Ok(());
        };
        let queue = due.queue as u32;
        let due = match (self.topic_of(&due.topic, entry).await?, group_of_retry(&due.topic)) {
            (Some(config), _) if self.replica.shared()?.state().can_hold(&due.topic, queue) => {
                if queue >= config.queues() {
                    batch.astray.push((Undelivered::NoQueue, 1));
                }
                due
            }
            (Some(_), _) => {
                batch.astray.push((Undelivered::NoRoom, 1));
                dead_letter(due, DEAD_DELAYED_TOPIC.to_owned(), entry)
            }
            (None, Some(group)) => {
                batch.astray.push((Undelivered::NoTopic, 1));
                let topic = self.dead_topic_for(dead_topic(group)).await?;
                dead_letter(due, topic, entry)
            }
            // A topic that is made on demand is needed now.
            (None, None) if is_made_on_demand(&due.topic) => {
                let topic = self.dead_topic_for(due.topic.clone()).await?;
                Message { topic, queue: 0, ..due }
            }
            (None, None) => {
                batch.astray.push((Undelivered::NoTopic, 1));
                dead_letter(due, DEAD_DELAYED_TOPIC.to_owned(), entry)
            }
        };
        batch.messages.push(fitted(due, bytes_max));
        Ok(())
    }

    /// The settings of the topic that a message was sent to, once this log has it. None if there is none, if it is made on
    /// demand and was deleted, or if it is another one of that name, made after the message came.
    async fn topic_of(&self, topic: &str, entry: Entry) -> Result<Option<TopicConfig>, Failure> {
        let (own, since) = {
            let state = self.replica.shared()?.state();
            (state.topic(topic).map(|topic| topic.config), state.topic_since(topic))
        };
        let is_another = since.is_some_and(|since| since > entry.index());
        if is_another && !Mutant::DelayedForAnotherTopic.is_active() {
            return Ok(None);
        }
        if own.is_some() || is_made_on_demand(topic) {
            return Ok(own);
        }
        // It was deleted. If it was made again since, it is another one, which this log has not followed yet.
        match self.topics.ensure_topic(topic, None).await {
            Ok(_) => Ok(None),
            Err(Failure::Refused { code: response::TOPIC_NOT_EXIST, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Makes a topic for dead letters if it is missing. If it cannot be made, the one for all of them does.
    async fn dead_topic_for(&self, topic: String) -> Result<String, Failure> {
        match self.topics.ensure_topic(&topic, Some(TopicConfig::with_queues(1))).await {
            Ok(_) => Ok(topic),
            Err(Failure::Moved) => Err(Failure::Moved),
            Err(failure) => {
                tracing::warn!(
                    log = self.replica.name,
                    topic,
                    ?failure,
                    "no topic for dead letters"
                );
                Ok(DEAD_DELAYED_TOPIC.to_owned())
            }
        }
    }

    async fn deliver(&self, level: u8, mut batch: Batch) -> Result<(), Failure> {
        let end = batch.first + batch.messages.len() as u64;
        match self.replica.deliver(level, batch.first, &mut batch.messages).await {
            Ok(_) => {
                let log = self.replica.name.as_str();
                for (why, count) in batch.astray {
                    metrics::undelivered(log, why, count);
                }
                Ok(())
            }
            // By a record whose outcome was not known: the level goes on.
            Err(Failure::Refused { .. }) if self.is_delivered(level, end) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// True if the messages below `end` were delivered.
    fn is_delivered(&self, level: u8, end: u64) -> bool {
        self.replica.shared().is_ok_and(|shared| shared.state().delivered(level) >= end)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::request::delay;

    #[test]
    fn a_delivery_fits_wherever_its_message_did() {
        for topic in ["T".to_owned(), "t".repeat(127), format!("%RETRY%{}", "g".repeat(255))] {
            let addr = "127.0.0.1:1".parse().expect("an address");
            let mut waited = Message {
                topic: topic.clone(),
                queue: 3,
                flag: 0,
                system_flag: 0,
                born_ms: 1,
                born_host: addr,
                stored_ms: 5,
                store_host: addr,
                reconsumed: 0,
                body: Bytes::from_static(b"x"),
                properties: "DELAY\u{1}3\u{2}".to_owned(),
            };
            delay(&mut waited, 1_700_000_000_000);
            // A record of messages has four bytes before the first.
            let most = waited.stored_bytes() + 4 - HEAD_BYTES;
            let due = fitted(restored(&waited).expect("it says where it was sent"), most);
            assert_eq!((due.topic.as_str(), due.queue), (topic.as_str(), 3));
            assert!(due.stored_bytes() <= most, "{topic}");
            let dead = group_of_retry(&topic).map_or(DEAD_DELAYED_TOPIC.to_owned(), dead_topic);
            let entry = Entry::at(1 << 12);
            let dead = fitted(dead_letter(due, dead, entry), most);
            assert!(dead.stored_bytes() <= most, "{topic}");
        }
    }
}

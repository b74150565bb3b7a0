//! Delivers delayed messages when they are due. Each delivery is a record of the log that says which message of its
//! level's queue it delivers, so that a new leader goes on where the last one was.

use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::log_broker::{LogBroker, Part, now_ms};
use crate::broker::record::{Message, Properties, names};
use crate::broker::state::{DELAY_TOPIC, Entry, LEVELS, delivery, level_delay_ms};

/// Pause before a delivery that failed is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The message as it was meant to be.
fn restored(mut message: Message, stored_ms: i64) -> Option<Message> {
    let mut properties = Properties::parse(&message.properties);
    message.topic = properties.get(names::REAL_TOPIC)?.to_owned();
    message.queue = properties.get(names::REAL_QUEUE)?.parse().ok()?;
    properties.remove(names::DELAY);
    message.properties = properties.to_text();
    message.stored_ms = stored_ms;
    Some(message)
}

impl LogBroker {
    /// Delivers all levels while this node leads, for as long as the broker lives.
    pub(super) async fn deliver_delayed(self: Arc<Self>) {
        let levels = (1..=LEVELS).map(|level| self.deliver_level(level));
        futures_util::future::join_all(levels).await;
    }

    async fn deliver_level(&self, level: u8) {
        let mut parts = self.part.subscribe();
        loop {
            if parts.wait_for(|part| *part == Part::Leads).await.is_err() {
                return;
            }
            if let Err(failure) = self.deliver_next(level).await {
                tracing::debug!(log = self.name, level, ?failure, "a delivery is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Waits for the next message of a level and delivers it when it is due. Returns early when the node's part changes.
    async fn deliver_next(&self, level: u8) -> Result<(), Failure> {
        let mut parts = self.part.subscribe();
        let shared = self.shared()?;
        let queue = u32::from(level) - 1;
        let arrivals = shared.arrivals.wait_for(DELAY_TOPIC, queue);
        let mut arrival = std::pin::pin!(arrivals.notified());
        arrival.as_mut().enable();
        let head = {
            let state = shared.state();
            // What retention has removed is passed over.
            state.queue(DELAY_TOPIC, queue).map(|of| state.delivered(level).max(of.min()))
        };
        let entry = match head {
            Some(head) => self.indexed(|shared| shared.entry(DELAY_TOPIC, queue, head)).await?,
            None => None,
        };
        let Some(entry) = entry else {
            tokio::select! {
                () = arrival => {}
                _ = parts.changed() => {}
            }
            return Ok(());
        };
        let Some(message) = self.message(entry).await? else {
            // Retention has removed it, and the next look begins behind it; never without a pause.
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        };
        let due = message.stored_ms + level_delay_ms(level);
        let left = u64::try_from(due - now_ms()).unwrap_or(0);
        if left > 0 {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left)) => {}
                _ = parts.changed() => return Ok(()),
            }
        }
        self.deliver(level, entry, message).await
    }

    async fn deliver(&self, level: u8, entry: Entry, message: Message) -> Result<(), Failure> {
        let mut due = message.clone();
        if let Some(restored) = restored(message, self.stored_ms()) {
            due = restored;
        }
        match self.propose(delivery(level, entry.offset, &due)).await {
            Ok(_) => Ok(()),
            // Its topic is gone, or it was delivered by a record whose outcome was not known: the level goes on.
            Err(Failure::Refused { code, remark }) if self.is_delivered(level, entry) => {
                tracing::debug!(
                    log = self.name,
                    level,
                    code,
                    remark,
                    "a delayed message was dropped"
                );
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn is_delivered(&self, level: u8, entry: Entry) -> bool {
        self.shared().is_ok_and(|shared| shared.state().delivered(level) > entry.offset)
    }
}

//! Offsets of a queue: the first, the next, and that of a time.

use serde_json::{Value, json};

use super::replica::Replica;
use crate::request::Failure;
use crate::state::Queue;

impl Replica {
    /// A queue of a topic, as clients name it.
    pub(crate) fn queue_name(&self, topic: &str, queue: u32) -> Value {
        json!({ "brokerName": self.name, "queueId": queue, "topic": topic })
    }

    /// What `read` makes of a queue; one without messages is an empty one.
    fn with_queue<T>(
        &self,
        topic: &str,
        queue: u32,
        read: impl FnOnce(&Queue) -> T,
    ) -> Result<T, Failure> {
        let state = self.shared()?.state();
        Ok(match state.queue(topic, queue) {
            Some(queue) => read(queue),
            None => read(&Queue::default()),
        })
    }

    /// The offset of a queue's first message.
    pub(crate) fn begin_of(&self, topic: &str, queue: u32) -> Result<u64, Failure> {
        self.with_queue(topic, queue, Queue::min)
    }

    /// The offset that a queue's next message will have.
    pub(crate) fn end_of(&self, topic: &str, queue: u32) -> Result<u64, Failure> {
        self.with_queue(topic, queue, Queue::max)
    }

    /// The offset of the first message that was stored at a time or later: times of storing never go back.
    pub(crate) async fn first_since(
        &self,
        topic: &str,
        queue: u32,
        wanted: i64,
    ) -> Result<u64, Failure> {
        let around = self.with_queue(topic, queue, |queue| queue.around(wanted));
        let (mut low, mut high) = around?;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.indexed(|shared| shared.entry(topic, queue, middle)).await?;
            let stored = match entry {
                Some(entry) => self.message(entry).await?.map(|message| message.stored_ms),
                None => None,
            };
            // What is gone was stored before anything that is held.
            if stored.is_none_or(|stored| stored < wanted) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// When the last message before an offset was stored; 0 if it is gone, or there is none.
    pub(crate) async fn stored_before(
        &self,
        topic: &str,
        queue: u32,
        offset: u64,
    ) -> Result<i64, Failure> {
        let Some(last) = offset.checked_sub(1) else { return Ok(0) };
        let entry = self.indexed(|shared| shared.entry(topic, queue, last)).await?;
        let Some(entry) = entry else { return Ok(0) };
        Ok(self.message(entry).await?.map_or(0, |message| message.stored_ms))
    }
}

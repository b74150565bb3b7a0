//! Offsets of a queue: the first, the next, and that of a time.

use super::failure::Failure;
use super::log_broker::LogBroker;
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, Reply};
use crate::broker::state::Queue;

impl LogBroker {
    /// What `read` makes of the queue that is asked for; a queue without messages is an empty one.
    fn with_queue<T>(
        &self,
        command: &Command,
        read: impl FnOnce(&Queue) -> T,
    ) -> Result<T, Failure> {
        let fields = &command.head.fields;
        let (topic, queue) = (fields.text("topic")?, fields.int("queueId")?);
        let illegal = || format!("queueId[{queue}] of topic[{topic}] is illegal");
        let queue = u32::try_from(queue)
            .map_err(|_| Failure::refused(response::INVALID_PARAMETER, illegal()))?;
        let state = self.shared()?.state();
        Ok(match state.queue(topic, queue) {
            Some(queue) => read(queue),
            None => read(&Queue::default()),
        })
    }

    pub(super) fn max_offset(&self, command: &Command) -> Result<Reply, Failure> {
        let offset = self.with_queue(command, Queue::max)?;
        Ok(Reply::done().with("offset", offset))
    }

    pub(super) fn min_offset(&self, command: &Command) -> Result<Reply, Failure> {
        let offset = self.with_queue(command, Queue::min)?;
        Ok(Reply::done().with("offset", offset))
    }

    /// The first message that was stored at a time or later: times of storing never go back.
    pub(super) async fn search_offset(&self, command: &Command) -> Result<Reply, Failure> {
        let wanted = command.head.fields.number("timestamp")?;
        let (mut low, mut high) = self.with_queue(command, |queue| queue.around(wanted))?;
        let fields = &command.head.fields;
        let (topic, queue) = (fields.text("topic")?, fields.int("queueId")?.unsigned_abs());
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
        Ok(Reply::done().with("offset", low))
    }
}

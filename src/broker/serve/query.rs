//! Messages by id and by key. There is no index of keys yet: a query looks at the topic's messages in its range of time.

use bytes::Bytes;

use super::failure::Failure;
use super::log_broker::LogBroker;
use crate::broker::record::{Message, Properties, names};
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, Reply};
use crate::broker::state::Entry;

/// Messages that one query looks at.
const LOOKED_AT_MAX: usize = 200_000;
/// Messages in one answer.
const MESSAGES_MAX: i64 = 64;
/// Bytes in one answer.
const BYTES_MAX: usize = 4 << 20;

/// What is asked for.
struct Query<'a> {
    topic: &'a str,
    key: &'a str,
    unique: bool,
    count: usize,
    begin_ms: i64,
    end_ms: i64,
}

impl Query<'_> {
    fn matches(&self, message: &Message) -> bool {
        if message.stored_ms < self.begin_ms || message.stored_ms > self.end_ms {
            return false;
        }
        if self.unique {
            return Properties::find(&message.properties, names::UNIQUE_KEY) == Some(self.key);
        }
        let keys = Properties::find(&message.properties, names::KEYS).unwrap_or_default();
        keys.split(' ').any(|key| key == self.key)
    }
}

impl LogBroker {
    pub(super) async fn view_by_id(&self, command: &Command) -> Result<Reply, Failure> {
        let offset = command.head.fields.number("offset")?;
        let not_found = || {
            let remark = format!("can not find message by the offset, {offset}");
            Failure::refused(response::SYSTEM_ERROR, remark)
        };
        let entry = Entry::at(u64::try_from(offset).map_err(|_| not_found())?);
        let message = match self.message(entry).await {
            Ok(message) => message.ok_or_else(not_found)?,
            Err(Failure::Moved) => return Err(Failure::Moved),
            Err(_) => return Err(not_found()),
        };
        let queue = u32::try_from(message.queue).map_err(|_| not_found())?;
        let found = {
            let state = self.shared()?.state();
            state.queue(&message.topic, queue).and_then(|queue| queue.find(entry.physical))
        };
        let (chunks, _) = self.chunks(&[found.ok_or_else(not_found)?], usize::MAX).await?;
        let mut reply = Reply::done();
        reply.body = chunks;
        Ok(reply)
    }

    pub(super) async fn query_messages(&self, command: &Command) -> Result<Reply, Failure> {
        let fields = &command.head.fields;
        let query = Query {
            topic: fields.text("topic")?,
            key: fields.text("key")?,
            unique: fields.flag("_UNIQUE_KEY_QUERY"),
            count: usize::try_from(fields.number("maxNum")?.clamp(1, MESSAGES_MAX)).unwrap_or(1),
            begin_ms: fields.number_or("beginTimestamp", 0)?,
            end_ms: fields.number_or("endTimestamp", i64::MAX)?,
        };
        let found = self.search(&query).await?;
        let (chunks, _): (Vec<Bytes>, usize) = self.chunks(&found, BYTES_MAX).await?;
        if chunks.is_empty() {
            let remark = "can not find message, maybe time range not correct";
            return Err(Failure::refused(response::QUERY_NOT_FOUND, remark));
        }
        let mut reply = Reply::done()
            .with("indexLastUpdateTimestamp", self.shared()?.state().stored_ms())
            .with("indexLastUpdatePhyoffset", found.last().map_or(0, |entry| entry.physical));
        reply.body = chunks;
        Ok(reply)
    }

    /// The newest messages that match, newest first, out of the newest that are looked at.
    async fn search(&self, query: &Query<'_>) -> Result<Vec<Entry>, Failure> {
        let queues =
            self.shared()?.state().topic(query.topic).map_or(0, |topic| topic.queues().len());
        let mut found = Vec::new();
        let mut left = LOOKED_AT_MAX;
        for queue in 0..queues as u32 {
            let bounds =
                self.shared()?.state().queue(query.topic, queue).map(|q| (q.min(), q.max()));
            let Some((min, max)) = bounds else { continue };
            for offset in (min..max).rev() {
                let entry =
                    self.shared()?.state().queue(query.topic, queue).and_then(|q| q.get(offset));
                let Some(entry) = entry else { break };
                let Some(message) = self.message(entry).await? else { break };
                left = left.saturating_sub(1);
                // Times of storing never go back.
                if message.stored_ms < query.begin_ms || left == 0 || found.len() >= query.count {
                    break;
                }
                if query.matches(&message) {
                    found.push(entry);
                }
                tokio::task::consume_budget().await;
            }
        }
        found.sort_by_key(|entry| std::cmp::Reverse(entry.physical));
        found.truncate(query.count);
        Ok(found)
    }
}

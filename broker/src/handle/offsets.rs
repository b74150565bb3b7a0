//! Offsets of a queue: the first, the next, and that of a time.

use crate::log::Replica;
use crate::remoting::codes::response;
use crate::remoting::{Command, Fields, Reply};
use crate::request::Failure;

/// The queue that is asked for.
struct Queue<'a> {
    topic: &'a str,
    number: u32,
}

impl<'a> Queue<'a> {
    fn read(fields: &'a Fields) -> Result<Self, Failure> {
        let (topic, queue) = (fields.text("topic")?, fields.int("queueId")?);
        let illegal = |_| {
            let remark = format!("queueId[{queue}] of topic[{topic}] is illegal");
            Failure::refused(response::INVALID_PARAMETER, remark)
        };
        Ok(Self { topic, number: u32::try_from(queue).map_err(illegal)? })
    }
}

/// The offset that a queue's next message will have.
pub(super) struct MaxOffset<'a>(Queue<'a>);

impl<'a> MaxOffset<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        Queue::read(&command.head.fields).map(Self)
    }

    pub(super) fn run(self, replica: &Replica) -> Result<Reply, Failure> {
        Ok(Reply::done().with("offset", replica.end_of(self.0.topic, self.0.number)?))
    }
}

/// The offset of a queue's first message.
pub(super) struct MinOffset<'a>(Queue<'a>);

impl<'a> MinOffset<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        Queue::read(&command.head.fields).map(Self)
    }

    pub(super) fn run(self, replica: &Replica) -> Result<Reply, Failure> {
        Ok(Reply::done().with("offset", replica.begin_of(self.0.topic, self.0.number)?))
    }
}

/// The offset of the first message of a time, or later.
pub(super) struct SearchOffset<'a> {
    since_ms: i64,
    queue: Queue<'a>,
}

impl<'a> SearchOffset<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        let since_ms = command.head.fields.number("timestamp")?;
        Ok(Self { since_ms, queue: Queue::read(&command.head.fields)? })
    }

    pub(super) async fn run(self, replica: &Replica) -> Result<Reply, Failure> {
        let Queue { topic, number } = self.queue;
        Ok(Reply::done().with("offset", replica.first_since(topic, number, self.since_ms).await?))
    }
}

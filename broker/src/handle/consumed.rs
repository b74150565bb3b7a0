//! How far groups have consumed: clients report it, and ask for it.

use crate::log::{ConsumeOffsets, OffsetKey, Reported, Topics, wait_for};
use crate::remoting::codes::response;
use crate::remoting::{Command, Reply};
use crate::request::{Failure, check_group};

/// A queue in which so much has come since its first message is no young one: a new group does not begin at 0.
const YOUNG_MAX: u64 = 1_000_000;

/// The group and the queue that are meant.
fn key(command: &Command) -> Result<OffsetKey, Failure> {
    let fields = &command.head.fields;
    let (group, topic) = (fields.text("consumerGroup")?, fields.text("topic")?);
    let queue = fields.int("queueId")?;
    let illegal = |_| {
        let remark = format!("queueId[{queue}] is illegal");
        Failure::refused(response::INVALID_PARAMETER, remark)
    };
    Ok((group.to_owned(), topic.to_owned(), u32::try_from(queue).map_err(illegal)?))
}

/// How far has a group consumed a queue?
pub(super) struct QueryConsumerOffset {
    key: OffsetKey,
    /// A group that is new to a young queue begins at its first message.
    zero: bool,
}

impl QueryConsumerOffset {
    pub(super) fn read(command: &Command) -> Result<Self, Failure> {
        let zero = command.head.fields.get("setZeroIfNotFound");
        Ok(Self { key: key(command)?, zero: zero.is_none_or(|zero| zero != "false") })
    }

    pub(super) async fn run(self, consumed: &ConsumeOffsets) -> Result<Reply, Failure> {
        let Self { key, zero } = self;
        let (_, topic, queue) = &key;
        let offset = consumed.of(&key, |state| {
            // As RocketMQ does it: on a young queue a new group begins at its first message.
            let young = state
                .queue(topic, *queue)
                .is_none_or(|queue| queue.min() == 0 && queue.max() <= YOUNG_MAX);
            let not_found = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
            let not_found = || Failure::refused(response::QUERY_NOT_FOUND, not_found);
            (young && zero).then_some(0).ok_or_else(not_found)
        });
        Ok(Reply::done().with("offset", offset.await?))
    }
}

/// A group has consumed a queue up to an offset.
pub(super) struct UpdateConsumerOffset {
    key: OffsetKey,
    offset: u64,
    /// The client waits until it is applied.
    waits: bool,
}

impl UpdateConsumerOffset {
    pub(super) fn read(command: &Command) -> Result<Self, Failure> {
        let key = key(command)?;
        let offset = command.head.fields.number("commitOffset")?;
        let Ok(offset) = u64::try_from(offset) else {
            check_group(&key.0)?;
            let remark = format!("commitOffset[{offset}] is illegal");
            return Err(Failure::refused(response::INVALID_PARAMETER, remark));
        };
        Ok(Self { key, offset, waits: !command.is_oneway() })
    }

    pub(super) async fn run(
        self,
        consumed: &ConsumeOffsets,
        topics: &Topics,
    ) -> Result<Reply, Failure> {
        match consumed.report(topics, self.key, self.offset, self.waits)? {
            Reported::Outdated => Ok(Reply::done().with_remark("Offset has been previously reset")),
            Reported::Noted(written) => wait_for(written).await.map(|()| Reply::done()),
        }
    }
}

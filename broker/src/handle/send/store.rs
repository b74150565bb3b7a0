//! Messages on their way into the log, and the answer to whoever sent them.

use quorumlog::{AppliedTicket, Progress};
use tokio::time::Instant;

use super::status::{Status, send_reply, unacknowledged};
use crate::log::Replica;
use crate::record::Message;
use crate::remoting::Reply;
use crate::remoting::codes::response;
use crate::request::Failure;
use crate::state::{Answer, Placed};

/// Most bytes of properties: their length is a signed 16-bit number.
const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;

/// Messages that are on their way into the log.
pub(in crate::handle) struct Begun {
    ticket: AppliedTicket,
    status: Status,
}

pub(super) fn illegal(remark: impl Into<String>) -> Failure {
    Failure::refused(response::MESSAGE_ILLEGAL, remark)
}

pub(super) fn check_properties(properties: &str) -> Result<(), Failure> {
    if properties.len() > PROPERTIES_BYTES_MAX {
        let size = properties.len();
        return Err(illegal(format!(
            "message properties length {size} is too long, the limit is {PROPERTIES_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Appends messages and says where they are. If that is not known in time, says how far they have come.
pub(super) async fn store(replica: &Replica, batch: &mut [Message]) -> Result<Reply, Failure> {
    let begun = Begun::begin(replica, batch, false)?;
    begun.acknowledged(replica).await
}

impl Begun {
    /// Puts messages on their way; with `once`, not if the first one's key was stored lately.
    pub(super) fn begin(
        replica: &Replica,
        batch: &mut [Message],
        once: bool,
    ) -> Result<Self, Failure> {
        for message in &*batch {
            check_properties(&message.properties)?;
        }
        let progress = Progress::new();
        let ticket = replica.submit_messages(batch, once, &progress)?;
        let queue = batch.first().map_or(0, |message| message.queue);
        Ok(Self { ticket, status: Status { progress, queue, count: batch.len() } })
    }

    /// Says where messages are once they are applied; with `once`, where the one is that was stored lately. If that is
    /// not known in time, says how far they have come.
    pub(in crate::handle) async fn acknowledged(self, replica: &Replica) -> Result<Reply, Failure> {
        let Self { ticket, status } = self;
        let deadline = Instant::now() + replica.send_timeout();
        let answer = match replica.applied(ticket).await {
            Err(Failure::Unknown(detail)) => {
                return unacknowledged(replica, &status, &detail, deadline).await;
            }
            answer => answer?,
        };
        let Answer::Stored(placed) = answer else { return Err(Failure::Moved) };
        let first = placed.first().copied().unwrap_or(Placed { queue: 0, offset: 0, physical: 0 });
        let ids = replica.ids(placed.iter().map(|placed| placed.physical));
        Ok(send_reply(Reply::done(), &ids, i64::from(first.queue), first.offset as i64))
    }
}

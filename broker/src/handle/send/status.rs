//! What a producer is told of a message that is not acknowledged in time. RocketMQ's words for it all mean that the message
//! is stored, so they are used only where that is known: this node leads in the term in which it put the message into its
//! log. No other node's leader has put another entry there then, as far as this one knows.
//!
//! ```text
//! FLUSH_DISK_TIMEOUT   the leader's own disk does not hold it yet, as its flush setting asks
//! SLAVE_NOT_AVAILABLE  its disk does, and no majority has answered lately: there is nobody to replicate it to
//! FLUSH_SLAVE_TIMEOUT  its disk does, and the others have not said in time that theirs do
//! ```
//!
//! It may be committed later, and then lies where the answer says. A node that leads no more asks the next leader what was
//! committed there: the message, or another one, and then it was not stored. If that is not known in time, the connection
//! ends instead, which tells stock clients the same as a broker that dies: nobody knows.

use quorumlog::{CommitLog, Index, Progress, Role, Term};
use tokio::time::{Instant, timeout_at};

use crate::log::Replica;
use crate::mutant::Mutant;
use crate::remoting::Reply;
use crate::remoting::codes::response;
use crate::request::Failure;
use crate::state::physical;

/// What an answer needs to know about messages that are on their way into the log.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) progress: Progress,
    /// That of the first.
    pub(crate) queue: i32,
    pub(crate) count: usize,
}

/// Not known. Queue offsets are given when a message is applied, and clients insist on a number.
const NO_QUEUE_OFFSET: i64 = -1;

/// What the fields of an answer take beside its ids.
const SEND_REPLY_BYTES: usize = 128;

/// What the leader knows about a message that is in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    flushed: bool,
    majority: bool,
}

impl Known {
    fn code(self) -> i32 {
        match self {
            Self { flushed: false, .. } => response::FLUSH_DISK_TIMEOUT,
            Self { majority: false, .. } => response::SLAVE_NOT_AVAILABLE,
            Self { .. } => response::FLUSH_SLAVE_TIMEOUT,
        }
    }

    fn remark(self) -> &'static str {
        match self.code() {
            response::FLUSH_DISK_TIMEOUT => "appended, and not flushed in time",
            response::SLAVE_NOT_AVAILABLE => "appended, and no majority of nodes answers",
            _ => "appended and flushed, and not known to be replicated in time",
        }
    }
}

/// The fields that clients want in each answer that says that a message is stored.
pub(crate) fn send_reply(reply: Reply, ids: &str, queue: i64, offset: i64) -> Reply {
    reply
        .with_room(SEND_REPLY_BYTES + ids.len())
        .with("msgId", ids)
        .with("queueId", queue)
        .with("queueOffset", offset)
        .with("MSG_REGION", "DefaultRegion")
        .with("TRACE_ON", "true")
}

/// What is known of messages that were not acknowledged; what is not known of those of an earlier term is asked for
/// until `deadline`. They have an id, which holds if they are ever committed, and no queue offset.
///
/// # Errors
/// They are not in the log, or it is not known that they are.
pub(super) async fn unacknowledged(
    replica: &Replica,
    status: &Status,
    detail: &str,
    deadline: Instant,
) -> Result<Reply, Failure> {
    let Status { progress, queue, count } = status;
    let Some((index, term)) = progress.appended() else {
        return Err(Failure::Unknown(detail.to_owned()));
    };
    let log = &replica.opened()?.log;
    let known = if leads_in(&log.status(), term) || Mutant::DiscardedCalledStored.is_active() {
        Known { flushed: progress.is_flushed(), majority: log.hears_majority() }
    } else {
        let unknown = |_| Failure::Unknown(detail.to_owned());
        let fate = timeout_at(deadline, fate(log, index, term)).await.map_err(unknown)?;
        match fate {
            Some(true) => Known { flushed: true, majority: true },
            Some(false) => return Err(Failure::Discarded),
            None => return Err(Failure::Unknown(detail.to_owned())),
        }
    };
    let reply = Reply::refused(known.code(), format!("{}: {detail}", known.remark()));
    let ids = replica.ids((0..*count).map(|part| physical(index, part)));
    Ok(send_reply(reply, &ids, (*queue).into(), NO_QUEUE_OFFSET))
}

/// True for a leader of this term: its log still has what it put there.
fn leads_in(status: &quorumlog::Status, term: Term) -> bool {
    status.role == Role::Leader && status.term == term
}

/// Whether the entry that an earlier leader put at `index` is committed; none if that cannot be found out. What the next
/// leader has committed when it answers is all that it took over: an entry that is not among it never will be.
async fn fate(log: &CommitLog, index: Index, term: Term) -> Option<bool> {
    let committed = log.read_barrier().await.ok()?;
    if index >= committed {
        return Some(false);
    }
    let records = log.read(index, 1).await.ok()?;
    Some(records.first().is_some_and(|record| record.index == index && record.term == term))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_of_what_is_known_is_told() {
        for (flushed, majority, code) in
            [(false, false, 10), (false, true, 10), (true, false, 11), (true, true, 12)]
        {
            assert_eq!(Known { flushed, majority }.code(), code, "{flushed} {majority}");
        }
    }
}

//! Following a log: records as they are committed.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

use super::commit_log::read_visible;
use crate::error::ReadError;
use crate::format::entry::EntryId;
use crate::mutant::Mutant;
use crate::raft::{Group, RoleWatch};
use crate::record::{Record, Start};
use crate::watermarks::Watermarks;

/// Payload bytes read ahead of the subscriber.
const READ_AHEAD_BYTES: usize = 256 << 10;

type Moved = Pin<Box<dyn Future<Output = Option<Following>> + Send>>;

/// What wakes a subscriber: the watermarks, and the end of the log on this node.
struct Following {
    watermarks: watch::Receiver<Watermarks>,
    role: RoleWatch,
}

impl Following {
    /// Waits until the watermarks have moved. None once the log was shut down or has failed.
    async fn moved(mut self) -> Option<Self> {
        loop {
            tokio::select! {
                moved = self.watermarks.changed() => return moved.ok().map(|()| self),
                goes_on = self.role.changed() => if !goes_on { return None },
            }
        }
    }
}

/// Committed records of one log in their order, from a start on, without end.
///
/// If retention removes records before the subscriber reached them, it yields
/// [`ReadError::Trimmed`] once and ends; it never skips silently. If the cluster has lost records that this node had shown,
/// it yields [`ReadError::Rewound`] once and ends: drop what you derived from the records from there on, and subscribe
/// again. The same if it may have, since a checkpoint has come in the place of what this node had shown. It ends when the
/// log is closed.
///
/// # Cancel safety
/// `next` can be dropped and called again: no record is lost or repeated.
pub struct Subscription {
    group: Arc<Group>,
    next: u64,
    /// What the subscriber has got elsewhere, and this node has not been found to agree with.
    behind: Option<EntryId>,
    ready: VecDeque<Record>,
    state: State,
}

enum State {
    Reading(Following),
    Waiting(Moved),
    Ended,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Subscription");
        out.field("log", &self.group.name).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn new(group: Arc<Group>, start: Start) -> Self {
        let watermarks = group.log.watermarks();
        let next = match start {
            Start::Begin => watermarks.begin,
            Start::At(index) => index,
            Start::Committed => watermarks.committed,
        };
        let following = Following { watermarks: group.log.watch(), role: group.watch_role() };
        let state = State::Reading(following);
        Self { group, next, behind: None, ready: VecDeque::new(), state }
    }

    /// Goes on behind a record that another node gave: if this node has another history, the subscription ends with
    /// [`ReadError::Rewound`].
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "clients change nodes"))]
    pub(crate) fn behind(mut self, last: Option<EntryId>) -> Self {
        self.behind = last;
        self
    }

    /// False while it is not known whether this node agrees with what the subscriber has got.
    fn agrees(&mut self) -> Result<bool, ReadError> {
        let Some(last) = self.behind else { return Ok(true) };
        let storage = |error| ReadError::Storage(Arc::new(error));
        match self.group.agrees(last).map_err(storage)? {
            Some(false) if !Mutant::SubscriptionByIndex.is_active() => {
                let to = self.group.parted_from(last).map_err(storage)?;
                Err(ReadError::Rewound { to })
            }
            None => Ok(false),
            Some(_) => {
                self.behind = None;
                Ok(true)
            }
        }
    }

    /// Where a new subscription would go on: at the record that comes next.
    pub fn position(&self) -> Start {
        Start::At(self.ready.front().map_or(self.next, |record| record.index))
    }

    /// The next record; waits for one to be committed. None once the subscription has ended.
    pub async fn next(&mut self) -> Option<Result<Record, ReadError>> {
        StreamExt::next(self).await
    }

    /// Waits until there is something to read, or the end, and reads nothing. Cancel safe.
    #[cfg(feature = "server")]
    pub(crate) async fn readable(&mut self) {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await;
    }

    #[cfg(feature = "server")]
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ready.is_empty() {
            return Poll::Ready(());
        }
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(()),
                State::Reading(mut following) => {
                    let committed = following.watermarks.borrow_and_update().committed;
                    if self.next < committed || self.parts() {
                        self.state = State::Reading(following);
                        return Poll::Ready(());
                    }
                    self.state = State::Waiting(Box::pin(following.moved()));
                }
                State::Waiting(mut moved) => match moved.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Waiting(moved);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(following)) => self.state = State::Reading(following),
                    Poll::Ready(None) => {
                        self.state = State::Waiting(Box::pin(std::future::ready(None)));
                        return Poll::Ready(());
                    }
                },
            }
        }
    }

    /// Puts the record back that came last.
    #[cfg(feature = "server")]
    pub(crate) fn unread(&mut self, record: Record) {
        self.ready.push_front(record);
    }

    /// Gives back what was read ahead: it is read again when it is wanted.
    #[cfg(feature = "server")]
    pub(crate) fn put_back(&mut self) {
        if let Some(first) = self.ready.front()
            && !Mutant::SubscriptionReadsAhead.is_active()
        {
            self.next = first.index;
            self.ready = VecDeque::new();
        }
    }

    /// Records that were read ahead.
    #[cfg(all(test, feature = "server"))]
    pub(super) fn held(&self) -> usize {
        self.ready.len()
    }

    /// True if this node is known not to agree with what the subscriber has got.
    #[cfg(feature = "server")]
    fn parts(&self) -> bool {
        self.behind.is_some_and(|last| !matches!(self.group.agrees(last), Ok(None | Some(true))))
    }

    /// What comes last: a log that was shut down just ends; one that failed, or went back, says so.
    fn end(&self) -> Option<Result<Record, ReadError>> {
        match self.group.stopped() {
            ReadError::Closed => None,
            ReadError::Rewound { .. } if Mutant::RewindNotTold.is_active() => None,
            error => Some(Err(error)),
        }
    }

    /// Fills `ready` from what is committed. True if it did, or the start was trimmed away.
    fn fill(&mut self, committed: u64) -> Result<(), ReadError> {
        if !self.agrees()? {
            return Ok(());
        }
        while self.ready.is_empty() && self.next < committed {
            let read = read_visible(&self.group, self.next, READ_AHEAD_BYTES);
            let (records, next) = read.map_err(|error| match error {
                ReadError::Trimmed { requested, begin } => self.group.trimmed(requested, begin),
                error => error,
            })?;
            if next == self.next {
                break;
            }
            self.next = next;
            self.ready.extend(records);
        }
        Ok(())
    }
}

impl Stream for Subscription {
    type Item = Result<Record, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(record)));
            }
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Reading(mut following) => {
                    let committed = following.watermarks.borrow_and_update().committed;
                    if let Err(error) = self.fill(committed) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    self.state = if self.ready.is_empty() {
                        State::Waiting(Box::pin(following.moved()))
                    } else {
                        State::Reading(following)
                    };
                }
                State::Waiting(mut moved) => match moved.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Waiting(moved);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(following)) => self.state = State::Reading(following),
                    Poll::Ready(None) => return Poll::Ready(self.end()),
                },
            }
        }
    }
}

//! A stream of committed records that outlives the nodes it comes from.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use super::failure::Failure;
use super::log::ClientLog;
use super::routing::Pause;
use crate::error::ReadError;
use crate::format::entry::EntryId;
use crate::record::{AppendOptions, Record, Start};
use crate::wire::StreamReceiver;
use crate::wire::client_protocol::{Request, Response};

/// Frames that may be on their way or wait here; each has about 256 KiB, or one record.
const FRAMES: u32 = 8;

/// Committed records of one log in their order, from a start on, without end. If a node fails, it goes on from another one.
///
/// # Cancel safety
/// `next` can be dropped and called again: no record is lost or repeated.
pub struct ClientSubscription {
    /// Where a new subscription would go on behind `records`.
    start: Start,
    records: VecDeque<Record>,
    state: State,
}

enum State {
    Idle(Box<Feed>),
    Filling(BoxFuture<'static, Filled>),
    Ended,
}

/// A feed, and what came of asking it for records.
type Filled = (Box<Feed>, Result<Vec<Record>, ReadError>);

impl fmt::Debug for ClientSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ClientSubscription");
        out.field("position", &self.position()).finish_non_exhaustive()
    }
}

impl ClientSubscription {
    pub(super) fn new(log: ClientLog, start: Start) -> Self {
        let feed = Feed { log, start, last: None, stream: None, pause: Pause::new() };
        Self { start, records: VecDeque::new(), state: State::Idle(Box::new(feed)) }
    }

    /// Where a new subscription would go on: at the record that comes next. It is what you began with until a node has
    /// answered.
    pub fn position(&self) -> Start {
        self.records.front().map_or(self.start, |record| Start::At(record.index))
    }

    /// The next record; waits for one. None once the subscription has ended.
    ///
    /// # Errors
    /// `Trimmed`, `Rewound` and `UnknownLog` end the subscription: None comes after. `Unreachable` and
    /// `NotLeader` say that no node could be found within the client's timeout; the next call goes
    /// on looking.
    pub async fn next(&mut self) -> Option<Result<Record, ReadError>> {
        StreamExt::next(self).await
    }
}

impl Stream for ClientSubscription {
    type Item = Result<Record, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Poll::Ready(Some(Ok(record)));
            }
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Idle(feed) => self.state = State::Filling(Box::pin(feed.filled())),
                State::Filling(mut filling) => match filling.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Filling(filling);
                        return Poll::Pending;
                    }
                    Poll::Ready((feed, filled)) => {
                        self.start = feed.start;
                        self.state = State::Idle(feed);
                        match filled {
                            Ok(records) => self.records.extend(records),
                            Err(error) => {
                                if is_final(&error) {
                                    self.state = State::Ended;
                                }
                                return Poll::Ready(Some(Err(error)));
                            }
                        }
                    }
                },
            }
        }
    }
}

/// True for errors that end a subscription.
fn is_final(error: &ReadError) -> bool {
    matches!(
        error,
        ReadError::Trimmed { .. } | ReadError::Rewound { .. } | ReadError::UnknownLog { .. }
    )
}

/// Where the records come from: a stream of one node, and after it one of another.
struct Feed {
    log: ClientLog,
    /// Where the next stream begins.
    start: Start,
    /// The last record that came. The next node must have it too.
    last: Option<EntryId>,
    stream: Option<StreamReceiver>,
    pause: Pause,
}

impl Feed {
    /// `fill`, which gives the feed back.
    async fn filled(mut self: Box<Self>) -> Filled {
        let filled = self.fill().await;
        (self, filled)
    }

    /// Takes the next frame, or opens a stream. There may be no records.
    async fn fill(&mut self) -> Result<Vec<Record>, ReadError> {
        let Some(stream) = &mut self.stream else {
            self.stream = Some(self.open().await?);
            return Ok(Vec::new());
        };
        let failure = match stream.recv().await {
            Err(error) => ReadError::from_link(error),
            Ok(frame) => match Response::from_frame(&frame) {
                Ok(Response::Records { next, records }) => {
                    self.start = Start::At(next);
                    let last = records.last();
                    let id = last.map(|last| EntryId { term: last.term, index: last.index });
                    self.last = id.or(self.last);
                    self.pause = Pause::new();
                    return Ok(records);
                }
                Ok(other) => ReadError::from_response(other),
                Err(error) => ReadError::Unreachable { detail: error.to_string() },
            },
        };
        self.stream = None;
        if matches!(failure, ReadError::Trimmed { .. } | ReadError::Rewound { .. }) {
            return Err(failure);
        }
        let cluster = self.log.cluster();
        if let Some(id) = cluster.log_id(self.log.name()) {
            cluster.forget_leader(id);
        }
        if matches!(failure, ReadError::UnknownLog { .. }) {
            // Looking it up again tells whether it is gone.
            cluster.forget_log(self.log.name());
        }
        tracing::debug!(log = %self.log.name(), %failure, "a subscription is opened again");
        // The next node may have the same trouble.
        self.pause.sleep().await;
        Ok(Vec::new())
    }

    /// Opens a stream on the leader, or on another node while there is none.
    async fn open(&self) -> Result<StreamReceiver, ReadError> {
        let deadline = self.deadline();
        let cluster = self.log.cluster();
        let mut pause = Pause::new();
        loop {
            let id = self.log.id(deadline).await?;
            let mut error = ReadError::no_leader();
            let leader = cluster.find_leader(id, deadline).await;
            for node in leader.into_iter().chain(cluster.nodes()) {
                let request = Request::Subscribe { start: self.start, last: self.last };
                let opened = cluster.connect(&node, deadline).await;
                let opened =
                    opened.and_then(|()| node.link.open_stream(request.into_frame(id), FRAMES));
                match opened {
                    Ok(stream) => return Ok(stream),
                    Err(failure) => {
                        cluster.doubt_leader(id, &node);
                        error = ReadError::from_link(failure);
                    }
                }
            }
            if !pause.wait(deadline).await {
                return Err(error);
            }
        }
    }

    fn deadline(&self) -> Instant {
        self.log.deadline(AppendOptions::default())
    }
}

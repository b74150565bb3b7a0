//! A stream of committed records that outlives the nodes it comes from.

use std::collections::VecDeque;
use std::fmt;

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

/// Stream of committed records.
pub struct ClientSubscription {
    log: ClientLog,
    /// Where to go on when the stream is opened anew.
    start: Start,
    /// The last record that came. The next node must have it too.
    last: Option<EntryId>,
    stream: Option<StreamReceiver>,
    records: VecDeque<Record>,
    pause: Pause,
    ended: bool,
}

impl fmt::Debug for ClientSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSubscription")
            .field("log", self.log.name())
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl ClientSubscription {
    pub(super) fn new(log: ClientLog, start: Start) -> Self {
        let (records, pause) = (VecDeque::new(), Pause::new());
        Self { log, start, last: None, stream: None, records, pause, ended: false }
    }

    /// The next record; waits for one. Cancel safe.
    ///
    /// # Errors
    /// `Trimmed`, `Rewound` and `UnknownLog` end the subscription: None comes after. `Unreachable` and
    /// `NotLeader` say that no node could be found within the client's timeout; the next call goes
    /// on looking.
    pub async fn next(&mut self) -> Option<Result<Record, ReadError>> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Some(Ok(record));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.fill().await {
                self.ended = matches!(
                    error,
                    ReadError::Trimmed { .. }
                        | ReadError::Rewound { .. }
                        | ReadError::UnknownLog { .. }
                );
                return Some(Err(error));
            }
        }
    }

    /// Takes the next frame, or opens the stream. Ok does not mean that there are records.
    async fn fill(&mut self) -> Result<(), ReadError> {
        let Some(stream) = &mut self.stream else {
            self.stream = Some(self.open().await?);
            return Ok(());
        };
        let failure = match stream.recv().await {
            Err(error) => ReadError::from_link(error),
            Ok(frame) => match Response::from_frame(&frame) {
                Ok(Response::Records { next, records }) => {
                    self.start = Start::At(next);
                    let last = records.last();
                    let id = last.map(|last| EntryId { term: last.term, index: last.index });
                    self.last = id.or(self.last);
                    self.records.extend(records);
                    self.pause = Pause::new();
                    return Ok(());
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
            // Looking it up anew tells whether it is gone.
            cluster.forget_log(self.log.name());
        }
        tracing::debug!(log = %self.log.name(), %failure, "a subscription is opened anew");
        // The next node may have the same trouble.
        self.pause.sleep().await;
        Ok(())
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

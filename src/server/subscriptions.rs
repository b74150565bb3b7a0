//! Subscriptions of one client: records as they are committed, within the credit that it grants.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::{AbortHandle, JoinSet};

use super::ServerConfig;
use crate::error::ReadError;
use crate::format::entry::EntryId;
use crate::mutant::Mutant;
use crate::node::{CommitLog, Subscription};
use crate::panics;
use crate::record::{LogId, Record, Start};
use crate::wire::client_protocol::{RECORD_OVERHEAD, RECORDS_FRAME_OVERHEAD, Response};
use crate::wire::{Frame, Outbound, Reservation, credit_of};

/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Frames that a client may grant ahead.
const CREDIT_MAX: usize = 1 << 16;
/// A frame is sent when it has this many bytes, or when no more records are there.
const FRAME_BYTES: usize = 256 << 10;

/// Places for the subscriptions of all connections.
pub(super) struct Places {
    free: Arc<Semaphore>,
    count: u32,
}

impl Places {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let count = config.subscriptions_max;
        Self { free: Arc::new(Semaphore::new(count as usize)), count }
    }

    /// A place until the subscription ends.
    fn take(&self) -> Result<Option<OwnedSemaphorePermit>, ReadError> {
        if Mutant::SubscriptionsUnbounded.is_active() {
            return Ok(None);
        }
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) => {
                let detail = format!("this node has {} subscriptions", self.count);
                Err(ReadError::Unreachable { detail })
            }
        }
    }
}

/// The subscriptions of one connection, by correlation. Dropping it ends them.
#[derive(Default)]
pub(super) struct Subscriptions {
    streams: BTreeMap<u64, Stream>,
    tasks: JoinSet<u64>,
}

struct Stream {
    credit: Arc<Semaphore>,
    task: AbortHandle,
}

impl Subscriptions {
    /// Starts a stream; it waits for its first credit.
    pub(super) fn start(
        &mut self,
        places: &Places,
        log: CommitLog,
        from: (Start, Option<EntryId>),
        out: &Outbound,
        id: LogId,
        correlation: u64,
    ) -> Result<(), ReadError> {
        while let Some(ended) = self.tasks.try_join_next() {
            // A stream that was cancelled has been forgotten already.
            if let Ok(ended) = ended {
                self.streams.remove(&ended);
            }
        }
        if self.streams.len() >= SUBSCRIPTIONS_MAX {
            let detail = format!("this connection has {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(ReadError::Unreachable { detail });
        }
        let place = places.take()?;
        let credit = Arc::new(Semaphore::new(0));
        let sender = Sender { out: out.clone(), credit: Arc::clone(&credit), id, correlation };
        let task = self.tasks.spawn(async move {
            let _place = place;
            let out = sender.out.clone();
            // None: the client is gone.
            let running = async {
                let _ = sender.run(log, from).await;
            };
            panics::or_else(running, |panic| {
                out.close(&format!("a subscription panicked: {panic}"));
            })
            .await;
            correlation
        });
        self.streams.insert(correlation, Stream { credit, task });
        Ok(())
    }

    /// Adds credit; credit for a stream that has ended is of no use and does no harm.
    pub(super) fn credit(&self, frame: &Frame) -> Result<(), String> {
        let granted = credit_of(frame)? as usize;
        if let Some(stream) = self.streams.get(&frame.correlation) {
            if stream.credit.available_permits().saturating_add(granted) > CREDIT_MAX {
                return Err(format!("more credit than {CREDIT_MAX} frames"));
            }
            stream.credit.add_permits(granted);
        }
        Ok(())
    }

    /// Ends a stream.
    pub(super) fn cancel(&mut self, correlation: u64) {
        if let Some(stream) = self.streams.remove(&correlation) {
            stream.task.abort();
        }
    }
}

struct Sender {
    out: Outbound,
    credit: Arc<Semaphore>,
    id: LogId,
    correlation: u64,
}

impl Sender {
    /// Sends records until the log ends, or until the client is gone.
    async fn run(&self, log: CommitLog, (start, last): (Start, Option<EntryId>)) -> Option<()> {
        let start = match start {
            Start::Committed => Start::At(log.watermarks().committed),
            other => other,
        };
        if let Start::At(next) = start {
            // Now the client knows where to go on, even if no record reaches it from here.
            self.send(Response::Records { next, records: Vec::new() }, 0).await?;
        }
        let mut subscription = log.subscribe(start).behind(last);
        // What a record needs that is larger than the room was: one comes however large it is.
        let mut large = None;
        loop {
            subscription.readable().await;
            let (credit, room) = self.turn(&mut subscription, large).await?;
            let batch = Batch::gather(&mut subscription, room.bytes());
            large = batch.large;
            if let Some(last) = batch.records.last() {
                let next = last.index + 1;
                credit.forget();
                let records = Response::Records { next, records: batch.records };
                room.send(records.into_frame(self.id, self.correlation)).then_some(())?;
            }
            if let Some(end) = batch.end {
                return self.send(Response::ReadFailed(end), 0).await;
            }
        }
    }

    /// Waits for credit and for room. Nothing that was read is held meanwhile: many subscriptions may wait.
    async fn turn(
        &self,
        subscription: &mut Subscription,
        large: Option<usize>,
    ) -> Option<(SemaphorePermit<'_>, Reservation)> {
        let turn = || async {
            let credit = self.credit.acquire().await.ok()?;
            let room = match large {
                Some(bytes) => self.out.reserve(bytes).await?,
                None => self.out.reserve_up_to(FRAME_BYTES).await?,
            };
            Some((credit, room))
        };
        if let Some(turn) = turn().now_or_never() {
            return turn;
        }
        subscription.put_back();
        turn().await
    }

    /// Waits for credit and for room.
    async fn send(&self, response: Response, bytes: usize) -> Option<()> {
        self.credit.acquire().await.ok()?.forget();
        let room = self.out.reserve(bytes).await?;
        room.send(response.into_frame(self.id, self.correlation)).then_some(())
    }
}

/// The records of one frame.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    /// What the next one needs, if that is more than all the room.
    large: Option<usize>,
    /// There are no more.
    end: Option<ReadError>,
}

impl Batch {
    /// Takes what is there and has room.
    fn gather(subscription: &mut Subscription, room: usize) -> Self {
        let (mut batch, mut bytes) = (Self::default(), RECORDS_FRAME_OVERHEAD);
        while batch.end.is_none() && bytes < FRAME_BYTES {
            match subscription.next().now_or_never() {
                Some(Some(Ok(record))) => {
                    let size = record.payload.len() + RECORD_OVERHEAD;
                    if bytes + size > room {
                        batch.large = batch.records.is_empty().then_some(bytes + size);
                        subscription.unread(record);
                        break;
                    }
                    bytes += size;
                    batch.records.push(record);
                }
                Some(Some(Err(error))) => batch.end = Some(error),
                Some(None) => batch.end = Some(ReadError::Closed),
                None => break,
            }
        }
        batch
    }
}

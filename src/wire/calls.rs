//! Requests on one connection that wait for their responses, by correlation.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::outbound::SendError;
use super::{Frame, LinkError, OutFrame, Outbound, kind};
use crate::mutant::Mutant;
use crate::record::LogId;

/// Requests that may wait for a response on one connection.
const WAITING_MAX: usize = 1 << 16;

/// The dialing end of one connection.
pub(crate) struct Calls {
    addr: String,
    out: Outbound,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    next: u64,
    waiters: BTreeMap<u64, Waiter>,
    broken: Option<String>,
}

/// A share of a bound on requests in flight.
pub(crate) type Room = Option<Arc<OwnedSemaphorePermit>>;

enum Waiter {
    /// The room is given back when the response is there, whether or not the caller looks at it yet.
    Response(oneshot::Sender<Result<Frame, LinkError>>, Room),
    Stream(mpsc::Sender<Frame>),
}

impl Calls {
    pub(crate) fn new(addr: String, out: Outbound) -> Self {
        let waiting = Waiting { next: 1, waiters: BTreeMap::new(), broken: None };
        Self { addr, out, waiting: Mutex::new(waiting) }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.out.is_closed()
    }

    pub(crate) fn close(&self, reason: &str) {
        self.out.close(reason);
    }

    /// Queues a request; the response comes later.
    pub(crate) fn start(
        self: &Arc<Self>,
        frame: OutFrame,
        room: Room,
    ) -> Result<Pending, LinkError> {
        let (sender, response) = oneshot::channel();
        let correlation = self.send(frame, Waiter::Response(sender, room))?;
        Ok(Pending { response, ticket: Ticket { calls: Arc::clone(self), correlation } })
    }

    /// Queues a request that is answered by any number of frames, of which `capacity` may be under
    /// way or waiting here.
    pub(crate) fn open_stream(
        self: &Arc<Self>,
        frame: OutFrame,
        capacity: u32,
    ) -> Result<StreamReceiver, LinkError> {
        let capacity = capacity.max(1);
        let log = frame.log;
        let (sender, frames) = mpsc::channel(capacity as usize);
        let correlation = self.send(frame, Waiter::Stream(sender))?;
        let ticket = Ticket { calls: Arc::clone(self), correlation };
        let mut stream = StreamReceiver { frames, ticket, log, capacity, taken: capacity };
        stream.grant();
        Ok(stream)
    }

    fn send(&self, mut frame: OutFrame, waiter: Waiter) -> Result<u64, LinkError> {
        // The lock is held over both, so that requests are queued in the order of their numbers.
        let mut waiting = self.waiting();
        if let Some(detail) = &waiting.broken {
            return Err(self.unreachable(detail.clone()));
        }
        if waiting.waiters.len() >= WAITING_MAX {
            return Err(LinkError::Busy { addr: self.addr.clone(), queued: WAITING_MAX });
        }
        let correlation = waiting.next;
        frame.correlation = correlation;
        self.out.try_send(frame).map_err(|error| match error {
            SendError::Full { queued } => LinkError::Busy { addr: self.addr.clone(), queued },
            SendError::TooLarge { size, limit } => {
                LinkError::TooLarge { addr: self.addr.clone(), size, limit }
            }
            SendError::Closed => self.unreachable("the connection has ended".to_owned()),
        })?;
        waiting.next += 1;
        waiting.waiters.insert(correlation, waiter);
        Ok(correlation)
    }

    fn unreachable(&self, detail: String) -> LinkError {
        LinkError::Unreachable { addr: self.addr.clone(), detail }
    }

    /// Gives a frame to whoever waits for it; frames that nobody waits for any more are dropped.
    pub(crate) fn deliver(&self, frame: Frame) -> Result<(), String> {
        let mut waiting = self.waiting();
        if let Some(Waiter::Stream(frames)) = waiting.waiters.get(&frame.correlation) {
            let correlation = frame.correlation;
            return match frames.try_send(frame) {
                Err(mpsc::error::TrySendError::Full(_)) => {
                    Err(format!("stream {correlation} was sent more than its credit"))
                }
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            };
        }
        let mut waiter = waiting.waiters.remove(&frame.correlation);
        if waiter.is_none() && Mutant::StaleReplyAccepted.is_active() {
            waiter = waiting.waiters.pop_first().map(|(_, oldest)| oldest);
        }
        drop(waiting);
        if let Some(Waiter::Response(response, room)) = waiter {
            drop(room);
            // Fails if the caller has just given up.
            let _ = response.send(Ok(frame));
        }
        Ok(())
    }

    /// The connection is gone: all that wait learn why.
    pub(crate) fn fail_all(&self, detail: &str) {
        self.close(detail);
        let mut waiting = self.waiting();
        waiting.broken.get_or_insert_with(|| detail.to_owned());
        let waiters = std::mem::take(&mut waiting.waiters);
        drop(waiting);
        for waiter in waiters.into_values() {
            // Streams see that their sender is gone, and ask for the reason.
            if let Waiter::Response(response, _) = waiter {
                let _ = response.send(Err(self.broken()));
            }
        }
    }

    fn broken(&self) -> LinkError {
        let detail = self.waiting().broken.clone();
        let detail = detail.unwrap_or_else(|| "its task has ended".to_owned());
        LinkError::Broken { addr: self.addr.clone(), detail }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting().waiters.len()
    }
}

/// A place among the waiting; dropping it gives it up.
struct Ticket {
    calls: Arc<Calls>,
    correlation: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.calls.waiting().waiters.remove(&self.correlation);
    }
}

/// Response to one request. Dropping it forgets the request, which may still be carried out.
pub(crate) struct Pending {
    response: oneshot::Receiver<Result<Frame, LinkError>>,
    ticket: Ticket,
}

impl Future for Pending {
    type Output = Result<Frame, LinkError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.response)
            .poll(cx)
            .map(|response| response.unwrap_or_else(|_| Err(self.ticket.calls.broken())))
    }
}

/// Frames of one stream. Its sender may be ahead of `recv` by the capacity, and no more. Dropping
/// it cancels the stream.
pub(crate) struct StreamReceiver {
    frames: mpsc::Receiver<Frame>,
    ticket: Ticket,
    log: LogId,
    capacity: u32,
    /// Taken and not yet granted anew.
    taken: u32,
}

#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "streams are for clients"))]
impl StreamReceiver {
    /// The next frame. Cancel safe. After an error there are no more.
    pub(crate) async fn recv(&mut self) -> Result<Frame, LinkError> {
        let Some(frame) = self.frames.recv().await else {
            return Err(self.ticket.calls.broken());
        };
        self.taken += 1;
        if self.taken >= self.capacity.div_ceil(2) {
            self.grant();
        }
        Ok(frame)
    }

    fn grant(&mut self) {
        let credit = std::mem::take(&mut self.taken);
        self.tell(kind::CREDIT, &credit.to_le_bytes());
    }

    fn tell(&self, kind: u8, head: &[u8]) {
        // If the queue is full of requests, the connection is beyond help: `send_head` closes it.
        self.ticket.calls.out.send_head(kind, self.log, self.ticket.correlation, head);
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        self.tell(kind::CANCEL, &[]);
    }
}

/// The credit that a `CREDIT` frame grants.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "streams are for clients"))]
pub(crate) fn credit_of(frame: &Frame) -> Result<u32, String> {
    let bytes = frame.head.as_ref().try_into();
    bytes.map(u32::from_le_bytes).map_err(|_| "a credit is not 4 bytes".to_owned())
}

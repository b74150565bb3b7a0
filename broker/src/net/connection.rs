//! One client's connection: a task that reads and answers, and a task that writes.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use quorumlog::seam::Duplex;
use tokio::io::AsyncRead;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::listener::Service;
use super::long_answers::LongQuestions;
use super::pending_request::PendingRequest;
use super::relay::Relay;
use crate::mutant::Mutant;
use crate::remoting::codes::response;
use crate::remoting::{
    Account, Activity, Budget, Command, FrameError, FrameReader, Reply, Room, Share, cost_of,
    write_queued,
};
use crate::settings::BrokerConfig;

/// Requests of one connection that may be under way at once: as many queues can be pulled from at a time.
const REQUESTS_MAX: usize = 4096;
/// Bytes of them.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Bytes of answers of one connection that wait. One that is larger goes alone.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes that requests of one connection hold while they are parked. So many that fewer are parked than may be under way:
/// what else comes on the connection, such as its heartbeats, is always read.
const PARKED_BYTES_MAX: usize = 7 << 20;
/// Requests of one connection that are begun before others have their turn. Those that are answered at once, or wait, never
/// give it up by themselves.
const TURN_REQUESTS: usize = 32;
/// A frame counts for one more of them for each so many of its bytes: a batch of thousands of messages is one request.
const TURN_BYTES: usize = 2 << 10;
/// What a request takes besides its bytes.
const REQUEST_BYTES: usize = 2 << 10;
/// Answers that wait to be written.
const QUEUE_MAX: usize = 256;

/// Bytes that all connections of a node may hold.
pub(crate) struct Budgets {
    requests: Arc<Budget>,
    answers: Arc<Budget>,
    parked: Arc<Budget>,
}

impl Budgets {
    pub(crate) fn new(config: &BrokerConfig) -> Self {
        Self {
            requests: Budget::new(config.request_bytes_max),
            answers: Budget::new(config.answer_bytes_max),
            parked: Budget::new(config.waiting_bytes_max),
        }
    }
}

/// What is on its way to a client, counted until it is written.
#[derive(Clone)]
pub(crate) struct Out {
    queue: mpsc::Sender<Vec<Bytes>>,
    share: Arc<Share>,
}

impl Out {
    pub(crate) fn new(queue: mpsc::Sender<Vec<Bytes>>, share: Arc<Share>) -> Self {
        Self { queue, share }
    }

    /// Sends something at once. It is lost if the queue is full, the connection has ended, or too much waits already.
    fn try_send(&self, chunks: Vec<Bytes>) {
        let cost = cost_of(&chunks);
        if !self.share.has_room(cost) {
            return;
        }
        self.share.take(cost);
        if self.queue.try_send(chunks).is_err() {
            self.share.give_back(cost);
        }
    }

    /// Sends something once there is room in the queue. False if the connection has ended.
    pub(crate) async fn send(&self, chunks: Vec<Bytes>) -> bool {
        let Ok(place) = self.queue.reserve().await else { return false };
        self.share.take(cost_of(&chunks));
        place.send(chunks);
        true
    }

    /// What answers of this connection hold.
    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.share
    }
}

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) number: u64,
    remote: SocketAddr,
    out: Out,
    requests: Arc<Share>,
    parked: Arc<Share>,
    long_questions: LongQuestions,
    activity: Arc<Activity>,
    /// Requests that are not answered yet.
    under_way: AtomicUsize,
    /// True once it brought a request.
    asked: AtomicBool,
    /// Set on a connection from another broker: the client that it speaks for.
    relayed: OnceLock<SocketAddr>,
    pub(crate) relay: Relay,
    end: Notify,
}

impl Connection {
    /// A connection, and the queue of answers to write to it.
    pub(crate) fn new(
        number: u64,
        remote: SocketAddr,
        budgets: &Budgets,
    ) -> (Arc<Self>, mpsc::Receiver<Vec<Bytes>>) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let out = Out::new(sender, Share::new(&budgets.answers, ANSWER_BYTES_MAX));
        let connection = Self {
            number,
            remote,
            out,
            requests: Share::new(&budgets.requests, REQUEST_BYTES_MAX),
            parked: Share::new(&budgets.parked, PARKED_BYTES_MAX),
            long_questions: LongQuestions::default(),
            activity: Arc::default(),
            under_way: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            relayed: OnceLock::new(),
            relay: Relay::default(),
            end: Notify::new(),
        };
        (Arc::new(connection), queue)
    }

    /// The client's address.
    pub(crate) fn client(&self) -> SocketAddr {
        self.relayed.get().copied().unwrap_or(self.remote)
    }

    /// True if another broker passes a client's requests on.
    pub(crate) fn is_relayed(&self) -> bool {
        self.relayed.get().is_some()
    }

    /// Notes that what follows comes from `client`.
    pub(crate) fn set_relayed(&self, client: SocketAddr) {
        // Said once; a second time changes nothing.
        let _ = self.relayed.set(client);
    }

    /// Sends something unasked for. If the queue is full the client does not hear of it, and finds out by itself.
    pub(crate) fn tell(&self, chunks: Vec<Bytes>) {
        self.out.try_send(chunks);
    }

    /// Ends the connection. For what it waits for this says that nobody knows.
    pub(crate) fn end(&self) {
        self.end.notify_one();
    }

    /// A way to send to the client.
    pub(crate) fn out(&self) -> &Out {
        &self.out
    }

    /// What parked requests of this connection hold.
    pub(crate) fn parked(&self) -> &Arc<Share> {
        &self.parked
    }

    pub(crate) fn long_questions(&self) -> &LongQuestions {
        &self.long_questions
    }

    /// True once it brought a request.
    pub(crate) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// True while a request of it is not answered.
    pub(crate) fn waits(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// As if requests had come, and so many were not answered.
    #[cfg(test)]
    pub(crate) fn set_state(&self, asked: bool, under_way: usize) {
        self.asked.store(asked, Ordering::Relaxed);
        self.under_way.store(under_way, Ordering::Relaxed);
    }

    /// When either end last sent a byte.
    pub(crate) fn last_active(&self) -> Instant {
        self.activity.last()
    }
}

/// Tells the service of a connection's end, however it came.
struct Served {
    connection: Arc<Connection>,
    service: Arc<dyn Service>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.service.closed(&self.connection);
    }
}

/// Serves a connection to its end, which comes too if neither end sends anything for `idle_timeout`.
pub(crate) async fn serve(
    stream: Box<dyn Duplex>,
    (connection, queue): (Arc<Connection>, mpsc::Receiver<Vec<Bytes>>),
    service: Arc<dyn Service>,
    idle_timeout: Duration,
) {
    let remote = connection.remote;
    let (reader, writer) = tokio::io::split(stream);
    let mut writing = JoinSet::new();
    let account = Account {
        share: Some(Arc::clone(&connection.out.share)),
        activity: Arc::clone(&connection.activity),
    };
    writing.spawn(write_queued(writer, queue, account));
    let served = Served { connection: Arc::clone(&connection), service };
    tokio::select! {
        answered = answer_all(reader, &served) => if let Err(error) = answered {
            tracing::debug!(%remote, %error, "a connection ends");
        },
        // The writer ends only when the connection is broken, or its client takes nothing.
        () = connection.out.queue.closed() => {}
        () = connection.end.notified() => {}
        () = connection.activity.idle(idle_timeout) => {
            tracing::debug!(%remote, ?idle_timeout, "an idle connection ends");
        }
    }
    drop(served);
    connection.relay.close().await;
}

/// A request that is not answered at once, with the room that it takes beside its bytes.
struct UnderWay {
    answer: BoxFuture<'static, Option<Vec<Bytes>>>,
    _room: Room,
}

impl Future for UnderWay {
    type Output = Option<Vec<Bytes>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx)
    }
}

/// Requests that are under way, and answers that wait for room in the queue of what is to be written.
#[derive(Default)]
struct Answering {
    under_way: FuturesUnordered<UnderWay>,
    done: VecDeque<Vec<Bytes>>,
}

impl Answering {
    fn is_full(&self) -> bool {
        self.under_way.len() + self.done.len() >= REQUESTS_MAX
    }

    fn put(&mut self, answer: Option<Vec<Bytes>>, out: &Out) {
        let Some(chunks) = answer else { return };
        out.share.take(cost_of(&chunks));
        if !self.done.is_empty() {
            self.done.push_back(chunks);
        } else if let Err(TrySendError::Full(chunks)) = out.queue.try_send(chunks) {
            self.done.push_back(chunks);
        }
    }
}

/// The answer to a request whose header cannot be read; none if it needs none.
fn refused(request: &Command, problem: &str) -> Option<Vec<Bytes>> {
    tracing::debug!(opaque = request.head.opaque, problem, "a header that cannot be read");
    let remark = format!("the header cannot be read: {problem}");
    let reply = Reply::refused(response::SYSTEM_ERROR, remark);
    (!request.is_answer() && !request.is_oneway()).then(|| reply.encode(request))
}

/// The next request, once the connection may have another one under way.
async fn next(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
    connection: &Connection,
) -> io::Result<Option<Bytes>> {
    // What has begun is finished, and what has come is begun: each holds what others wait for.
    if !reader.is_within_frame() {
        if !reader.has_frame() {
            connection.requests.ready().await;
        }
        connection.out.share.ready().await;
    }
    reader.next().await
}

/// Answers requests until no more come, in this task: one for each request costs as much as what is done for it. Those
/// under way go on while answers wait to be written, since they may hold what other connections wait for.
async fn answer_all(reader: impl AsyncRead + Unpin, served: &Served) -> io::Result<()> {
    let Served { connection, service } = served;
    let out = &connection.out;
    let requests = Arc::clone(&connection.requests);
    let mut reader = FrameReader::new(reader, requests, Arc::clone(&connection.activity));
    let mut answering = Answering::default();
    let mut turn = 0;
    loop {
        if turn >= TURN_REQUESTS && !Mutant::RequestsInOneTurn.is_active() {
            turn = 0;
            tokio::task::yield_now().await;
        }
        connection.under_way.store(answering.under_way.len(), Ordering::Relaxed);
        tokio::select! {
            biased;
            Some(answer) = answering.under_way.next() => answering.put(answer, out),
            room = out.queue.reserve(), if !answering.done.is_empty() => {
                let room = room.map_err(|_| io::ErrorKind::BrokenPipe)?;
                if let Some(chunks) = answering.done.pop_front() {
                    room.send(chunks);
                }
            }
            frame = next(&mut reader, connection), if !answering.is_full() => {
                let Some(frame) = frame? else { return Ok(()) };
                turn += 1 + frame.len() / TURN_BYTES;
                let command = match Command::decode(frame.clone()) {
                    Err(FrameError::Header { problem, request })
                        if !Mutant::UnreadableHeaderEndsConnection.is_active() =>
                    {
                        answering.put(refused(&request, &problem), out);
                        continue;
                    }
                    decoded => decoded?,
                };
                if command.is_answer() {
                    continue;
                }
                connection.asked.store(true, Ordering::Relaxed);
                let service = Arc::clone(service);
                let request = PendingRequest::new(frame, command);
                let mut answer = service.answer(Arc::clone(connection), request);
                // The first step is taken here, so that messages keep the order in which they came.
                match tokio::task::unconstrained(&mut answer).now_or_never() {
                    Some(answer) => answering.put(answer, out),
                    None => {
                        let room = Room::taken(&connection.requests, REQUEST_BYTES);
                        answering.under_way.push(UnderWay { answer, _room: room });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

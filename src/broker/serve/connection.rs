//! One client's connection: a task that reads and answers, and a task that writes.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::listener::Service;
use super::relay::Relay;
use crate::broker::remoting::codes::response;
use crate::broker::remoting::{Command, FrameError, Reply, read_frame, write_queued};
use crate::mutant::Mutant;

/// Requests of one connection that may be under way at once: as many queues can be pulled from at a time.
const REQUESTS_MAX: usize = 4096;
/// Answers that wait to be written.
const QUEUE_MAX: usize = 256;

/// A client's connection.
pub(super) struct Connection {
    pub(super) number: u64,
    remote: SocketAddr,
    out: mpsc::Sender<Vec<Bytes>>,
    /// Set on a connection from another broker: the client that it speaks for.
    relayed: OnceLock<SocketAddr>,
    pub(super) relay: Relay,
    end: Notify,
}

impl Connection {
    /// The client's address.
    pub(super) fn client(&self) -> SocketAddr {
        self.relayed.get().copied().unwrap_or(self.remote)
    }

    /// True if another broker passes a client's requests on.
    pub(super) fn is_relayed(&self) -> bool {
        self.relayed.get().is_some()
    }

    /// Notes that what follows comes from `client`.
    pub(super) fn set_relayed(&self, client: SocketAddr) {
        // Said once; a second time changes nothing.
        let _ = self.relayed.set(client);
    }

    /// Sends something unasked for. If the queue is full the client does not hear of it, and finds out by itself.
    pub(super) fn tell(&self, chunks: Vec<Bytes>) {
        let _ = self.out.try_send(chunks);
    }

    /// Ends the connection: what it waits for is not known, and no answer says that.
    pub(super) fn end(&self) {
        self.end.notify_one();
    }

    /// A way to send to the client.
    pub(super) fn sender(&self) -> mpsc::Sender<Vec<Bytes>> {
        self.out.clone()
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

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    number: u64,
    service: Arc<dyn Service>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%remote, %error, "cannot switch off Nagle's algorithm");
    }
    let (reader, writer) = stream.into_split();
    let (out, queue) = mpsc::channel(QUEUE_MAX);
    let relayed = OnceLock::new();
    let connection = Arc::new(Connection {
        number,
        remote,
        out,
        relayed,
        relay: Relay::default(),
        end: Notify::new(),
    });
    let mut writing = JoinSet::new();
    writing.spawn(write_queued(writer, queue));
    let served = Served { connection: Arc::clone(&connection), service };
    tokio::select! {
        answered = answer_all(reader, &served) => if let Err(error) = answered {
            tracing::debug!(%remote, %error, "a connection ends");
        },
        // The writer ends only when the connection is broken.
        () = connection.out.closed() => {}
        () = connection.end.notified() => {}
    }
    drop(served);
    connection.relay.close().await;
}

/// Requests that are under way, and answers that wait for room in the queue of what is to be written.
#[derive(Default)]
struct Answering {
    under_way: FuturesUnordered<BoxFuture<'static, Option<Vec<Bytes>>>>,
    done: VecDeque<Vec<Bytes>>,
}

impl Answering {
    fn is_full(&self) -> bool {
        self.under_way.len() + self.done.len() >= REQUESTS_MAX
    }

    fn put(&mut self, answer: Option<Vec<Bytes>>, out: &mpsc::Sender<Vec<Bytes>>) {
        let Some(chunks) = answer else { return };
        if !self.done.is_empty() {
            self.done.push_back(chunks);
        } else if let Err(TrySendError::Full(chunks)) = out.try_send(chunks) {
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

/// Answers requests until no more come, in this task: one for each request costs as much as what is done for it. Those
/// under way go on while answers wait to be written, since they may hold what other connections wait for.
async fn answer_all(mut reader: OwnedReadHalf, served: &Served) -> io::Result<()> {
    let Served { connection, service } = served;
    let mut answering = Answering::default();
    let mut buffer = BytesMut::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = answering.under_way.next() => answering.put(answer, &connection.out),
            room = connection.out.reserve(), if !answering.done.is_empty() => {
                let room = room.map_err(|_| io::ErrorKind::BrokenPipe)?;
                if let Some(chunks) = answering.done.pop_front() {
                    room.send(chunks);
                }
            }
            frame = read_frame(&mut reader, &mut buffer), if !answering.is_full() => {
                let Some(frame) = frame? else { return Ok(()) };
                let command = match Command::decode(frame.clone()) {
                    Err(FrameError::Header { problem, request })
                        if !Mutant::UnreadableHeaderEndsConnection.is_active() =>
                    {
                        answering.put(refused(&request, &problem), &connection.out);
                        continue;
                    }
                    decoded => decoded?,
                };
                if command.is_answer() {
                    continue;
                }
                let service = Arc::clone(service);
                let mut answer = service.answer(Arc::clone(connection), frame, command);
                // The first step is taken here, so that messages keep the order in which they came.
                match tokio::task::unconstrained(&mut answer).now_or_never() {
                    Some(answer) => answering.put(answer, &connection.out),
                    None => answering.under_way.push(answer),
                }
            }
        }
    }
}

//! Passes a client's requests on to the node that leads: a connection there for each connection here, so that the
//! leader knows the client, and what it says unasked reaches it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::connection::Connection;
use crate::broker::remoting::codes::{request, response};
use crate::broker::remoting::{Command, Fields, read_frame, write_queued};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const QUEUE_MAX: usize = 256;
/// Requests that wait for the leader's answer.
const PENDING_MAX: usize = 4096;

/// The way to the leader, if it was needed.
#[derive(Default)]
pub(super) struct Relay {
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// Why the leader did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayError {
    /// It was not reached, or does not lead: nothing was done.
    NotDone,
    /// The connection broke before the answer came.
    Lost,
}

type Pending = Mutex<BTreeMap<i32, oneshot::Sender<Result<Vec<Bytes>, RelayError>>>>;

struct Link {
    addr: String,
    out: mpsc::Sender<Vec<Bytes>>,
    pending: Arc<Pending>,
    /// Reader and writer; they end with the link.
    tasks: JoinSet<()>,
}

/// A frame with its length word in front again.
fn framed(frame: Bytes) -> Vec<Bytes> {
    let mut length = BytesMut::with_capacity(4);
    length.put_u32(frame.len() as u32);
    vec![length.freeze(), frame]
}

impl Relay {
    /// Has a request answered by the node at `addr`. None for one that needs no answer.
    ///
    /// # Errors
    /// It did not answer.
    pub(super) async fn pass(
        &self,
        client: &Connection,
        addr: &str,
        frame: &Bytes,
        command: &Command,
    ) -> Result<Option<Vec<Bytes>>, RelayError> {
        let link = self.link(client, addr).await?;
        if command.is_oneway() {
            let sent = link.out.send(framed(frame.clone())).await;
            return sent.map(|()| None).map_err(|_| RelayError::NotDone);
        }
        let (sender, answer) = oneshot::channel();
        {
            let mut pending = link.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.len() >= PENDING_MAX {
                return Err(RelayError::NotDone);
            }
            pending.insert(command.head.opaque, sender);
        }
        link.out.send(framed(frame.clone())).await.map_err(|_| RelayError::NotDone)?;
        answer.await.unwrap_or(Err(RelayError::Lost)).map(Some)
    }

    /// Ends the connection to the leader.
    pub(super) async fn close(&self) {
        self.link.lock().await.take();
    }

    async fn link(&self, client: &Connection, addr: &str) -> Result<Arc<Link>, RelayError> {
        let mut held = self.link.lock().await;
        if let Some(link) = held.as_ref().filter(|link| link.addr == addr && !link.out.is_closed())
        {
            return Ok(Arc::clone(link));
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addr));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            _ => return Err(RelayError::NotDone),
        };
        // Only latency suffers without it.
        let _ = stream.set_nodelay(true);
        let link = Arc::new(Link::start(stream, addr, client));
        let hello = hello(client.client());
        link.out.send(hello).await.map_err(|_| RelayError::NotDone)?;
        *held = Some(Arc::clone(&link));
        Ok(link)
    }
}

fn hello(client: SocketAddr) -> Vec<Bytes> {
    let fields: Fields = [("client", client.to_string())].into_iter().collect();
    Command::request(request::RELAY, 0, fields).oneway().encode()
}

impl Link {
    fn start(stream: TcpStream, addr: &str, client: &Connection) -> Self {
        let (reader, writer) = stream.into_split();
        let (out, queue) = mpsc::channel(QUEUE_MAX);
        let pending = Arc::new(Pending::default());
        let mut tasks = JoinSet::new();
        let to_client = client.sender();
        let reading = read(reader, Arc::clone(&pending), to_client);
        tasks.spawn(async move {
            // Either end closes the queue, so that the link is seen to be broken.
            tokio::select! {
                () = reading => {}
                () = write_queued(writer, queue) => {}
            }
        });
        Self { addr: addr.to_owned(), out, pending, tasks }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// Hands answers to those who wait, and what else comes to the client. At the end nobody waits any more.
async fn read(mut from: OwnedReadHalf, pending: Arc<Pending>, to_client: mpsc::Sender<Vec<Bytes>>) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(frame)) = read_frame(&mut from, &mut buffer).await {
        let Ok(command) = Command::decode(frame.clone()) else { break };
        if !command.is_answer() {
            if to_client.send(framed(frame)).await.is_err() {
                break;
            }
            continue;
        }
        let mut waiting = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiter) = waiting.remove(&command.head.opaque) else { continue };
        let not_leading = command.head.code == response::NOT_LEADING;
        // Who asked may have gone.
        let _ = waiter.send(if not_leading { Err(RelayError::NotDone) } else { Ok(framed(frame)) });
    }
    pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

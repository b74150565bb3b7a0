//! Passes a client's requests on to the node that leads: a connection there for each connection here, so that the
//! leader knows the client, and what it says unasked reaches it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::Connection;
use crate::broker::remoting::codes::{request, response};
use crate::broker::remoting::{Command, Fields, Waiting, read_frame, write_queued};

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

/// What the leader answered, framed; an error if it does not lead.
type Answer = Result<Vec<Bytes>, RelayError>;

struct Link {
    addr: String,
    out: mpsc::Sender<Vec<Bytes>>,
    waiting: Arc<Waiting<Answer>>,
    /// Reader and writer; they end with the link.
    _tasks: JoinSet<()>,
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
        self.link(client, addr).await?.pass(frame, command).await
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
        let link = Arc::new(Link::start(stream.into_split(), addr, client.sender()));
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
    async fn pass(
        &self,
        frame: &Bytes,
        command: &Command,
    ) -> Result<Option<Vec<Bytes>>, RelayError> {
        if command.is_oneway() {
            let sent = self.out.send(framed(frame.clone())).await;
            return sent.map(|()| None).map_err(|_| RelayError::NotDone);
        }
        let mut waiter = self.waiting.begin(command.head.opaque).ok_or(RelayError::NotDone)?;
        self.out.send(framed(frame.clone())).await.map_err(|_| RelayError::NotDone)?;
        waiter.answer().await.unwrap_or(Err(RelayError::Lost)).map(Some)
    }

    fn start(
        (reader, writer): (
            impl AsyncRead + Unpin + Send + 'static,
            impl AsyncWrite + Unpin + Send + 'static,
        ),
        addr: &str,
        to_client: mpsc::Sender<Vec<Bytes>>,
    ) -> Self {
        let (out, queue) = mpsc::channel(QUEUE_MAX);
        let waiting = Waiting::new(PENDING_MAX);
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&waiting);
        tasks.spawn(async move {
            // Either end closes the queue, so that the link is seen to be broken.
            tokio::select! {
                () = read(reader, &shared, to_client) => {}
                () = write_queued(writer, queue) => {}
            }
            shared.end();
        });
        Self { addr: addr.to_owned(), out, waiting, _tasks: tasks }
    }
}

/// Hands answers to those who wait, and what else comes to the client, until the connection ends.
async fn read(
    mut from: impl AsyncRead + Unpin,
    waiting: &Waiting<Answer>,
    to_client: mpsc::Sender<Vec<Bytes>>,
) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(frame)) = read_frame(&mut from, &mut buffer).await {
        let Ok(command) = Command::decode(frame.clone()) else { break };
        if command.is_answer() {
            let not_leading = command.head.code == response::NOT_LEADING;
            let answer = if not_leading { Err(RelayError::NotDone) } else { Ok(framed(frame)) };
            waiting.answered(command.head.opaque, answer);
        } else if to_client.send(framed(frame)).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(link: &Link) -> RelayError {
        let command = Command::request(request::GET_MAX_OFFSET, 1, Fields::default());
        let frame = Bytes::from(command.clone().encode().concat()).slice(4..);
        let passed = link.pass(&frame, &command);
        let answered = tokio::time::timeout(Duration::from_secs(10), passed).await;
        answered.expect("it is told that no answer comes").expect_err("there is no answer")
    }

    /// Either half may be the first that sees it.
    #[tokio::test]
    async fn nobody_waits_for_an_answer_when_the_connection_cannot_be_written() {
        let (reader, _open) = tokio::io::duplex(64);
        let (writer, _) = tokio::io::duplex(64);
        let link = Link::start((reader, writer), "a node", mpsc::channel(1).0);
        assert_eq!(asked(&link).await, RelayError::Lost);
        assert_eq!(asked(&link).await, RelayError::NotDone);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_answer_when_the_connection_has_ended() {
        let (reader, _) = tokio::io::duplex(64);
        let (writer, _open) = tokio::io::duplex(64);
        let link = Link::start((reader, writer), "a node", mpsc::channel(1).0);
        assert_eq!(asked(&link).await, RelayError::Lost);
        assert_eq!(asked(&link).await, RelayError::NotDone);
    }
}

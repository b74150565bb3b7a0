//! One client's connection: a task that reads, a task that writes, and a task for each request that has to wait.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::listener::Service;
use super::relay::Relay;
use crate::broker::remoting::{Command, read_frame, write_queued};

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
    let (mut reader, writer) = stream.into_split();
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
    let mut tasks = JoinSet::new();
    tasks.spawn(write_queued(writer, queue));
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut buffer = BytesMut::new();
    loop {
        let next = async {
            let frame = read_frame(&mut reader, &mut buffer).await?;
            let decode = |frame: Bytes| Ok((Command::decode(frame.clone())?, frame));
            frame.map(decode).transpose()
        };
        let read: std::io::Result<_> = tokio::select! {
            read = next => read,
            // The writer ends only when the connection is broken.
            () = connection.out.closed() => break,
            () = connection.end.notified() => break,
        };
        let (command, frame) = match read {
            Ok(Some(read)) => read,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%remote, %error, "a connection ends");
                break;
            }
        };
        if command.is_answer() {
            continue;
        }
        while tasks.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let mut answering = Arc::clone(&service).answer(Arc::clone(&connection), frame, command);
        // The first step is taken here, so that messages keep the order in which they came.
        match tokio::task::unconstrained(&mut answering).now_or_never() {
            Some(None) => {}
            Some(Some(chunks)) => drop(connection.out.send(chunks).await),
            None => {
                let out = connection.out.clone();
                tasks.spawn(async move {
                    if let Some(chunks) = answering.await {
                        // If the connection has ended, nobody waits for it.
                        let _ = out.send(chunks).await;
                    }
                    drop(place);
                });
            }
        }
    }
    service.closed(&connection);
    connection.relay.close().await;
}

//! A client: many appends under way on one connection, sent together and acknowledged one by one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

use crate::node::Counts;
use crate::records::{ACK, Purpose, encode, invalid};

/// Acknowledgements read at once.
const INBOX: usize = 64 << 10;

/// A client of the leader. Cheap to clone; the clones share the connection.
#[derive(Debug, Clone)]
pub struct Client(Arc<Connection>);

/// The tasks of the connection end when the last clone of the client is dropped.
#[derive(Debug)]
struct Connection(Arc<Shared>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to send, or nothing any more.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    out: Vec<u8>,
    /// Of each record that was sent, in order; none where a later record of the same batch has it.
    waiting: VecDeque<Option<oneshot::Sender<u64>>>,
    /// Number of the next record, and of the first that waits.
    next: u64,
    acknowledged: u64,
    closed: bool,
}

impl Client {
    /// Connects to the leader. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The leader does not listen there.
    pub async fn connect(addr: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&Purpose::Append.hello()).await?;
        let shared = Arc::new(Shared::default());
        let (read, write) = stream.into_split();
        let (reader, writer) = (Arc::clone(&shared), Arc::clone(&shared));
        tokio::spawn(async move {
            // Those who wait see that it ended.
            let _: io::Result<()> = receive(&reader, read).await;
            reader.close();
        });
        tokio::spawn(async move {
            let _: io::Result<()> = send(&writer, write).await;
            writer.close();
        });
        Ok(Self(Arc::new(Connection(shared))))
    }

    /// Appends records, and gives the position of the last once a majority holds them.
    ///
    /// # Errors
    /// The connection has ended; it is not known whether they were appended.
    pub async fn append(&self, payloads: &[Bytes]) -> io::Result<u64> {
        let (ready, wait) = oneshot::channel();
        let shared = &self.0.0;
        shared.state().push(payloads, ready)?;
        shared.changed.notify_one();
        wait.await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    fn push(&mut self, payloads: &[Bytes], ready: oneshot::Sender<u64>) -> io::Result<()> {
        let [before @ .., last] = payloads else { return Err(invalid("no records")) };
        if self.closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        for payload in before {
            self.push_one(payload, None)?;
        }
        self.push_one(last, Some(ready))
    }

    fn push_one(&mut self, payload: &[u8], ready: Option<oneshot::Sender<u64>>) -> io::Result<()> {
        encode(self.next, payload, &mut self.out)?;
        self.next += 1;
        self.waiting.push_back(ready);
        Ok(())
    }

    fn acknowledge(&mut self, number: u64, position: u64) -> io::Result<()> {
        let waiting = self.waiting.pop_front().filter(|_| number == self.acknowledged);
        let ready = waiting.ok_or_else(|| invalid("an acknowledgement that nobody waits for"))?;
        self.acknowledged += 1;
        if let Some(ready) = ready {
            // Dropped: whoever waited does not want to know any more.
            let _ = ready.send(position);
        }
        Ok(())
    }
}

async fn send(shared: &Shared, mut stream: OwnedWriteHalf) -> io::Result<()> {
    let mut out = Vec::new();
    loop {
        shared.changed.notified().await;
        loop {
            {
                let mut state = shared.state();
                if state.closed {
                    return Ok(());
                }
                std::mem::swap(&mut state.out, &mut out);
            }
            if out.is_empty() {
                break;
            }
            stream.write_all(&out).await?;
            out.clear();
        }
    }
}

async fn receive(shared: &Shared, mut stream: OwnedReadHalf) -> io::Result<()> {
    let mut inbox = vec![0; INBOX];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut inbox[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (acks, _) = inbox[..filled].as_chunks::<ACK>();
        let used = acks.len() * ACK;
        {
            let mut state = shared.state();
            for ack in acks {
                let (number, position) = number_and_position(*ack);
                state.acknowledge(number, position)?;
            }
        }
        inbox.copy_within(used..filled, 0);
        filled -= used;
    }
}

fn number_and_position(bytes: [u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(bytes);
    (both as u64, (both >> 64) as u64)
}

/// Asks a node what it did so far.
///
/// # Errors
/// It does not answer.
pub async fn counts(addr: &str) -> io::Result<Counts> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(&Purpose::Counts.hello()).await?;
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).await?;
    let (flushes, bytes) = number_and_position(answer);
    Ok(Counts { flushes, bytes })
}

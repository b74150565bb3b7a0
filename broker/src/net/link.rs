//! One connection with many requests under way: a task that writes, a task that reads, and those who wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorumlog::seam::Transport;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::remoting::{Account, Command, Fields, Queued, Waiting, read_frame, write_queued};

/// Requests that wait to be written.
const QUEUE_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Link {
    out: mpsc::Sender<Vec<Bytes>>,
    waiting: Arc<Waiting<Command>>,
    last_number: AtomicI32,
    /// They end with the link.
    _tasks: JoinSet<()>,
}

impl Link {
    pub(crate) async fn connect(transport: &dyn Transport, addr: &str) -> io::Result<Self> {
        let (reader, writer) = tokio::io::split(transport.dial(addr).await?);
        let (out, queue) = mpsc::channel(QUEUE_MAX);
        let waiting = Waiting::new(usize::MAX);
        let shared = Arc::clone(&waiting);
        let reading = async move { read(reader, &shared).await };
        let tasks = serve_ends(&waiting, reading, writer, queue);
        Ok(Self { out, waiting, last_number: AtomicI32::new(0), _tasks: tasks })
    }

    /// True once the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Has something answered.
    ///
    /// # Errors
    /// The connection ended, or no answer came in time. What was asked may have been done.
    pub(crate) async fn call(
        &self,
        code: i32,
        fields: Fields,
        body: Bytes,
        timeout: Duration,
    ) -> io::Result<Command> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut waiter = self.waiting.begin(number).ok_or(io::ErrorKind::BrokenPipe)?;
        let mut request = Command::request(code, number, fields);
        request.body = body;
        self.out.send(request.encode()).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        match tokio::time::timeout(timeout, waiter.answer()).await {
            Ok(answer) => answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A task that reads, and writes what is queued. When either ends, so does the other: the queue closes, which shows that the
/// connection is broken, and nobody waits for an answer any more.
pub(super) fn serve_ends<T: Send + 'static>(
    waiting: &Arc<Waiting<T>>,
    reading: impl Future<Output = ()> + Send + 'static,
    writer: impl AsyncWrite + Unpin + Send + 'static,
    queue: mpsc::Receiver<impl Queued + Send + 'static>,
) -> JoinSet<()> {
    let ends = waiting.ends_with();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ends = ends;
        tokio::select! {
            () = reading => {}
            () = write_queued(writer, queue, Account::default()) => {}
        }
    });
    tasks
}

/// Hands answers to those who wait for them, until the connection ends.
async fn read(mut from: impl AsyncRead + Unpin, waiting: &Waiting<Command>) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(frame)) = read_frame(&mut from, &mut buffer).await {
        let Ok(answer) = Command::decode(frame) else { break };
        // What a broker asks of its clients is for consumers.
        if answer.is_answer() {
            waiting.answered(answer.head.opaque, answer);
        }
    }
}

//! One connection with many requests under way: a task that writes, a task that reads, and those who wait.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::broker::remoting::{Command, Fields, read_frame, write_queued};

/// Requests that wait to be written.
const QUEUE_MAX: usize = 1024;

/// Who waits for which answer; none once the connection has ended.
#[derive(Debug, Default)]
struct Waiting {
    last: i32,
    answers: Option<BTreeMap<i32, oneshot::Sender<Command>>>,
}

#[derive(Debug)]
pub(super) struct Link {
    out: mpsc::Sender<Vec<Bytes>>,
    waiting: Arc<Mutex<Waiting>>,
    /// They end with the link.
    _tasks: JoinSet<()>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(super) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let (out, queue) = mpsc::channel(QUEUE_MAX);
        let waiting = Waiting { last: 0, answers: Some(BTreeMap::new()) };
        let waiting = Arc::new(Mutex::new(waiting));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&waiting);
        tasks.spawn(async move {
            // With either end the other is of no use.
            tokio::select! {
                () = read(reader, &shared) => {}
                () = write_queued(writer, queue) => {}
            }
            lock(&shared).answers = None;
        });
        Ok(Self { out, waiting, _tasks: tasks })
    }

    /// Has something answered.
    ///
    /// # Errors
    /// The connection ended, or no answer came in time. What was asked may have been done.
    pub(super) async fn call(
        &self,
        code: i32,
        fields: Fields,
        body: Bytes,
        timeout: Duration,
    ) -> io::Result<Command> {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.waiting);
            let number = waiting.last.wrapping_add(1);
            waiting.last = number;
            let answers = waiting.answers.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            answers.insert(number, sender);
            number
        };
        let mut request = Command::request(code, number, fields);
        request.body = body;
        self.out.send(request.encode()).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer.map_err(|_| io::ErrorKind::UnexpectedEof.into()),
            Err(_) => {
                if let Some(answers) = &mut lock(&self.waiting).answers {
                    answers.remove(&number);
                }
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}

/// Hands answers to those who wait for them, until the connection ends.
async fn read(mut from: OwnedReadHalf, waiting: &Mutex<Waiting>) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(frame)) = read_frame(&mut from, &mut buffer).await {
        let Ok(answer) = Command::decode(frame) else { break };
        // What a broker asks of its clients is for consumers.
        if !answer.is_answer() {
            continue;
        }
        let mut waiting = lock(waiting);
        let waiter = waiting.answers.as_mut().and_then(|all| all.remove(&answer.head.opaque));
        if let Some(waiter) = waiter {
            // Who asked may have given up.
            let _ = waiter.send(answer);
        }
    }
}

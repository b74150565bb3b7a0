//! The leader: puts records in order, sends them on, writes them, and counts who holds them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::journal::Journal;
use crate::node::{Flush, Shared, thread};
use crate::quorum::{LEADER, NODES, Quorum, Waiting};
use crate::records::{HELD, Inbox, Purpose, Run, invalid, verify};

/// Bytes that may wait for the leader's own disk.
const QUEUE_MAX: usize = 64 << 20;
/// Between two attempts to reach a follower that does not listen yet.
const RETRY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Leader {
    shared: Arc<Shared>,
    quorum: Quorum,
    order: Mutex<Order>,
    /// The queue has something, or has room again.
    changed: Condvar,
}

/// What happens to the stream happens in its order.
#[derive(Debug)]
struct Order {
    followers: Vec<TcpStream>,
    /// Length of the stream, and records in it.
    end: u64,
    records: u64,
    /// For the disk's thread.
    queue: Vec<u8>,
    /// Without flushes nobody waits for the disk, so whoever brings records writes them.
    journal: Option<Journal>,
}

impl Leader {
    /// Connects to the followers and starts the threads.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        followers: &[String],
        patience: Duration,
    ) -> io::Result<Arc<Self>> {
        if followers.len() + 1 != NODES {
            return Err(invalid("a leader has two followers"));
        }
        let streams: Vec<TcpStream> = followers
            .iter()
            .map(|addr| connect(addr, Instant::now() + patience))
            .collect::<io::Result<_>>()?;
        let acks: Vec<TcpStream> =
            streams.iter().map(TcpStream::try_clone).collect::<io::Result<_>>()?;
        let mut journal = Some(shared.take_journal()?);
        let for_disk = (shared.flush == Flush::Sync).then(|| journal.take()).flatten();
        let leader = Arc::new(Self {
            shared: Arc::clone(shared),
            quorum: Quorum::default(),
            order: Mutex::new(Order {
                followers: streams,
                end: 0,
                records: 0,
                queue: Vec::new(),
                journal,
            }),
            changed: Condvar::new(),
        });
        for (follower, stream) in acks.into_iter().enumerate() {
            let leader = Arc::clone(&leader);
            thread("answers", move || {
                // Without this follower the other one makes the majority.
                let _: io::Result<()> = leader.answers(LEADER + 1 + follower, &stream);
            })?;
        }
        if let Some(journal) = for_disk {
            let leader = Arc::clone(&leader);
            thread("disk", move || {
                // Without the leader's disk the followers make the majority.
                let _: io::Result<()> = leader.disk(journal);
            })?;
        }
        Ok(leader)
    }

    /// Takes the records of one client.
    pub(crate) fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let client = Arc::new(stream);
        let mut inbox = Inbox::new();
        while inbox.receive(&*client)? {
            let run = verify(inbox.bytes())?;
            if run.count > 0 {
                self.append(&client, run, &inbox.bytes()[..run.bytes])?;
                inbox.consume(run.bytes);
            }
        }
        Ok(())
    }

    fn append(&self, client: &Arc<TcpStream>, run: Run, bytes: &[u8]) -> io::Result<()> {
        let full = |order: &mut Order| order.queue.len() >= QUEUE_MAX;
        let order = self.order();
        let mut order =
            self.changed.wait_while(order, full).unwrap_or_else(PoisonError::into_inner);
        order.end += bytes.len() as u64;
        let (end, position) = (order.end, order.records);
        order.records += run.count;
        let client = Arc::clone(client);
        self.quorum.wait(Waiting { end, client, first: run.first, position, count: run.count });
        // One that has gone is found by the thread that reads its answers.
        order.followers.retain_mut(|follower| follower.write_all(bytes).is_ok());
        if let Some(journal) = &mut order.journal {
            journal.write(bytes)?;
            self.shared.wrote(bytes.len());
            self.quorum.holds(LEADER, end);
        } else {
            order.queue.extend_from_slice(bytes);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Writes and flushes all that came while the last flush ran.
    fn disk(&self, mut journal: Journal) -> io::Result<()> {
        let mut group = Vec::new();
        loop {
            let end = {
                let empty = |order: &mut Order| order.queue.is_empty();
                let order = self.changed.wait_while(self.order(), empty);
                let mut order = order.unwrap_or_else(PoisonError::into_inner);
                std::mem::swap(&mut order.queue, &mut group);
                self.changed.notify_all();
                order.end
            };
            journal.write(&group)?;
            self.shared.wrote(group.len());
            journal.flush()?;
            self.shared.flushed();
            group.clear();
            self.quorum.holds(LEADER, end);
        }
    }

    fn answers(&self, follower: usize, mut stream: &TcpStream) -> io::Result<()> {
        let mut held = [0; HELD];
        loop {
            stream.read_exact(&mut held)?;
            self.quorum.holds(follower, u64::from_le_bytes(held));
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(addr: &str, deadline: Instant) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(addr) {
            Ok(mut stream) => {
                stream.set_nodelay(true)?;
                stream.write_all(&Purpose::Follow.hello())?;
                return Ok(stream);
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            // paced: between two attempts, since a node that begins to listen tells nobody.
            Err(_) => std::thread::park_timeout(RETRY),
        }
    }
}

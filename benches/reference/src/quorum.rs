//! What two of the three nodes hold, and who waits for it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use crate::records::ACK;

/// The leader's place among the three.
pub(crate) const LEADER: usize = 0;
pub(crate) const NODES: usize = 3;

/// Consecutive records of one connection that are not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Byte of the stream behind the last of them.
    pub(crate) end: u64,
    pub(crate) client: Arc<TcpStream>,
    /// Number of the first on its connection, and its position.
    pub(crate) first: u64,
    pub(crate) position: u64,
    pub(crate) count: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Quorum(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: [u64; NODES],
    waiting: VecDeque<Waiting>,
    acks: Vec<u8>,
}

impl Quorum {
    /// To be called in the order of the stream, before any node can hold the records.
    pub(crate) fn wait(&self, waiting: Waiting) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_back(waiting);
    }

    /// A node holds the stream up to `end`. Sends the acknowledgements that this allows.
    pub(crate) fn holds(&self, node: usize, end: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { held, waiting, acks } = &mut *state;
        held[node] = end;
        let mut sorted = *held;
        sorted.sort_unstable();
        let committed = sorted[NODES / 2];
        while waiting.front().is_some_and(|first| first.end <= committed) {
            let Some(ready) = waiting.pop_front() else { break };
            for n in 0..ready.count {
                acks.extend_from_slice(&(ready.first + n).to_le_bytes());
                acks.extend_from_slice(&(ready.position + n).to_le_bytes());
            }
            let more =
                |next: &Waiting| next.end <= committed && Arc::ptr_eq(&next.client, &ready.client);
            if !waiting.front().is_some_and(more) {
                // A client that has gone does not want to know.
                let _: io::Result<()> = (&*ready.client).write_all(acks);
                acks.clear();
            }
        }
        debug_assert!(acks.len() % ACK == 0);
    }
}

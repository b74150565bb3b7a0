//! Writes what is queued on a connection, as much as there is in one go.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::budget::Share;
use super::patience::{Activity, Patience, TICK};

/// Chunks that are written in one go, and about their bytes.
const CHUNKS_MAX: usize = 256;
const BATCH_BYTES: usize = 256 << 10;
/// Slices that one vectored write takes.
const SLICES_MAX: usize = 64;
/// Chunks up to this size, which headers are, are copied next to each other rather than written each as a slice.
const COPIED_BYTES_MAX: usize = 768;
/// Bytes that are copied next to each other before they are a slice.
const COPIED_ROOM: usize = 16 << 10;
/// What a chunk takes besides its bytes.
const CHUNK_BYTES: usize = 64;

/// What is queued to be written.
pub(crate) trait Queued {
    /// Its chunks; none if they are not wanted any more.
    fn begin(self) -> Option<Vec<Bytes>>;
}

impl Queued for Vec<Bytes> {
    fn begin(self) -> Option<Vec<Bytes>> {
        Some(self)
    }
}

/// What an answer takes while it waits.
pub(crate) fn cost_of(chunks: &[Bytes]) -> usize {
    chunks.iter().map(|chunk| chunk.len() + CHUNK_BYTES).sum()
}

/// What a writer keeps account of.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Where what is queued was taken from.
    pub(crate) share: Option<Arc<Share>>,
    pub(crate) activity: Arc<Activity>,
}

/// Chunks that are written in one go, the small ones joined.
#[derive(Default)]
struct Batch {
    chunks: VecDeque<Bytes>,
    /// The last ones, which are small.
    joined: BytesMut,
    bytes: usize,
    /// What all of it takes.
    cost: usize,
}

impl Batch {
    fn push(&mut self, chunks: Vec<Bytes>) {
        self.cost += cost_of(&chunks);
        for chunk in chunks {
            self.bytes += chunk.len();
            self.push_chunk(chunk);
        }
    }

    fn push_chunk(&mut self, chunk: Bytes) {
        if chunk.len() > COPIED_BYTES_MAX {
            self.join();
            self.chunks.push_back(chunk);
            return;
        }
        if self.joined.len() + chunk.len() > COPIED_ROOM {
            self.join();
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn join(&mut self) {
        if !self.joined.is_empty() {
            // A connection with nothing to write keeps no memory for it.
            self.chunks.push_back(std::mem::take(&mut self.joined).freeze());
        }
    }

    fn is_full(&self) -> bool {
        self.chunks.len() >= CHUNKS_MAX || self.bytes >= BATCH_BYTES
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The connection broke, or takes too long.
    async fn write(
        mut self,
        to: &mut (impl AsyncWrite + Unpin),
        account: &Account,
    ) -> io::Result<()> {
        self.join();
        let (begun, mut taken) = (Patience::begin(), 0);
        while !self.chunks.is_empty() {
            let is_slow = || begun.is_slow(taken);
            let mut written = self.write_some(to, account, is_slow).await?;
            taken += written;
            account.activity.note();
            while let Some(first) = self.chunks.front_mut() {
                if written < first.len() {
                    first.advance(written);
                    break;
                }
                written -= first.len();
                self.chunks.pop_front();
            }
        }
        if let Some(share) = &account.share {
            share.give_back(self.cost);
        }
        to.flush().await
    }

    async fn write_some(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        account: &Account,
        is_slow: impl Fn() -> bool,
    ) -> io::Result<usize> {
        let slices: Vec<_> =
            self.chunks.iter().take(SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
        let patience = Patience::begin();
        loop {
            tokio::select! {
                biased;
                written = to.write_vectored(&slices) => return match written? {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    written => Ok(written),
                },
                () = tokio::time::sleep(TICK) => {}
            }
            let pressed = account.share.as_ref().is_some_and(|share| share.budget().is_used_up());
            if patience.is_over() || pressed && is_slow() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// Writes what is queued until the queue closes, the connection breaks, or the other end does not take it.
pub(crate) async fn write_queued(
    mut to: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<impl Queued>,
    account: Account,
) {
    while let Some(first) = queue.recv().await {
        let mut batch = Batch::default();
        first.begin().into_iter().for_each(|chunks| batch.push(chunks));
        // Tasks that are ready run first: what they send goes along.
        tokio::task::yield_now().await;
        while !batch.is_full() {
            let Ok(more) = queue.try_recv() else { break };
            more.begin().into_iter().for_each(|chunks| batch.push(chunks));
        }
        if let Err(error) = batch.write(&mut to, &account).await {
            tracing::debug!(%error, "a connection breaks");
            return;
        }
    }
}
